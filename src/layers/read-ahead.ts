/**
 * The entries of a layer with the content of small files, which are read ahead: many at a time on the
 * thread pool, while those before them are packed. To open and to read such a file costs more than
 * all that is done with its bytes.
 */

import { type ByteString, toBuffer } from "../system/bytes.js";
import { must } from "../system/errno.js";
import { READ_COUNT, READ_INO, READ_SIZE, READ_SLOTS } from "../system/native.js";
import type { LayerDiff, LayerEntry } from "./diff.js";

const SMALL_BYTES = 64 * 1024;
const GROUP_ENTRIES = 256;
const GROUP_BYTES = 512 * 1024;
/** openat2 takes no longer ones in one step. */
const MAX_PATH = 4000;

/** A file that was read whole: it was as large as its entry says before and after. */
export interface SmallFile {
  readonly inode: number;
  /** Valid until the next group is taken. */
  readonly bytes: Buffer;
}

/** Entries that follow one another. */
export class EntryGroup {
  readonly entries: LayerEntry[] = [];
  readonly #memory = Buffer.allocUnsafeSlow(GROUP_BYTES);
  /** Of each entry: the place of its file among those that are read, or -1. */
  readonly #places: number[] = [];
  readonly #offsets: number[] = [];
  #numbers = new Float64Array(0);
  #paths = "";

  /** Collects the next entries, and begins to read; what was collected before is forgotten. False at the end. */
  async fill(from: Iterator<LayerEntry>, diff: LayerDiff): Promise<boolean> {
    this.entries.length = this.#places.length = this.#offsets.length = 0;
    this.#paths = "";
    const sizes: number[] = [];
    let bytes = 0;
    while (this.entries.length < GROUP_ENTRIES && bytes <= GROUP_BYTES - SMALL_BYTES) {
      const next = from.next();
      if (next.done === true) break;
      this.entries.push(next.value);
      const isRead = this.#isSmall(next.value);
      this.#places.push(isRead ? sizes.length : -1);
      if (!isRead) continue;
      this.#offsets.push(bytes);
      sizes.push(next.value.entry.size);
      bytes += next.value.entry.size;
    }
    this.#numbers = new Float64Array(sizes.length * READ_SLOTS);
    sizes.forEach((size, place) => {
      this.#numbers[place * READ_SLOTS] = size;
    });
    if (sizes.length > 0) {
      const paths = toBuffer(this.#paths as ByteString);
      must(await diff.readUpperFiles(paths, this.#numbers, this.#memory), "read", "small files");
    }
    return this.entries.length > 0;
  }

  #isSmall({ entry, source }: LayerEntry): boolean {
    if (source?.kind !== "upper" || entry.size > SMALL_BYTES || source.path.length > MAX_PATH)
      return false;
    this.#paths += `${source.path}\0`;
    return true;
  }

  /** The content of an entry; undefined when it is large, elsewhere, gone, or not as the entry says. */
  file(position: number): SmallFile | undefined {
    const place = this.#places[position]!;
    if (place < 0) return undefined;
    const { size } = this.entries[position]!.entry;
    const at = place * READ_SLOTS;
    const numbers = this.#numbers;
    if (numbers[at + READ_COUNT] !== size || numbers[at + READ_SIZE] !== size) return undefined;
    const start = this.#offsets[place]!;
    return { inode: numbers[at + READ_INO]!, bytes: this.#memory.subarray(start, start + size) };
  }
}

/** See the file comment. Close it after use, before the diff. */
export class ReadAhead {
  readonly #diff: LayerDiff;
  readonly #entries: Iterator<LayerEntry>;
  #current = new EntryGroup();
  #next = new EntryGroup();
  #isFilled: Promise<boolean>;

  constructor(diff: LayerDiff) {
    this.#diff = diff;
    this.#entries = diff.entries();
    this.#isFilled = this.#fill();
  }

  #fill(): Promise<boolean> {
    const filled = this.#next.fill(this.#entries, this.#diff);
    // Whoever takes the group hears of it.
    filled.catch(() => {});
    return filled;
  }

  /** The next entries; those before are over. Undefined at the end. */
  async take(): Promise<EntryGroup | undefined> {
    if (!(await this.#isFilled)) return undefined;
    const group = this.#next;
    this.#next = this.#current;
    this.#current = group;
    this.#isFilled = this.#fill();
    return group;
  }

  /** Waits until nothing is read any more. */
  async close(): Promise<void> {
    await this.#isFilled.catch(() => {});
  }
}
