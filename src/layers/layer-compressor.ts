/**
 * Makes a layer blob from tar bytes in one pass: compresses, writes the file, and computes the diff
 * ID (of what goes in) and the digest (of what comes out) on the way.
 *
 * The same input and settings give the same blob whatever the machine's number of cores. gzip's bytes
 * come from our own encoder, so they are the same everywhere; zstd's from the installed program, so
 * they may differ between its releases. The diff ID never does.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fsync, openSync, rmSync } from "node:fs";
import { promisify } from "node:util";
import type { Digest } from "../content/digest.js";
import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";
import { InvalidArgumentError, UnavailableError } from "../system/errors.js";
import { type Compression, requireZstd } from "./compression.js";
import { GzipEncoder, type GzipSinks } from "./gzip-encoder.js";
import { PoolHash } from "./pool-hash.js";

/** Settings of a LayerCompressor. */
export interface LayerCompressorOptions {
  /** The blob's file; made, or emptied. */
  readonly outputPath: string;
  readonly compression: Compression;
  /** gzip 1 to 9 (5), zstd 1 to 19 (3). */
  readonly level?: number | undefined;
  /** The file need not be on disk at the end. */
  readonly isTemporary?: boolean | undefined;
}

/** A finished blob. */
export interface CompressedLayer {
  readonly digest: Digest;
  /** Bytes of the blob. */
  readonly size: number;
  readonly diffId: Digest;
  /** Bytes of the tar. */
  readonly tarBytes: number;
}

/** Media types of the OCI image spec for each compression. */
export const LAYER_MEDIA_TYPE: Readonly<Record<Compression, string>> = {
  none: "application/vnd.oci.image.layer.v1.tar",
  gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
};

interface Encoder {
  write(chunk: Buffer): Promise<void> | undefined;
  finish(): Promise<void>;
  abort?(): void;
}

/** See the file comment. Ends with `finish` or `abort`. */
export class LayerCompressor {
  readonly #path: string;
  readonly #isTemporary: boolean;
  readonly #tarHash = new PoolHash();
  readonly #blobHash = new PoolHash();
  readonly #encoder: Encoder;
  #fd: number;
  #tarBytes = 0;
  #size = 0;
  /** Bytes that the disk was asked for, and its last answer. */
  #flushed = 0;
  #flush: Promise<number> = Promise.resolve(0);
  #isFlushing = false;

  private constructor(options: LayerCompressorOptions, level: number) {
    this.#path = options.outputPath;
    this.#isTemporary = options.isTemporary === true;
    this.#fd = openSync(options.outputPath, "w", 0o644);
    try {
      this.#encoder = makeEncoder(options.compression, level, {
        input: (data, start, length) => this.#tarHash.update(data, start, length),
        output: (chunk) => this.#output(chunk),
      });
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  /**
   * Opens the output.
   *
   * @throws InvalidArgumentError a level out of range
   * @throws UnsupportedError zstd without the zstd program
   */
  static create(options: LayerCompressorOptions): LayerCompressor {
    const [lowest, highest] = LEVELS[options.compression];
    const level = options.level ?? DEFAULT_LEVEL[options.compression];
    if (!Number.isInteger(level) || level < lowest || level > highest) {
      throw new InvalidArgumentError(
        `compress layer: ${options.compression} level ${level} is not in ${lowest} to ${highest}`,
      );
    }
    return new LayerCompressor(options, level);
  }

  /**
   * Takes the next bytes; the buffer is the caller's again when the call returns, and when a promise
   * is returned, once that resolves. It must be awaited before the next call: it is the
   * backpressure that bounds memory.
   */
  write(chunk: Buffer): Promise<void> | undefined {
    this.#tarBytes += chunk.length;
    return this.#encoder.write(chunk);
  }

