/**
 * gRPC status numbers and how they correspond to the project's error codes, for both ends of the
 * wire. No dependency on a gRPC library, so that the command line starts without loading one.
 *
 * @see https://grpc.io/docs/guides/status-codes/
 */

import type { ErrorCode } from "../system/errors.js";

/** gRPC status codes. */
export const Status = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** The status for each error code; a system call's depends on its errno (see `services/errors.ts`). */
export const STATUS_OF_CODE: Readonly<Record<ErrorCode, number>> = {
  NOT_FOUND: Status.NOT_FOUND,
  ALREADY_EXISTS: Status.ALREADY_EXISTS,
  INVALID_ARGUMENT: Status.INVALID_ARGUMENT,
  FAILED_PRECONDITION: Status.FAILED_PRECONDITION,
  PERMISSION_DENIED: Status.PERMISSION_DENIED,
  RESOURCE_EXHAUSTED: Status.RESOURCE_EXHAUSTED,
  UNAVAILABLE: Status.UNAVAILABLE,
  CORRUPT_DATA: Status.DATA_LOSS,
  UNSUPPORTED: Status.UNIMPLEMENTED,
  CANCELLED: Status.CANCELLED,
  SYSCALL: Status.INTERNAL,
};

/** The code of a failed call whose server said no more than its status. */
export const CODE_OF_STATUS: Readonly<Record<number, ErrorCode>> = {
  [Status.CANCELLED]: "CANCELLED",
  [Status.INVALID_ARGUMENT]: "INVALID_ARGUMENT",
  [Status.OUT_OF_RANGE]: "INVALID_ARGUMENT",
  // No answer in time: as with a daemon that is not there, trying again may help.
  [Status.DEADLINE_EXCEEDED]: "UNAVAILABLE",
  [Status.NOT_FOUND]: "NOT_FOUND",
  [Status.ALREADY_EXISTS]: "ALREADY_EXISTS",
  [Status.PERMISSION_DENIED]: "PERMISSION_DENIED",
  [Status.UNAUTHENTICATED]: "PERMISSION_DENIED",
  [Status.RESOURCE_EXHAUSTED]: "RESOURCE_EXHAUSTED",
  [Status.FAILED_PRECONDITION]: "FAILED_PRECONDITION",
  [Status.ABORTED]: "FAILED_PRECONDITION",
  [Status.UNIMPLEMENTED]: "UNSUPPORTED",
  [Status.UNAVAILABLE]: "UNAVAILABLE",
  [Status.DATA_LOSS]: "CORRUPT_DATA",
};

/** Trailer that carries our own error code, so that a client need not guess it from the status. */
export const ERROR_CODE_TRAILER = "varve-error-code";
/** Trailers of a failed system call: the symbol ("ENOSPC"), its number and the call's name. */
export const ERRNO_NAME_TRAILER = "varve-errno-name";
export const ERRNO_TRAILER = "varve-errno";
export const SYSCALL_TRAILER = "varve-syscall";

/** Longest message in either direction, bytes; containerd's limit too. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
