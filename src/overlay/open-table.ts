/**
 * The table of the kernel's open files, in memory that a mapped file can back: then the process that
 * takes the view over after a kill finds it as it was.
 *
 * One record of 32-bit words for each of the kernel's inodes that is, or was lately, open. A
 * SIGKILL may come between any two stores, so each change of a count is announced first, by the
 * request that causes it and what the counts will be; whoever opens the table completes what was
 * announced. A request that was not answered comes again with the same identifier, and must
 * not count twice: see `undo`.
 */

import type { NodeId } from "../fuse/file-system.js";
import { INCARNATION_SHIFT } from "../fuse/request.js";

/** Memory for a table, which grows with its contents. */
export interface TableMemory {
  /** Zeroed at first. */
  readonly words: Uint32Array;
  /** Makes it at least so many words long. @throws SyscallError there is no room */
  grow(words: number): void;
}

/** Memory of this process alone. */
export class PrivateMemory implements TableMemory {
  words = new Uint32Array(0);

  grow(words: number): void {
    const old = this.words;
    this.words = new Uint32Array(words);
    this.words.set(old);
  }
}

/** How an open is served: through the kernel's page cache, or from the backing file. */
export type OpenKind = "cached" | "through";

/** One of the kernel's inodes that is, or was lately, open. Changed by the table's methods only. */
export interface OpenFile {
  readonly slot: number;
  /** Never used again in the lifetime of the mount. */
  readonly serial: number;
  readonly id: NodeId;
  readonly incarnation: number;
  /** Where its data was when it was registered or opened. */
  isUpper: boolean;
  /** How many opens there are of each kind; never of both. */
  cached: number;
  through: number;
  /** 0: not registered. */
  backingId: number;
}

const WORD = 2 ** 32;
const RECORD_WORDS = 8;
const FIRST_RECORDS = 512;

// The head: the format, the last serial, and the announced change.
const HEAD_RECORDS = 2;
const FORMAT = 0x766f7401;
const HEAD_FORMAT = 0;
const HEAD_SERIAL = 1;
const HEAD_REQUEST = 3;
/** The record that changes; 0: none. */
const HEAD_SLOT = 5;
const HEAD_CACHED = 6;
const HEAD_THROUGH = 7;
/** Index in CHANGES. */
const HEAD_CHANGE = 8;

const CHANGES: readonly (readonly [OpenKind, number])[] = [
  ["cached", 1],
  ["cached", -1],
  ["through", 1],
  ["through", -1],
];

// A record: node ID with the incarnation on top, as on the wire; serial; the rest is one word each.
const NODE = 0;
const SERIAL = 2;
const FLAGS = 4;
const CACHED = 5;
const THROUGH = 6;
const BACKING = 7;

const IN_USE = 1;
const IS_UPPER = 2;

/** See the file comment. */
export class OpenTable {
  readonly #memory: TableMemory;
  readonly #bySerial = new Map<number, OpenFile>();
  readonly #free: number[] = [];
  #used = HEAD_RECORDS;
  #serial = 0;
  /** The change that the last process announced. */
  #inherited:
    | {
        readonly request: number;
        readonly file: OpenFile;
        readonly kind: OpenKind;
        readonly difference: number;
      }
    | undefined;

  /** @param memory zeroed, or as another table left it */
  constructor(memory: TableMemory = new PrivateMemory()) {
    this.#memory = memory;
    if (memory.words.length < RECORD_WORDS) memory.grow(FIRST_RECORDS * RECORD_WORDS);
    if (memory.words[HEAD_FORMAT] === FORMAT) this.#load();
    else this.#put(HEAD_FORMAT, FORMAT);
  }

  /** All files. */
  files(): IterableIterator<OpenFile> {
    return this.#bySerial.values();
  }

  find(serial: number): OpenFile | undefined {
    return this.#bySerial.get(serial);
  }

  /** @throws SyscallError there is no memory for another one */
  add(id: NodeId, incarnation: number, isUpper: boolean): OpenFile {
    const slot = this.#free.pop() ?? this.#take();
    const serial = ++this.#serial;
    const file = { slot, serial, id, incarnation, isUpper, cached: 0, through: 0, backingId: 0 };
    this.#put64(HEAD_SERIAL, serial);
    const at = slot * RECORD_WORDS;
    this.#put(at + NODE, id);
    this.#put(at + NODE + 1, Math.floor(id / WORD) + incarnation * 2 ** INCARNATION_SHIFT);
    this.#put64(at + SERIAL, serial);
    for (const field of [CACHED, THROUGH, BACKING]) this.#put(at + field, 0);
    this.#put(at + FLAGS, isUpper ? IN_USE | IS_UPPER : IN_USE);
    this.#bySerial.set(serial, file);
    return file;
  }

