/** Adding up what a tree occupies on disk. */

import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { STAT_BLOCKS, STAT_INO, STAT_MODE, STAT_NLINK } from "../system/native.js";

/** Disk usage; hard links count once, as du counts them. */
export interface DiskUsage {
  /** Allocated bytes. */
  readonly bytes: number;
  readonly inodes: number;
}

const BLOCK_BYTES = 512;

/** Sums stat records of one tree. */
export class UsageCounter {
  #bytes = 0;
  #inodes = 0;
  readonly #linked = new Set<number>();

  /** Adds the record at `stats[at]`, one for each name of the tree. */
  add(stats: Float64Array, at = 0): void {
    const isDirectory = (stats[at + STAT_MODE]! & S_IFMT) === S_IFDIR;
    if (stats[at + STAT_NLINK]! > 1 && !isDirectory && !this.#isFirstName(stats[at + STAT_INO]!)) {
      return;
    }
    this.#inodes++;
    this.#bytes += stats[at + STAT_BLOCKS]! * BLOCK_BYTES;
  }

  get usage(): DiskUsage {
    return { bytes: this.#bytes, inodes: this.#inodes };
  }

  #isFirstName(inode: number): boolean {
    if (this.#linked.has(inode)) return false;
    this.#linked.add(inode);
    return true;
  }
}
