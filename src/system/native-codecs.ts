/** The part of the addon that works on bytes alone. @see native.ts for the conventions */

/** What the addon compresses and hashes with. */
export interface Codecs {
  /**
   * Compresses `data[start + history, start + length)` on the thread pool as raw deflate blocks, none of
   * them the last, that end at a byte boundary; the `history` bytes before (of which 32 KiB count)
   * are what a reader has seen already. Both buffers must be left alone until the promise settles.
   * The bytes depend on nothing but input and level, whatever the machine.
   *
   * @param level 1 to 9
   * @param out room for `deflateBound(length - history)` bytes
   * @returns the bytes written, or a negative errno
   */
  deflateAsync(
    level: number,
    data: Buffer,
    start: number,
    length: number,
    history: number,
    out: Buffer,
  ): Promise<number> | number;
  /** The most that `length` bytes can become. */
  deflateBound(length: number): number;
  /**
   * Continues gzip's checksum of what came before, 0 at first, with `data[start, start + length)`, several times as
   * fast as Node's own does; undefined without ISA-L.
   */
  crc32(crc: number, data: Buffer, start: number, length: number): number | undefined;
  /** The state of a SHA-256 for the two methods below; undefined where Node exports no OpenSSL. */
  createSha256(): Sha256State | undefined;
  /**
   * Hashes `data[start, start + length)` on the thread pool; 0. One call per state at a time, and the
   * buffer must be left alone until the promise settles.
   */
  hashAsync(state: Sha256State, data: Buffer, start: number, length: number): Promise<number>;
  /** The same, and then appends these bytes to a file: 0 or a negative errno. */
  writeHashedAsync(
    state: Sha256State,
    fd: number,
    data: Buffer,
    start: number,
    length: number,
  ): Promise<number>;
  /** Puts the digest into `out` (32 bytes): 0 or -EINVAL. Ends the state. */
  finishHash(state: Sha256State, out: Buffer): number;
}

/** A hash in the addon. */
export type Sha256State = { readonly __sha256: never };
