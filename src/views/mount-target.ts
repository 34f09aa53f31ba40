/** Where a view may be mounted. */

import fs from "node:fs/promises";
import path from "node:path";
import {
  FailedPreconditionError,
  InvalidArgumentError,
  PermissionDeniedError,
} from "../system/errors.js";

/** A directory that is ready to be mounted on. */
export interface MountTarget {
  /** Absolute, with no symlink in it, as the kernel's mount table will show it. */
  readonly path: string;
  /** Made by this call: to be removed again if the mount fails. */
  readonly created: boolean;
}

/**
 * Makes sure that `target` is an empty directory; creates it when only its last part is missing.
 *
 * @throws InvalidArgumentError not absolute
 * @throws FailedPreconditionError not empty, no directory, or its parent is missing
 */
export async function prepareTarget(target: string): Promise<MountTarget> {
  if (!path.isAbsolute(target)) {
    throw new InvalidArgumentError(`mount on ${target}: the target must be an absolute path`);
  }
  const created = await createDirectory(target);
  const entries = await fs.readdir(target).catch((error: NodeJS.ErrnoException) => {
    throw targetError(target, error);
  });
  if (entries.length > 0) {
    throw new FailedPreconditionError(
      `mount on ${target}: target is not empty; choose an empty directory or one that does not exist yet`,
    );
  }
  return { path: await fs.realpath(target), created };
}

async function createDirectory(target: string): Promise<boolean> {
  try {
    await fs.mkdir(target, { mode: 0o755 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw targetError(target, error as NodeJS.ErrnoException);
  }
}

function targetError(target: string, error: NodeJS.ErrnoException): Error {
  const reasons: Record<string, string> = {
    ENOENT: `its parent ${path.dirname(target)} does not exist; create it first`,
    ENOTDIR: "it is not a directory",
    ENOTCONN: "a dead FUSE mount is on it; detach it with umount -l",
    ELOOP: "too many symbolic links",
    ENAMETOOLONG: "the name is too long",
    EROFS: "the file system is read-only",
  };
  const reason = reasons[error.code ?? ""];
  if (reason !== undefined) {
    return new FailedPreconditionError(`mount on ${target}: ${reason}`, { cause: error });
  }
  if (error.code === "EACCES" || error.code === "EPERM") {
    return new PermissionDeniedError(`mount on ${target}: permission denied`, { cause: error });
  }
  return error;
}
