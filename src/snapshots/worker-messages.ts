/**
 * What the main thread and a worker thread say to each other: calls by number, each answered once
 * with a result or an error, with any number of events before that.
 */

import { errorOfCode } from "../system/error-of-code.js";
import { BaseError, type ErrorCode, SyscallError } from "../system/errors.js";

/** To a worker. */
export type ToWorker =
  | { readonly call: number; readonly method: string; readonly argument: unknown }
  | { readonly cancel: number };

/** From a worker. `call` 0 is an event of the worker itself. */
export type FromWorker =
  | { readonly call: number; readonly result: unknown }
  | { readonly call: number; readonly error: PlainError }
  | { readonly call: number; readonly event: unknown };

/** An error as a structured clone keeps it: classes and own fields would be lost. */
export interface PlainError {
  readonly code?: ErrorCode;
  readonly message: string;
  readonly stack?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Takes an error apart. */
export function toPlainError(error: unknown): PlainError {
  if (!(error instanceof Error)) return { message: String(error) };
  const plain = { message: error.message, ...(error.stack ? { stack: error.stack } : {}) };
  if (!(error instanceof BaseError)) {
    const { code, errno, syscall } = error as NodeJS.ErrnoException;
    if (code === undefined || errno === undefined || syscall === undefined) return plain;
    // Node's own: a full disk must not look like a bug because a thread met it.
    const details = { errno: Math.abs(errno), errnoName: code, syscall };
    return { ...plain, code: "SYSCALL", details };
  }
  const details =
    error instanceof SyscallError
      ? { errno: error.errno, errnoName: error.errnoName, syscall: error.syscall }
      : error.details;
  return { ...plain, code: error.code, ...(details === undefined ? {} : { details }) };
}

/** Puts it together again, with the stack of the thread where it happened. */
export function fromPlainError(plain: PlainError): Error {
  const error =
    plain.code === undefined
      ? new Error(plain.message)
      : errorOfCode(
          plain.code,
          plain.message,
          plain.details === undefined ? {} : { details: plain.details },
        );
  if (plain.stack !== undefined) error.stack = plain.stack;
  return error;
}
