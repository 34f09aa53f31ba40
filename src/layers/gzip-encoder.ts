/**
 * gzip, compressed in blocks side by side on Node's thread pool, in ONE member whose bytes do not
 * depend on the number of threads: each block is raw deflate with the 32 KiB before it as
 * dictionary, ended by a sync flush, so that the blocks simply follow one another.
 *
 * @see RFC 1952 (gzip), RFC 1951 (deflate)
 */

import { availableParallelism } from "node:os";
import { constants, crc32, deflateRaw } from "node:zlib";

/** Large enough that flushes and dictionaries cost nothing to speak of (0.1% in size). */
const BLOCK_BYTES = 512 * 1024;
const WINDOW_BYTES = 32 * 1024;
/** No name, no time; operating system "unknown", the same everywhere. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
/** An empty final block with fixed codes. */
const LAST_BLOCK = Buffer.from([0x03, 0x00]);

/** Bytes in, gzip bytes out, in order. */
export class GzipEncoder {
  readonly #level: number;
  readonly #output: (chunk: Buffer) => void;
  readonly #maxJobs = availableParallelism() + 1;
  #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #fill = 0;
  #dictionary: Buffer | undefined;
  #crc = 0;
  #size = 0;
  #jobs = 0;
  /** Ends when all blocks handed in so far have been put out. */
  #tail: Promise<void> = Promise.resolve();
  #failure: unknown;
  /** Tells the writer that waits for room that a block has been put out. */
  #wake: (() => void) | undefined;

  /**
   * @param level 1 to 9
   * @param output called with the compressed bytes in order; may keep them
   */
  constructor(level: number, output: (chunk: Buffer) => void) {
    this.#level = level;
    this.#output = output;
    output(HEADER);
  }

  /** Takes a copy of `chunk`. A promise, when there is one, must be awaited before the next call. */
  write(chunk: Buffer): Promise<void> | undefined {
    this.#crc = crc32(chunk, this.#crc);
    this.#size += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const end = Math.min(chunk.length, at + BLOCK_BYTES - this.#fill);
      chunk.copy(this.#block, this.#fill, at, end);
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
    this.#output(Buffer.concat([LAST_BLOCK, trailer]));
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
    const block = this.#block.subarray(0, this.#fill);
    const job = deflateBlock(block, this.#dictionary, this.#level);
    this.#dictionary = block.subarray(Math.max(0, block.length - WINDOW_BYTES));
    this.#block = Buffer.allocUnsafe(BLOCK_BYTES);
    this.#fill = 0;
    // It may fail while an older block is still awaited.
    job.catch(() => {});
    this.#jobs++;
    this.#tail = this.#tail.then(() => this.#putOut(job));
  }

  async #putOut(job: Promise<Buffer>): Promise<void> {
    try {
      const bytes = await job;
      if (this.#failure === undefined) this.#output(bytes);
    } catch (error) {
      this.#failure ??= error;
    }
    this.#jobs--;
    this.#wake?.();
    this.#wake = undefined;
  }
}

function deflateBlock(
  block: Buffer,
  dictionary: Buffer | undefined,
  level: number,
): Promise<Buffer> {
  const options = {
    level,
    finishFlush: constants.Z_SYNC_FLUSH,
    chunkSize: BLOCK_BYTES,
    ...(dictionary === undefined ? undefined : { dictionary }),
  };
  return new Promise((resolve, reject) => {
    deflateRaw(block, options, (error, bytes) => (error === null ? resolve(bytes) : reject(error)));
  });
}
