/**
 * Counts that one thread makes and another reads: numbers in shared memory, one writer each.
 *
 * A view's tally counts what its overlay does, and the requests that it gets from the kernel: for each
 * opcode how many, and of every SAMPLE-th how long it took, by class. The counts outlive the thread that
 * makes them, not the daemon.
 */

/** Requests of which one is timed: two looks at the clock cost as much as a small request. */
export const SAMPLE = 16;
/** Upper bounds of the classes of durations, seconds; the last class has none. */
export const DURATION_BOUNDS = [0.00001, 0.0001, 0.001, 0.01, 0.1, 1] as const;
const CLASSES = DURATION_BOUNDS.length + 1;

/** What is counted besides requests. */
export const TALLIED = {
  copyUps: 0,
  copiedBytes: 1,
  passthroughOpens: 2,
  cachedOpens: 3,
  readBytes: 4,
  writtenBytes: 5,
} as const;
const SLOTS = 8;

// Opcodes that the protocol has, and some that it may get.
const OPCODES = 64;
// Per opcode: how many, how many were timed, their seconds, and a number for each class.
const ROW = 3 + CLASSES;
const COUNT = 0;
const TIMED = 1;
const SECONDS = 2;
const FIRST_CLASS = 3;

/** What a view did since it was mounted. */
export interface TallyReading {
  readonly counts: Readonly<Record<keyof typeof TALLIED, number>>;
  /** By opcode; those that never came are left out. */
  readonly requests: readonly RequestReading[];
}

/** Requests of one kind. */
export interface RequestReading {
  readonly opcode: number;
  readonly count: number;
  /** Of this many it is known how long they took. */
  readonly timed: number;
  readonly seconds: number;
  /** Parallel to DURATION_BOUNDS, plus the rest; not cumulative. */
  readonly classes: readonly number[];
}

/** One view's counts. */
export class Tally {
  /** To be given to another thread. */
  readonly memory: SharedArrayBuffer;
  readonly #numbers: Float64Array;

  constructor(
    memory = new SharedArrayBuffer((SLOTS + OPCODES * ROW) * Float64Array.BYTES_PER_ELEMENT),
  ) {
    this.memory = memory;
    this.#numbers = new Float64Array(memory);
  }

  /** Adds to one of the counts. */
  add(slot: number, amount: number): void {
    this.#numbers[slot]! += amount;
  }

  /** Counts a request; true when it is to be timed. */
  begin(opcode: number): boolean {
    if (opcode >= OPCODES) return false;
    const at = SLOTS + opcode * ROW + COUNT;
    const count = this.#numbers[at]! + 1;
    this.#numbers[at] = count;
    return count % SAMPLE === 1;
  }

  /** Notes how long one of those that are timed took. */
  timed(opcode: number, seconds: number): void {
    const row = SLOTS + opcode * ROW;
    this.#numbers[row + TIMED]! += 1;
    this.#numbers[row + SECONDS]! += seconds;
    const above = DURATION_BOUNDS.findIndex((bound) => seconds <= bound);
    this.#numbers[row + FIRST_CLASS + (above < 0 ? CLASSES - 1 : above)]! += 1;
  }

  read(): TallyReading {
    const numbers = this.#numbers;
    const names = Object.entries(TALLIED) as [keyof typeof TALLIED, number][];
    const counts = Object.fromEntries(names.map(([name, slot]) => [name, numbers[slot]!]));
    const requests: RequestReading[] = [];
    for (let opcode = 0; opcode < OPCODES; opcode++) {
      const row = SLOTS + opcode * ROW;
      const count = numbers[row + COUNT]!;
      if (count === 0) continue;
      const timed = numbers[row + TIMED]!;
      const seconds = numbers[row + SECONDS]!;
      const classes = [...numbers.subarray(row + FIRST_CLASS, row + ROW)];
      requests.push({ opcode, count, timed, seconds, classes });
    }
    return { counts: counts as TallyReading["counts"], requests };
  }
}
