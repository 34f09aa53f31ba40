/**
 * The tar stream of a layer on its way into the compressor, gathered into large chunks.
 *
 * Reading is much faster than compressing. When programs wait until everything has been read, what
 * the compressor has not taken yet is put aside on disk, so that they wait for the reading alone.
 */

import { setImmediate } from "node:timers/promises";
import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";
import type { LayerCompressor } from "./layer-compressor.js";
import { SpillFile } from "./spill-file.js";
import { END_OF_ARCHIVE, padding } from "./tar-writer.js";

/** Small files cost a copy; hashing and handing over each by itself would cost more. */
const CHUNK_BYTES = 1024 * 1024;

/** What a LayerTar tells and asks on its way. */
export interface LayerTarHost {
  /** On the disk for what is put aside. */
  readonly directory: string;
  /** Called with the bytes read so far, once per chunk. */
  readonly onProgress: ((bytes: number) => void) | undefined;
  /** Called once per chunk; may throw to stop. */
  check(): void;
  /** True when somebody waits for the end of reading. */
  isAwaited(): boolean;
  /** Nothing more will be read. */
  readonly onRead: (() => void) | undefined;
}

/** See the file comment. Close it after use. */
export class LayerTar {
  readonly #compressor: LayerCompressor;
  readonly #host: LayerTarHost;
  readonly #chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  #spill: SpillFile | undefined;
  #hasRoom = true;
  #fill = 0;
  #total = 0;

  constructor(compressor: LayerCompressor, host: LayerTarHost) {
    this.#compressor = compressor;
    this.#host = host;
  }

  /** Appends bytes, which stay the caller's; once the promise, if there is one, resolves. */
  put(...parts: Buffer[]): Promise<void> | undefined {
    let length = 0;
    for (const part of parts) length += part.length;
    if (length > CHUNK_BYTES - this.#fill) return this.#putSlowly(parts);
    for (const part of parts) {
      part.copy(this.#chunk, this.#fill);
      this.#fill += part.length;
    }
    return undefined;
  }

  async #putSlowly(parts: readonly Buffer[]): Promise<void> {
    for (const part of parts) await this.#putInPieces(part);
  }

  async #putInPieces(bytes: Buffer): Promise<void> {
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
    this.#host.onRead?.();
    await this.#compressSpilled();
  }

  /** Idempotent. */
  close(): void {
    this.#spill?.close();
    this.#spill = undefined;
  }

  async #flush(): Promise<void> {
    await this.#turn();
    const bytes = this.#chunk.subarray(0, this.#fill);
    if (!this.#putAside(bytes)) {
      await this.#compressSpilled();
      await this.#compressor.write(bytes);
    }
    this.#total += this.#fill;
    this.#fill = 0;
    this.#host.onProgress?.(this.#total);
  }

  /** Lets the thread's messages in: among them is the abort signal. */
  async #turn(): Promise<void> {
    await setImmediate();
    this.#host.check();
  }

  /** False when nobody waits, or there is no room: whoever waits must wait for the compressor then. */
  #putAside(bytes: Buffer): boolean {
    if (!this.#hasRoom || (this.#spill === undefined && !this.#host.isAwaited())) return false;
    this.#spill ??= new SpillFile(this.#host.directory);
    this.#hasRoom = this.#spill.append(bytes);
    return this.#hasRoom;
  }

  async #compressSpilled(): Promise<void> {
    if (this.#spill === undefined) return;
    const bytes = Buffer.allocUnsafe(CHUNK_BYTES);
    for (let count = this.#spill.take(bytes); count > 0; count = this.#spill.take(bytes)) {
      await this.#turn();
      await this.#compressor.write(bytes.subarray(0, count));
    }
    this.close();
  }
}
