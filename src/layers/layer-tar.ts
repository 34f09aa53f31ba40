/** The tar stream of a layer on its way into the compressor, gathered into large chunks. */

import { setImmediate } from "node:timers/promises";
import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";
import type { LayerCompressor } from "./layer-compressor.js";
import { END_OF_ARCHIVE, padding } from "./tar-writer.js";

/** Small files cost a copy; hashing and handing over each by itself would cost more. */
const CHUNK_BYTES = 1024 * 1024;

/** See the file comment. */
export class LayerTar {
  readonly #compressor: LayerCompressor;
  readonly #onProgress: ((bytes: number) => void) | undefined;
  readonly #check: () => void;
  readonly #chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  #fill = 0;
  #total = 0;

  /**
   * @param onProgress called with the bytes so far, once per chunk
   * @param check called once per chunk; may throw to stop
   */
  constructor(
    compressor: LayerCompressor,
    onProgress: ((bytes: number) => void) | undefined,
    check: () => void,
  ) {
    this.#compressor = compressor;
    this.#onProgress = onProgress;
    this.#check = check;
  }

  /** Appends bytes, which stay the caller's. */
  put(bytes: Buffer): Promise<void> | undefined {
    if (bytes.length > CHUNK_BYTES - this.#fill) return this.#putSlowly(bytes);
    bytes.copy(this.#chunk, this.#fill);
    this.#fill += bytes.length;
    return undefined;
  }

  async #putSlowly(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      if (this.#fill === CHUNK_BYTES) await this.#flush();
      const end = Math.min(bytes.length, at + CHUNK_BYTES - this.#fill);
      bytes.copy(this.#chunk, this.#fill, at, end);
      this.#fill += end - at;
      at = end;
    }
  }

  /**
   * Appends the first `size` bytes of a file, and padding.
   *
   * @returns false when the file is shorter: zeros stand for what is missing
   * @throws SyscallError the file cannot be read
   */
  async putBody(fd: number, size: number, subject: string): Promise<boolean> {
    let isWhole = true;
    for (let offset = 0; offset < size; ) {
      if (this.#fill === CHUNK_BYTES) await this.#flush();
      const want = Math.min(size - offset, CHUNK_BYTES - this.#fill);
      let count = isWhole ? this.#read(fd, want, offset, subject) : 0;
      if (count === 0) {
        isWhole = false;
        count = want;
        this.#chunk.fill(0, this.#fill, this.#fill + want);
      }
      this.#fill += count;
      offset += count;
    }
    await this.put(padding(size));
    return isWhole;
  }

  #read(fd: number, length: number, offset: number, subject: string): number {
    return must(sys.pread(fd, this.#chunk, this.#fill, length, offset), "pread", subject);
  }

  /** Ends the archive. The compressor is the caller's to finish. */
  async end(): Promise<void> {
    await this.put(END_OF_ARCHIVE);
    await this.#flush();
  }

  async #flush(): Promise<void> {
    // Lets the thread's messages in: among them is the abort signal.
    await setImmediate();
    this.#check();
    await this.#compressor.write(this.#chunk.subarray(0, this.#fill));
    this.#total += this.#fill;
    this.#fill = 0;
    this.#onProgress?.(this.#total);
  }
}
