/** Waiting for helper programs. */

import type { ChildProcess } from "node:child_process";
import { BaseError, FailedPreconditionError } from "../../system/errors.js";

const MAX_STDERR = 4000;

/**
 * Resolves when the program ended well. Reads its standard error, which must be a pipe.
 *
 * @param what the operation, for messages
 * @throws FailedPreconditionError the program is not installed
 * @throws BaseError it failed; with what it said
 */
export function ended(child: ChildProcess, what: string): Promise<void> {
  let stderr = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    if (stderr.length < MAX_STDERR) stderr += chunk.toString();
  });
  const result = new Promise<void>((resolve, reject) => {
    child.once("error", (cause) => reject(notStarted(child, what, cause)));
    child.once("close", (code, signal) => {
      if (code === 0) return resolve();
      const how = signal === null ? `exit code ${code}` : signal;
      reject(new BaseError("SYSCALL", `${what}: ${child.spawnfile}: ${stderr.trim() || how}`));
    });
  });
  // Who reads its output first looks at the outcome afterwards.
  result.catch(() => undefined);
  return result;
}

/** The error of a program that could not be started. */
export function notStarted(child: ChildProcess, what: string, cause: Error): BaseError {
  const isMissing = (cause as NodeJS.ErrnoException).code === "ENOENT";
  const reason = isMissing ? "is not installed" : `cannot be started: ${cause.message}`;
  return new FailedPreconditionError(`${what}: ${child.spawnfile} ${reason}`, { cause });
}
