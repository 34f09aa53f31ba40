/** Bytes put aside on disk, without a name, to be read back in their order. */

import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { O_RDWR, O_TMPFILE } from "../system/constants.js";

/** See the file comment. Close it after use. */
export class SpillFile {
  readonly #fd: number;
  #length = 0;
  #taken = 0;

  constructor(directory: string) {
    this.#fd = openSync(directory, O_TMPFILE | O_RDWR, 0o600);
  }

  /** All of `bytes`, or none of them and false: the disk is full. */
  append(bytes: Buffer): boolean {
    try {
      for (let at = 0; at < bytes.length; ) {
        at += writeSync(this.#fd, bytes, at, bytes.length - at, this.#length + at);
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOSPC") return false;
      throw error;
    }
    this.#length += bytes.length;
    return true;
  }

  /** Fills `target` with what comes next; returns the number of bytes, 0 at the end. */
  take(target: Buffer): number {
    const wanted = Math.min(target.length, this.#length - this.#taken);
    const count = readSync(this.#fd, target, 0, wanted, this.#taken);
    this.#taken += count;
    return count;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