  remove(file: OpenFile): void {
    if (this.#memory.words[HEAD_SLOT] === file.slot) this.#put(HEAD_SLOT, 0);
    if (this.#inherited?.file === file) this.#inherited = undefined;
    this.#put(file.slot * RECORD_WORDS + FLAGS, 0);
    this.#bySerial.delete(file.serial);
    this.#free.push(file.slot);
  }

  /** One open more or less, on behalf of a request (`Kernel.request`). */
  count(file: OpenFile, kind: OpenKind, difference: 1 | -1, request: number): void {
    file[kind] += difference;
    const { words } = this.#memory;
    this.#put(HEAD_SLOT, 0);
    // In any order: nothing of it counts before the slot stands there.
    words[HEAD_REQUEST] = request;
    words[HEAD_REQUEST + 1] = Math.floor(request / WORD);
    words[HEAD_CACHED] = file.cached;
    words[HEAD_THROUGH] = file.through;
    words[HEAD_CHANGE] = (kind === "cached" ? 0 : 2) + (difference > 0 ? 0 : 1);
    this.#put(HEAD_SLOT, file.slot);
    this.#putCounts(file);
  }

  /** The file that another process counted for this very request, without living to answer it. */
  countedFor(request: number): OpenFile | undefined {
    return this.#inherited?.request === request ? this.#inherited.file : undefined;
  }

  /** Counts back what `countedFor` says. */
  takeBack(): void {
    if (this.#inherited === undefined) return;
    const { file, kind, difference } = this.#inherited;
    this.#inherited = undefined;
    file[kind] -= difference;
    this.#put(HEAD_SLOT, 0);
    this.#putCounts(file);
  }

  /** 0: not registered any more. To be called before the kernel is told that. */
  setBacking(file: OpenFile, backingId: number): void {
    file.backingId = backingId;
    this.#put(file.slot * RECORD_WORDS + BACKING, backingId);
  }

  /** The data has moved to the upper directory. */
  setUpper(file: OpenFile): void {
    file.isUpper = true;
    this.#put(file.slot * RECORD_WORDS + FLAGS, IN_USE | IS_UPPER);
  }

  #load(): void {
    const { words } = this.#memory;
    const announced = words[HEAD_SLOT]! * RECORD_WORDS;
    if (announced !== 0) {
      this.#put(announced + CACHED, words[HEAD_CACHED]!);
      this.#put(announced + THROUGH, words[HEAD_THROUGH]!);
    }
    this.#serial = this.#get64(HEAD_SERIAL);
    this.#used = Math.floor(words.length / RECORD_WORDS);
    for (let slot = this.#used - 1; slot >= HEAD_RECORDS; slot--) {
      const file = this.#read(slot);
      if (file === undefined) this.#free.push(slot);
      else this.#bySerial.set(file.serial, file);
    }
    const file = this.#bySerial.get(announced === 0 ? 0 : this.#get64(announced + SERIAL));
    if (file === undefined) return;
    const [kind, difference] = CHANGES[words[HEAD_CHANGE]!]!;
    this.#inherited = { request: this.#get64(HEAD_REQUEST), file, kind, difference };
  }

  #read(slot: number): OpenFile | undefined {
    const { words } = this.#memory;
    const at = slot * RECORD_WORDS;
    const flags = words[at + FLAGS]!;
    if ((flags & IN_USE) === 0) return undefined;
    const upper = words[at + NODE + 1]!;
    return {
      slot,
      serial: this.#get64(at + SERIAL),
      id: words[at + NODE]! + (upper % 2 ** INCARNATION_SHIFT) * WORD,
      incarnation: upper >>> INCARNATION_SHIFT,
      isUpper: (flags & IS_UPPER) !== 0,
      cached: words[at + CACHED]!,
      through: words[at + THROUGH]!,
      backingId: words[at + BACKING]!,
    };
  }

  #take(): number {
    if ((this.#used + 1) * RECORD_WORDS > this.#memory.words.length) {
      this.#memory.grow(this.#memory.words.length * 2);
    }
    return this.#used++;
  }

  #putCounts(file: OpenFile): void {
    const { words } = this.#memory;
    const at = file.slot * RECORD_WORDS;
    words[at + CACHED] = file.cached;
    words[at + THROUGH] = file.through;
  }

  /** Stores after what was stored before and before what comes, which plain assignments do not promise. */
  #put(at: number, value: number): void {
    Atomics.store(this.#memory.words, at, value);
  }

  #put64(at: number, value: number): void {
    this.#put(at, value);
    this.#put(at + 1, Math.floor(value / WORD));
  }

  #get64(at: number): number {
    const { words } = this.#memory;
    return words[at]! + words[at + 1]! * WORD;
  }
}
