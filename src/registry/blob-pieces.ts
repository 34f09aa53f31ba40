/**
 * A large blob over several connections: pieces are fetched side by side, and handed over in order,
 * so that what takes them can hash and write as if there were one body.
 */

import { type BlobSource, readRange, type Take } from "./blob-range.js";
import { requestFailure, TransientError } from "./failures.js";
import { withRetries } from "./retry.js";

/** Places for transfers that nobody else needs just now. */
export interface SpareSlots {
  /** Takes a place if one is free; give each back with `release`. */
  tryTake(): boolean;
  release(): void;
}

/** What `Pieces` needs. */
export interface PiecesOptions {
  readonly source: BlobSource;
  readonly slots: SpareSlots;
  /** From here to there. */
  readonly start: number;
  readonly size: number;
  readonly pieceBytes: number;
  readonly signal: AbortSignal;
  readonly take: Take;
  /** Bytes that wait for their turn, whenever that changes. */
  readonly onAhead: (bytes: number) => void;
}

interface Piece {
  readonly start: number;
  readonly bytes: Buffer;
  received: number;
  readonly done: Promise<void>;
}

/** One row of pieces; `run` it once. The first one under way uses the blob's own place. */
export class Pieces {
  readonly #o: PiecesOptions;
  readonly #controller = new AbortController();
  /** Under way or waiting for their turn, in order. */
  readonly #row: Piece[] = [];
  /** Buffers to use again: a new one for each piece would wait for the garbage collector. */
  readonly #spare: Buffer[] = [];
  #next: number;
  #slots = 0;

  constructor(options: PiecesOptions) {
    this.#o = options;
    this.#next = options.start;
  }

  /**
   * Fetches and hands over pieces for as long as there are places for two or more at a time.
   *
   * @returns where it stopped: at the end of the blob, or where one connection can as well go on
   * @throws TransientError, CorruptDataError and what `Connection.send` throws, of the earliest piece
   */
  async run(): Promise<number> {
    const { size, start, signal } = this.#o;
    const abort = () => this.#controller.abort();
    signal.addEventListener("abort", abort, { once: true });
    let offset = start;
    try {
      if (signal.aborted) abort();
      while (offset < size && this.#fill()) offset = await this.#handOver();
      return offset;
    } finally {
      signal.removeEventListener("abort", abort);
      abort();
      await Promise.allSettled(this.#row.map((piece) => piece.done));
      for (; this.#slots > 0; this.#slots--) this.#o.slots.release();
    }
  }

  /** Starts pieces until places or bytes run out; false when there would be only one. */
  #fill(): boolean {
    if (this.#row.length === 0 && this.#slots === 0 && !this.#takeSlot()) return false;
    // One more than there are places, because the blob has its own.
    while (this.#next < this.#o.size && (this.#row.length <= this.#slots || this.#takeSlot())) {
      this.#begin();
    }
    return true;
  }

  #takeSlot(): boolean {
    const isTaken = this.#o.slots.tryTake();
    if (isTaken) this.#slots++;
    return isTaken;
  }

  #begin(): void {
    const { pieceBytes, size } = this.#o;
    const start = this.#next;
    const length = Math.min(pieceBytes, size - start);
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(pieceBytes);
    const progress = { start, bytes: buffer.subarray(0, length), received: 0 };
    const done = this.#fetch(progress);
    // Its failure is looked at when its turn comes.
    done.catch(() => undefined);
    this.#row.push(Object.assign(progress, { done }));
    this.#next += length;
  }

  async #fetch(piece: Omit<Piece, "done">): Promise<void> {
    const { source } = this.#o;
    const { signal } = this.#controller;
    const end = piece.start + piece.bytes.length;
    await withRetries(source.retry, signal, async (progressed) => {
      const before = piece.received;
      try {
        const range = { start: piece.start + before, end };
        const kind = await readRange(source, range, signal, async (bytes) =>
          this.#put(piece, bytes),
        );
        if (kind === "whole" && end < this.#o.size) {
          throw new TransientError(`${source.what}: the server has stopped to serve ranges`, {});
        }
      } catch (error) {
        if (piece.received > before) progressed();
        throw requestFailure(error, source.what, signal);
      }
      if (piece.received === piece.bytes.length) return;
      if (piece.received > before) progressed();
      throw new TransientError(`${source.what}: the body ended too early`, {});
    });
  }

  #put(piece: Omit<Piece, "done">, bytes: Buffer): void {
    const room = piece.bytes.length - piece.received;
    if (bytes.length > room) {
      throw new TransientError(
        `${this.#o.source.what}: the server has stopped to serve ranges`,
        {},
      );
    }
    bytes.copy(piece.bytes, piece.received);
    piece.received += bytes.length;
    this.#reportAhead();
  }

  #reportAhead(): void {
    this.#o.onAhead(this.#row.reduce((sum, piece) => sum + piece.received, 0));
  }

  async #handOver(): Promise<number> {
    const piece = this.#row[0]!;
    await piece.done;
    this.#row.shift();
    await this.#o.take(piece.bytes);
    this.#reportAhead();
    this.#spare.push(Buffer.from(piece.bytes.buffer));
    if (this.#slots > 0) {
      // Others may have waited for it; when not, it is taken again.
      this.#slots--;
      this.#o.slots.release();
    }
    return piece.start + piece.bytes.length;
  }
}
