/** What happens when the disk has no space left: a collection, and then the same again. */

import { rmSync } from "node:fs";
import path from "node:path";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { O_CLOEXEC, O_CREAT, O_WRONLY } from "../system/constants.js";
import { codeOfNode } from "../system/errno.js";
import { BaseError, SyscallError } from "../system/errors.js";

/** Frees what can be spared on the store's disk. @returns false when nothing could be */
export type MakeRoom = () => Promise<boolean>;

const FULL = new Set<unknown>(["ENOSPC", "EDQUOT"]);

/** True when the disk, or the user's share of it, had no space left. */
export function isDiskFull(error: unknown): boolean {
  if (error instanceof SyscallError) return FULL.has(error.errnoName);
  if (error instanceof BaseError) {
    return FULL.has(error.details?.errno) || FULL.has(error.details?.errnoName);
  }
  return FULL.has(codeOfNode(error));
}

/**
 * Runs `work`, and again after each time that it found the disk full and room could be made.
 *
 * @throws whatever `work` throws
 */
export async function withRoom<R>(
  makeRoom: MakeRoom | undefined,
  work: () => Promise<R>,
): Promise<R> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (makeRoom === undefined || !isDiskFull(error) || !(await makeRoom())) throw error;
    }
  }
}

/** A collection's transaction takes a few pages of the database's log. */
const RESERVE_BYTES = 1024 * 1024;

/** A file that only takes space, to be given up when a collection must write on a full disk. */
export class DiskReserve {
  readonly #file: string;

  /** @param root a directory on the disk in question */
  constructor(root: string) {
    this.#file = path.join(root, "reserve");
  }

  /** Takes the space, as far as there is any. Idempotent. */
  hold(): void {
    const fd = sys.open(toBytes(this.#file), O_CREAT | O_WRONLY | O_CLOEXEC, 0o600);
    // On a full disk, or a file system that cannot do it, collections do without.
    if (fd < 0) return;
    sys.fallocate(fd, 0, 0, RESERVE_BYTES);
    sys.close(fd);
  }

  /** Gives it up. */
  release(): void {
    rmSync(this.#file, { force: true });
  }
}
