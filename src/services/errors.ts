/** The one place where our errors become gRPC statuses. */

import { Metadata, type ServiceError } from "@grpc/grpc-js";
import { codeOfNode } from "../system/errno.js";
import { errorOfCode } from "../system/error-of-code.js";
import { BaseError, type ErrorCode, SyscallError, UnavailableError } from "../system/errors.js";
import {
  CODE_OF_STATUS,
  ERRNO_NAME_TRAILER,
  ERRNO_TRAILER,
  ERROR_CODE_TRAILER,
  STATUS_OF_CODE,
  Status,
  SYSCALL_TRAILER,
} from "./status.js";

// Trailers share HTTP/2's header limit of 8 KiB or so with everything else.
const MAX_MESSAGE_CHARACTERS = 4000;

const STATUS_OF_ERRNO: Readonly<Record<string, number>> = {
  ENOSPC: Status.RESOURCE_EXHAUSTED,
  EDQUOT: Status.RESOURCE_EXHAUSTED,
  EMFILE: Status.RESOURCE_EXHAUSTED,
  ENFILE: Status.RESOURCE_EXHAUSTED,
  ENOMEM: Status.RESOURCE_EXHAUSTED,
  EACCES: Status.PERMISSION_DENIED,
  EPERM: Status.PERMISSION_DENIED,
  EROFS: Status.FAILED_PRECONDITION,
};

/** An error whose status another protocol prescribes, whatever its code. */
export class StatusError extends BaseError {
  readonly status: number;

  constructor(status: number, message: string, cause: BaseError) {
    super(cause.code, message, { cause });
    this.status = status;
  }
}

interface Failure {
  readonly status: number;
  readonly message: string;
  readonly code: ErrorCode;
  readonly errno?: { name: string; number: number; syscall: string };
}

/**
 * The status for an error, with our code and a system call's errno in trailers. What is not one of
 * our errors and no failed system call is a bug: INTERNAL, and `logBug` gets it.
 */
export function toServiceError(error: unknown, logBug: (error: unknown) => void): ServiceError {
  const failure = describe(error);
  if (failure === undefined) logBug(error);
  const { status, message, code, errno } = failure ?? {
    status: Status.INTERNAL,
    message: `internal error: ${error instanceof Error ? error.message : String(error)}`,
    code: "SYSCALL",
  };
  const metadata = new Metadata();
  if (failure !== undefined) metadata.set(ERROR_CODE_TRAILER, code);
  if (errno !== undefined) {
    metadata.set(ERRNO_NAME_TRAILER, errno.name);
    metadata.set(ERRNO_TRAILER, String(errno.number));
    metadata.set(SYSCALL_TRAILER, errno.syscall);
  }
  // A lone surrogate cannot be percent-encoded.
  const details = Buffer.from(message.slice(0, MAX_MESSAGE_CHARACTERS)).toString();
  return Object.assign(new Error(details), { code: status, details, metadata });
}

function describe(error: unknown): Failure | undefined {
  if (error instanceof SyscallError) {
    const { errnoName, errno, syscall, message } = error;
    return systemFailure(message, errnoName, errno, syscall);
  }
  if (error instanceof BaseError) return describeOwn(error);
  // node:fs and node:net fail with the errno's name as `code`.
  const { errno, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  const code = codeOfNode(error);
  if (error instanceof Error && errno !== undefined && /^E[A-Z0-9]+$/.test(code ?? "")) {
    return systemFailure(error.message, code!, Math.abs(errno), syscall ?? "");
  }
  return undefined;
}

function describeOwn(error: BaseError): Failure {
  const { code, message, details } = error;
  if (error instanceof StatusError) return { status: error.status, message, code };
  // A SyscallError that crossed a thread: its fields are in `details`.
  if (code === "SYSCALL" && typeof details?.errnoName === "string") {
    const { errnoName, errno, syscall } = details;
    return systemFailure(message, errnoName, Number(errno), String(syscall));
  }
  return { status: STATUS_OF_CODE[code], message, code };
}

function systemFailure(message: string, name: string, number: number, syscall: string): Failure {
  const status = STATUS_OF_ERRNO[name] ?? Status.INTERNAL;
  return { status, message, code: "SYSCALL", errno: { name, number, syscall } };
}

/** Another server's failure as one of our errors; `what` says who was asked for what. */
export function fromServiceError(error: ServiceError, what: string): BaseError {
  const code = CODE_OF_STATUS[error.code];
  const message = `${what}: ${error.details || error.message}`;
  if (code === undefined) return new UnavailableError(message, { cause: error });
  return errorOfCode(code, message, { cause: error });
}
