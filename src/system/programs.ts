/** Looking at what the machine has: programs, and files that this user may use. */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Looks a program up on PATH. */
export function findProgram(name: string): string | undefined {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .filter((directory) => directory !== "")
    .map((directory) => join(directory, name))
    .find((file) => isAllowed(file, constants.X_OK));
}

/** True when this user may read and write a file. */
export function isWritable(file: string): boolean {
  return isAllowed(file, constants.R_OK | constants.W_OK);
}

function isAllowed(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}
