/** Errors that crossed a boundary (a thread, a socket) as plain values become classes again. */

import {
  AlreadyExistsError,
  BaseError,
  CancelledError,
  CorruptDataError,
  type ErrorCode,
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  UnavailableError,
  UnsupportedError,
} from "./errors.js";

type Options = { cause?: unknown; details?: Readonly<Record<string, unknown>> };
type ErrorClass = new (message: string, options?: Options) => BaseError;

const CLASSES: Readonly<Record<Exclude<ErrorCode, "SYSCALL">, ErrorClass>> = {
  NOT_FOUND: NotFoundError,
  ALREADY_EXISTS: AlreadyExistsError,
  INVALID_ARGUMENT: InvalidArgumentError,
  FAILED_PRECONDITION: FailedPreconditionError,
  PERMISSION_DENIED: PermissionDeniedError,
  RESOURCE_EXHAUSTED: ResourceExhaustedError,
  UNAVAILABLE: UnavailableError,
  CORRUPT_DATA: CorruptDataError,
  UNSUPPORTED: UnsupportedError,
  CANCELLED: CancelledError,
};

/**
 * The error with this code and message. For "SYSCALL" it is a BaseError, because the message is
 * already composed; errno, errnoName and syscall belong in `details`.
 */
export function errorOfCode(code: ErrorCode, message: string, options?: Options): BaseError {
  if (code === "SYSCALL") return new BaseError(code, message, options);
  return new CLASSES[code](message, options);
}
