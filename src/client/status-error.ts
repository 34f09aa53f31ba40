/** A failed call's trailers become one of the project's errors. */

import {
  CODE_OF_STATUS,
  ERRNO_NAME_TRAILER,
  ERRNO_TRAILER,
  ERROR_CODE_TRAILER,
  STATUS_OF_CODE,
  Status,
  SYSCALL_TRAILER,
} from "../services/status.js";
import { errorOfCode } from "../system/error-of-code.js";
import { type BaseError, type ErrorCode, UnavailableError } from "../system/errors.js";

type Details = Readonly<Record<string, unknown>>;

type Trailers = Readonly<Record<string, unknown>>;

function text(trailers: Trailers, name: string): string | undefined {
  const value = trailers[name];
  return typeof value === "string" ? value : undefined;
}

/** grpc-message is percent-encoded UTF-8; text that is not stays as it came. */
function decodeMessage(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

function isErrorCode(code: string | undefined): code is ErrorCode {
  return code !== undefined && code in STATUS_OF_CODE;
}

/**
 * The error that a call's trailers describe, or undefined when its status is OK.
 *
 * `details` carries `grpcStatus`, and for a failed system call `errno`, `errnoName` and `syscall`.
 * A status that has no class of ours becomes a BaseError with code "SYSCALL" (an internal failure).
 */
export function errorFromTrailers(trailers: Trailers, method: string): BaseError | undefined {
  const status = Number(text(trailers, "grpc-status") ?? Number.NaN);
  if (status === Status.OK) return undefined;
  if (Number.isNaN(status)) {
    return new UnavailableError(`${method}: the daemon closed the call without a status`);
  }
  const message = decodeMessage(text(trailers, "grpc-message") ?? `${method}: status ${status}`);
  const named = text(trailers, ERROR_CODE_TRAILER);
  const code = isErrorCode(named) ? named : CODE_OF_STATUS[status];
  const errnoName = text(trailers, ERRNO_NAME_TRAILER);
  const details: Details = {
    grpcStatus: status,
    ...(errnoName === undefined
      ? {}
      : {
          errnoName,
          errno: Number(text(trailers, ERRNO_TRAILER)),
          syscall: text(trailers, SYSCALL_TRAILER),
        }),
  };
  return errorOfCode(code ?? "SYSCALL", message, { details });
}
