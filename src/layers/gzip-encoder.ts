/**
 * gzip, compressed in blocks side by side on Node's thread pool, in ONE member whose bytes do not
 * depend on the number of threads: each block is raw deflate that may refer to the 32 KiB before it,
 * and ends at a byte boundary, so that the blocks simply follow one another.
 *
 * @see RFC 1952 (gzip), RFC 1951 (deflate)
 */

import { availableParallelism } from "node:os";
import { crc32 } from "node:zlib";
import { codecs } from "../system/addon.js";
import { must } from "../system/errno.js";

/** Large enough that the ends of blocks cost nothing to speak of (0.1% in size). */
const BLOCK_BYTES = 512 * 1024;
const WINDOW_BYTES = 32 * 1024;
/** No name, no time; operating system "unknown", the same everywhere. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
/** An empty final block with fixed codes. */
const LAST_BLOCK = Buffer.from([0x03, 0x00]);

/** The memory of one block. */
interface Block {
  /** WINDOW_BYTES of what came before, then the block. */
  readonly input: Buffer;
  readonly output: Buffer;
}

/** Where the bytes go; each is left alone until the promise resolves. Called in order. */
export interface GzipSinks {
  /** What came in, `data[start, start + length)`. */
  input(data: Buffer, start: number, length: number): Promise<void>;
  output(chunk: Buffer): Promise<void>;
}

/** Bytes in, gzip bytes out, in order. */
export class GzipEncoder {
  readonly #level: number;
  readonly #sinks: GzipSinks;
  readonly #maxJobs = availableParallelism() + 1;
  readonly #free: Block[] = [];
  #block = newBlock();
  #fill = 0;
  #history = 0;
  #crc = 0;
  #size = 0;
  #jobs = 0;
  /** Ends when all blocks handed in so far have been put out. */
  #tail: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** Tells the writer that waits for room that a block has been put out. */
  #wake: (() => void) | undefined;

  /** @param level 1 to 9 */
  constructor(level: number, sinks: GzipSinks) {
    this.#level = level;
    this.#sinks = sinks;
    this.#send(HEADER);
  }

  #send(chunk: Buffer): void {
    this.#sinks.output(chunk).catch((error: unknown) => {
      this.#failure ??= error;
    });
  }

  /** Takes a copy of `chunk`. A promise, when there is one, must be awaited before the next call. */
  write(chunk: Buffer): Promise<void> | undefined {
    this.#crc = codecs.crc32(this.#crc, chunk, 0, chunk.length) ?? crc32(chunk, this.#crc);
    this.#size += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const end = Math.min(chunk.length, at + BLOCK_BYTES - this.#fill);
      chunk.copy(this.#block.input, WINDOW_BYTES + this.#fill, at, end);
      this.#fill += end - at;
      at = end;
      if (this.#fill === BLOCK_BYTES) this.#submit();
    }
    return this.#jobs > this.#maxJobs || this.#failure !== undefined ? this.#room() : undefined;
  }

  /** Puts out the rest and the trailer. */
  async finish(): Promise<void> {
    if (this.#fill > 0) this.#submit();
    await this.#tail;
    this.#throwFailure();
    const trailer = Buffer.alloc(8);
    trailer.writeUInt32LE(this.#crc, 0);
    trailer.writeUInt32LE(this.#size % 2 ** 32, 4);
    await this.#sinks.output(Buffer.concat([LAST_BLOCK, trailer]));
  }

  async #room(): Promise<void> {
    while (this.#jobs > this.#maxJobs && this.#failure === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #submit(): void {
    const block = this.#block;
    const history = this.#history;
    const start = WINDOW_BYTES - history;
    const end = WINDOW_BYTES + this.#fill;
    const job = codecs.deflateAsync(
      this.#level,
      block.input,
      start,
      end - start,
      history,
      block.output,
    );
    this.#block = this.#free.pop() ?? newBlock();
    this.#history = Math.min(WINDOW_BYTES, this.#fill);
    block.input.copy(this.#block.input, WINDOW_BYTES - this.#history, end - this.#history, end);
    this.#fill = 0;
    this.#jobs++;
    const taken = this.#sinks.input(block.input, WINDOW_BYTES, end - WINDOW_BYTES);
    this.#tail = this.#tail.then(() => this.#putOut(job, taken, block));
  }

  async #putOut(job: Promise<number> | number, taken: Promise<void>, block: Block): Promise<void> {
    try {
      const length = must(await job, "deflate", "layer");
      const sent =
        this.#failure === undefined && this.#sinks.output(block.output.subarray(0, length));
      await Promise.all([taken, sent]);
    } catch (error) {
      this.#failure ??= error;
    }
    this.#free.push(block);
    this.#jobs--;
    this.#wake?.();
    this.#wake = undefined;
  }
}

function newBlock(): Block {
  return {
    input: Buffer.allocUnsafeSlow(WINDOW_BYTES + BLOCK_BYTES),
    output: Buffer.allocUnsafeSlow(codecs.deflateBound(BLOCK_BYTES)),
  };
}
