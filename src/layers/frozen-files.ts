/**
 * Copies of files that programs may write to at any time, all of one moment.
 *
 * In a paused view everybody who writes waits, but for programs whose open files are served by the
 * kernel itself (passthrough). Such files are copied, and copied again until none has changed from
 * the beginning of a round to its end. A store to a mapped page that was dirty before does not show;
 * like any store that was not synchronised it may be in the copy or not. (A flush would make it
 * show, and can take minutes on a busy disk.)
 */

import { closeSync, openSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { copyDataAsync } from "../overlay/file-copy.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { AT_EMPTY_PATH, O_RDWR, O_TMPFILE } from "../system/constants.js";
import { must } from "../system/errno.js";
import {
  STAT_CTIME_NSEC,
  STAT_CTIME_SEC,
  STAT_INO,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SIZE,
  STAT_SLOTS,
} from "../system/native.js";

const ROUNDS = 8;
/** Two changes within one tick of the clock that files get their times from may look like one (up to 10 ms). */
const TICK_MS = 12;
const SELF = "" as ByteString;
/** A write changes one of these. */
const TELLTALE = [
  STAT_SIZE,
  STAT_MTIME_SEC,
  STAT_MTIME_NSEC,
  STAT_CTIME_SEC,
  STAT_CTIME_NSEC,
] as const;

/** A copy, and the statx record that the file had then. */
interface FrozenFile {
  /** Of the copy; valid until `close`. */
  readonly fd: number;
  readonly stats: Float64Array;
}

/** See the file comment. Close it after use. */
export class FrozenFiles {
  readonly #files: OpenFile[] = [];

  /**
   * @param descriptors of the files, readable; borrowed
   * @param directory for the copies, which have no names
   * @throws SyscallError the disk is full, or a file cannot be read
   */
  static async take(descriptors: readonly number[], directory: string): Promise<FrozenFiles> {
    const frozen = new FrozenFiles();
    try {
      for (const fd of descriptors) frozen.#files.push(new OpenFile(fd, directory));
      await frozen.#settle();
      return frozen;
    } catch (error) {
      frozen.close();
      throw error;
    }
  }

  async #settle(): Promise<void> {
    const clone = { canClone: true };
    for (let round = 0; round < ROUNDS; round++) {
      const restless = this.#files.filter((file) => !file.isStill);
      if (restless.length === 0) return;
      if (round > 0) await delay(TICK_MS);
      for (const file of restless) await file.copy(clone);
      for (const file of this.#files) file.look();
    }
  }

  /** The copy of a file of the upper directory, by its inode number; undefined when there is none. */
  get(inode: number): FrozenFile | undefined {
    return this.#files.find(({ stats }) => stats[STAT_INO] === inode);
  }

  /** False for a file that was written to all the time: its copy may be of several moments. */
  isStill(inode: number): boolean {
    return this.#files.every(({ isStill, stats }) => isStill || stats[STAT_INO] !== inode);
  }

  /** Idempotent. */
  close(): void {
    for (const { fd } of this.#files.splice(0)) closeSync(fd);
  }
}

class OpenFile implements FrozenFile {
  readonly fd: number;
  readonly stats = new Float64Array(STAT_SLOTS);
  readonly #original: number;
  readonly #now = new Float64Array(STAT_SLOTS);
  #begunMs = 0;
  isStill = false;

  constructor(original: number, directory: string) {
    this.#original = original;
    statInto(original, this.stats);
    this.fd = openSync(directory, O_TMPFILE | O_RDWR, 0o600);
  }

  async copy(clone: { canClone: boolean }): Promise<void> {
    this.#begunMs = Date.now();
    statInto(this.#original, this.stats);
    const size = this.stats[STAT_SIZE]!;
    must(sys.ftruncate(this.fd, 0), "ftruncate", "a copy");
    must(sys.ftruncate(this.fd, size), "ftruncate", "a copy");
    const copied = await copyDataAsync(clone, this.#original, this.fd, size);
    // A file that has become shorter has changed; whatever else it is, trying again will not mend it.
    this.isStill = copied >= 0;
    statInto(this.#original, this.#now);
    if (this.#now[STAT_SIZE]! >= size) must(copied, "copy_file_range", "a file of the view");
  }

  /** Looks whether the file is as it was when its copy was begun. */
  look(): void {
    if (!this.isStill) return;
    statInto(this.#original, this.#now);
    this.isStill = TELLTALE.every((slot) => this.#now[slot] === this.stats[slot]) && this.#isOld();
  }

  /** A change in the tick of the one before would not show. */
  #isOld(): boolean {
    const { stats } = this;
    const changedMs = stats[STAT_CTIME_SEC]! * 1000 + stats[STAT_CTIME_NSEC]! / 1e6;
    return this.#begunMs - changedMs > TICK_MS;
  }
}

function statInto(fd: number, stats: Float64Array): void {
  must(sys.statx(fd, SELF, AT_EMPTY_PATH, stats), "statx", "a file of the view");
}
