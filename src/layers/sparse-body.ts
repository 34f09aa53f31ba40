/**
 * Sparse maps that stand in the archive itself: old GNU maps in and after the header, and the text
 * map that opens the body in pax sparse format 1.0.
 *
 * @see GNU tar manual, "Storing Sparse Files"
 */

import { CorruptDataError } from "../system/errors.js";
import { TAR_BLOCK } from "./tar-entry.js";
import { FIELD, readNumber } from "./tar-header.js";

const PAIR_BYTES = 24;
const EXTENSION_PAIRS = 21;

/** Appends the pairs of an old GNU header block; true when an extension block follows. */
export function readHeaderMap(
  block: Buffer,
  at: number,
  numbers: number[],
  where: string,
): boolean {
  readPairs(block, at + FIELD.sparseMap[0], 4, numbers, where);
  return block[at + FIELD.sparseExtended[0]] !== 0;
}

/** Appends the pairs of an extension block; true when another follows. */
export function readExtensionMap(
  block: Buffer,
  at: number,
  numbers: number[],
  where: string,
): boolean {
  readPairs(block, at, EXTENSION_PAIRS, numbers, where);
  return block[at + EXTENSION_PAIRS * PAIR_BYTES] !== 0;
}

function readPairs(
  block: Buffer,
  start: number,
  count: number,
  numbers: number[],
  where: string,
): void {
  for (let pair = 0; pair < count; pair++) {
    const at = start + pair * PAIR_BYTES;
    // An empty pair ends the map.
    if (block[at] === 0) return;
    const offset = readNumber(block, at, 12);
    const length = readNumber(block, at + 12, 12);
    if (offset === undefined || length === undefined) {
      throw new CorruptDataError(`${where}: sparse map: bad number`);
    }
    numbers.push(offset, length);
  }
}

/** Reads the text map of pax format 1.0 block by block: a count, then offset and length, one a line. */
export class TextMapReader {
  readonly numbers: number[] = [];
  readonly #where: string;
  readonly #maxExtents: number;
  #expected = -1;
  #partial = "";

  constructor(where: string, maxExtents: number) {
    this.#where = where;
    this.#maxExtents = maxExtents;
  }

  /** Takes the next block of the body; true when the map is complete (the data follows that block). */
  push(block: Buffer, at: number): boolean {
    const lines = (this.#partial + block.toString("latin1", at, at + TAR_BLOCK)).split("\n");
    this.#partial = lines.pop() as string;
    for (const line of lines) {
      this.#take(line);
      if (this.#isComplete()) return true;
    }
    if (this.#partial.length > 20) this.#fail("a line is too long");
    return false;
  }

  #isComplete(): boolean {
    return this.#expected >= 0 && this.numbers.length === this.#expected * 2;
  }

  #take(line: string): void {
    const value = /^[0-9]{1,16}$/.test(line) ? Number(line) : Number.NaN;
    if (!Number.isSafeInteger(value)) this.#fail("not a number");
    if (this.#expected >= 0) {
      this.numbers.push(value);
      return;
    }
    if (value > this.#maxExtents) this.#fail(`more than ${this.#maxExtents} runs`);
    this.#expected = value;
  }

  #fail(reason: string): never {
    throw new CorruptDataError(`${this.#where}: sparse map: ${reason}`);
  }
}