  /** Completes the blob; its file is on disk (fsync) on return unless temporary, its name is not. */
  async finish(): Promise<CompressedLayer> {
    await this.#encoder.finish();
    const digest = await this.#blobHash.digest();
    must(await this.#flush, "fdatasync", this.#path);
    if (!this.#isTemporary) await promisify(fsync)(this.#fd);
    closeSync(this.#fd);
    this.#fd = -1;
    return {
      digest,
      size: this.#size,
      diffId: await this.#tarHash.digest(),
      tarBytes: this.#tarBytes,
    };
  }

  /** Gives up and removes the file. Idempotent; does nothing after `finish`. */
  abort(): void {
    if (this.#fd < 0) return;
    this.#encoder?.abort?.();
    const fd = this.#fd;
    this.#fd = -1;
    rmSync(this.#path, { force: true });
    // Bytes may be on their way into it.
    void this.#blobHash.settled().then(() => closeSync(fd));
  }

  async #output(chunk: Buffer): Promise<void> {
    // A block that was still at work when the caller gave up.
    if (this.#fd < 0) return;
    this.#size += chunk.length;
    await this.#blobHash.updateAndAppend(chunk, this.#fd, this.#path);
    if (this.#fd >= 0) this.#flushAhead();
  }

  /** Has the disk work while there is more to compress, so that little is left for the end. */
  #flushAhead(): void {
    if (this.#isTemporary || this.#isFlushing || this.#size - this.#flushed < FLUSH_BYTES) return;
    // A descriptor of its own: the file may be given up meanwhile.
    const fd = sys.duplicate(this.#fd);
    if (fd < 0) return;
    this.#isFlushing = true;
    this.#flushed = this.#size;
    // An error is told once only, so none may get lost.
    this.#flush = Promise.all([this.#flush, sys.syncAsync("fdatasync", fd)]).then((results) => {
      closeSync(fd);
      this.#isFlushing = false;
      return Math.min(...results);
    });
  }
}

/** What a disk takes in a fraction of a second. */
const FLUSH_BYTES = 32 << 20;

/** Lowest and highest level. */
const LEVELS: Readonly<Record<Compression, readonly [number, number]>> = {
  none: [0, 0],
  gzip: [1, 9],
  zstd: [1, 19],
};
/** zstd's own; gzip's is within 3% of what gzip -6 makes of source code, and equal on programs. */
const DEFAULT_LEVEL: Readonly<Record<Compression, number>> = { none: 0, gzip: 5, zstd: 3 };

function makeEncoder(compression: Compression, level: number, sinks: GzipSinks): Encoder {
  switch (compression) {
    case "gzip":
      return new GzipEncoder(level, sinks);
    case "zstd":
      return new ZstdEncoder(level, sinks);
    default:
      return {
        write: async (chunk) => {
          await Promise.all([sinks.input(chunk, 0, chunk.length), sinks.output(chunk)]);
        },
        finish: async () => {},
      };
  }
}

/** Pipes through the zstd program. */
class ZstdEncoder implements Encoder {
  readonly #child: ChildProcess;
  readonly #exit: Promise<void>;
  readonly #sinks: GzipSinks;

  constructor(level: number, sinks: GzipSinks) {
    this.#sinks = sinks;
    const program = requireZstd();
    // With workers, even one, the bytes do not depend on their number (zstd manual, -T#).
    const args = ["-q", "-c", `-${level}`, "-T0"];
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child = child;
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr = (stderr + chunk.toString("utf8")).slice(0, 4096);
    });
    let failed: unknown;
    child.stdout.on("data", (chunk: Buffer) => {
      sinks.output(chunk).catch((error: unknown) => {
        failed ??= error;
        child.kill("SIGKILL");
      });
    });
    // EPIPE when it died; its exit status says more.
    child.stdin.on("error", () => {});
    this.#exit = new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => {
        if (failed !== undefined) reject(failed);
        else if (code === 0) resolve();
        else reject(new UnavailableError(`compress layer: ${program}: ${stderr.trim() || code}`));
      });
    });
    this.#exit.catch(() => {});
  }

  write(chunk: Buffer): Promise<void> | undefined {
    const stdin = this.#child.stdin;
    if (stdin === null || stdin.destroyed) return this.#exit;
    // The stream keeps what it cannot write at once; the caller wants its buffer back.
    const copy = Buffer.from(chunk);
    void this.#sinks.input(copy, 0, copy.length);
    if (stdin.write(copy)) return undefined;
    return Promise.race([once(stdin, "drain").then(() => {}), this.#exit]);
  }

  async finish(): Promise<void> {
    this.#child.stdin?.end();
    await this.#exit;
  }

  abort(): void {
    this.#child.kill("SIGKILL");
  }
}
