/** The one place where a failed file operation of Node becomes one of the project's errors. */

import { codeOfNode } from "../system/errno.js";
import {
  BaseError,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  SyscallError,
} from "../system/errors.js";

/**
 * Names what was being done when Node's `fs` failed.
 *
 * @param operation a verb phrase: "write blob sha256:…"
 * @param path the file or directory concerned
 * @returns ResourceExhaustedError (ENOSPC, EDQUOT, EFBIG), PermissionDeniedError (EACCES, EPERM,
 *   EROFS), NotFoundError (ENOENT), InvalidArgumentError (a path that cannot be one), SyscallError
 *   (others); what is no `fs` error comes back as it is
 */
export function ioError(error: unknown, operation: string, path: string): unknown {
  if (error instanceof BaseError || !isSystemError(error)) return error;
  const code = codeOfNode(error) ?? error.code;
  const options = { cause: error, details: { path, errno: code } };
  switch (code) {
    case "EDQUOT":
      return new ResourceExhaustedError(
        `${operation}: the disk quota for ${path} is used up; have it raised, or remove images that are not needed`,
        options,
      );
    case "ENOSPC":
      return new ResourceExhaustedError(
        `${operation}: no space left for ${path}; free some on its file system, remove images ` +
          "that are not needed, or choose another --root",
        options,
      );
    case "EFBIG":
      return new ResourceExhaustedError(
        `${operation}: ${path} grew beyond what its file system or the file size limit allows`,
        options,
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new PermissionDeniedError(`${operation}: ${path}: ${describe(error)}`, options);
    case "ENOENT":
      return new NotFoundError(`${operation}: ${path}: no such file or directory`, options);
    case "EISDIR":
    case "ELOOP":
    case "ENAMETOOLONG":
    case "ENOTDIR":
      return new InvalidArgumentError(`${operation}: ${path}: ${describe(error)}`, options);
    default:
      return new SyscallError(
        Math.abs(error.errno ?? 0),
        code,
        error.syscall ?? operation,
        path,
        describe(error),
      );
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === "string";
}

/** "permission denied" out of "EACCES: permission denied, open '/x'". */
function describe(error: NodeJS.ErrnoException): string {
  return /^[A-Z0-9]+: ([^,]+)/.exec(error.message)?.[1] ?? error.message;
}
