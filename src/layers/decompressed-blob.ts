/**
 * Reading a layer blob's uncompressed bytes, with their digest.
 *
 * A thread of the addon reads ahead, inflates (with ISA-L, where it is installed) and hashes, while
 * the caller parses and writes. What other programs inflate (zstd, unpigz) comes to that thread
 * through a pipe. All of them read multi-member input to its end, ignore zeros after it, and report
 * truncation and checksum errors. Other garbage after the last gzip member is ignored by ISA-L and
 * unpigz (as gzip does) and an error for node:zlib (as for Go), so no sane tool writes any.
 *
 * zstd needs the `zstd` program: node:zlib's own (Node 22 and later) silently stops after the first
 * frame.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { createHash, type Hash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { pipeline } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import type { Digest } from "../content/digest.js";
import { native, sys } from "../system/addon.js";
import { SEEK_CUR } from "../system/constants.js";
import { EBADMSG, EILSEQ, ENODATA, must } from "../system/errno.js";
import { BaseError, CancelledError, CorruptDataError, UnavailableError } from "../system/errors.js";
import type { StreamReader } from "../system/native.js";
import {
  type Compression,
  compressionOf,
  detectCompression,
  fastestGunzip,
  requireZstd,
} from "./compression.js";

/** node:zlib's default of 16 KiB halves its speed. */
const ZLIB_CHUNK = 256 * 1024;
/** Small enough for a core's cache, as it is hashed right after it is inflated. */
const RING_CHUNK = 256 * 1024;
const RING_LENGTH = 8;
/** The most that a user may ask for by default (/proc/sys/fs/pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;
/** Below this, starting a process costs more than it saves. */
const CHILD_MIN_BYTES = 512 * 1024;
const STDERR_LIMIT = 4096;
/** Windows of up to 2 GiB: what --ultra --long=31 made must be readable. */
const ZSTD_ARGUMENTS = ["-q", "-d", "-c", "--long=31"] as const;
const UNPIGZ_ARGUMENTS = ["-d", "-c"] as const;
/** How often progress is reported and messages are let in, in bytes of output. */
const PROGRESS_STEP = 1024 * 1024;

/** What is known of a blob that comes through a pipe. */
export interface PipedBlob {
  /** What its first bytes show. */
  readonly compression: Compression;
  readonly bytes: number;
}

/** True when blobs of this compression may come through a pipe; the others must be in a file. */
export function canBePiped(compression: Compression): boolean {
  return compression !== "gzip" || fastestGunzip().kind === "isa-l";
}

/** What to open. */
export interface DecompressOptions {
  /** A file, or with `piped` the read end of a pipe. */
  readonly blobPath: string;
  readonly piped?: PipedBlob | undefined;
  readonly mediaType: string;
  /** The blob's name in errors. */
  readonly subject: string;
  /** Stops with CancelledError and kills the decompressor. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with the number of blob bytes consumed so far. */
  readonly onProgress?: ((compressedBytes: number) => void) | undefined;
}

/** A blob that is being read. For worker threads: most inflaters make the caller's thread wait. */
export class DecompressedBlob {
  readonly #options: DecompressOptions;
  #source: Source | undefined;

  /** @throws UnsupportedError media type */
  constructor(options: DecompressOptions) {
    compressionOf(options.mediaType);
    this.#options = options;
  }

  /**
   * Yields the uncompressed bytes, once. Each chunk is borrowed until the next is asked for. Leaving
   * the loop early ends the decompressor.
   *
   * @throws CorruptDataError damaged or truncated compressed data
   * @throws UnsupportedError compression
   * @throws CancelledError
   */
  async *chunks(): AsyncGenerator<Buffer> {
    const options = this.#options;
    // Not through Node's pool: four waits for it would take longer than a thin layer.
    const blob = openSync(options.blobPath, "r");
    try {
      const source = openSource(blob, options);
      this.#source = source;
      let total = 0;
      let reported = 0;
      for await (const chunk of source.chunks) {
        options.signal?.throwIfAborted();
        total += chunk.length;
        yield chunk;
        if (total - reported < PROGRESS_STEP) continue;
        reported = total;
        options.onProgress?.(source.consumed());
        // Lets the thread's messages in: among them is the abort signal.
        await setImmediate();
      }
      await source.completed();
      options.onProgress?.(options.piped?.bytes ?? fstatSync(blob).size);
    } catch (error) {
      throw translate(error, options);
    } finally {
      this.#source?.stop();
      closeSync(blob);
    }
  }

  /** Digest of the uncompressed bytes; to be asked once, after the last of `chunks`. */
  diffId(): Digest {
    return `sha256:${this.#source?.sha256() ?? ""}` as Digest;
  }
}

function translate(error: unknown, options: DecompressOptions): unknown {
  if (options.signal?.aborted === true) {
    return new CancelledError(`${options.subject}: decompression cancelled`, { cause: error });
  }
  if (error instanceof BaseError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (!code.startsWith("Z_")) return error;
  return damaged(options.subject, (error as Error).message, error);
}

function damaged(subject: string, reason: string, cause?: unknown): CorruptDataError {
  return new CorruptDataError(`${subject}: gzip data is damaged: ${reason}`, { cause });
}

interface Source {
  readonly chunks: AsyncIterable<Buffer> | Iterable<Buffer>;
  /** Resolves when the decompressor ended well. */
  completed(): Promise<void>;
  /** Blob bytes read so far. */
  consumed(): number;
  /** SHA-256 of all chunks, in hex. */
  sha256(): string;
  /** Idempotent; `sha256` may be asked after it. */
  stop(): void;
}

function openSource(blob: number, options: DecompressOptions): Source {
  const compression = options.piped?.compression ?? compressionOfFile(blob);
  if (compression === "none") return new RingSource(blob, false, options.subject);
  if (compression === "zstd") return childSource(blob, requireZstd(), ZSTD_ARGUMENTS, options);
  const gunzip = fastestGunzip();
  if (gunzip.kind === "isa-l") return new RingSource(blob, true, options.subject);
  const isSmall = fstatSync(blob).size < CHILD_MIN_BYTES;
  if (isSmall || gunzip.kind === "node:zlib") return new ZlibSource(blob);
  return childSource(blob, gunzip.path, UNPIGZ_ARGUMENTS, options);
}

function compressionOfFile(blob: number): Compression {
  const start = Buffer.alloc(6);
  return detectCompression(start.subarray(0, readSync(blob, start, 0, start.length, 0)));
}

/** A ring that nobody uses: allocating one for each of a hundred thin layers keeps the collector busy. */
let spareRing: readonly Buffer[] | undefined;

function takeRing(): readonly Buffer[] {
  const ring = spareRing;
  spareRing = undefined;
  return ring ?? Array.from({ length: RING_LENGTH }, () => Buffer.allocUnsafeSlow(RING_CHUNK));
}

/** What the addon's thread reads. */
class RingSource implements Source {
  readonly #ring = takeRing();
  readonly #reader: StreamReader;
  readonly #subject: string;
  #hash: Hash | undefined;
  #digest: Buffer | undefined;
  #isStopped = false;

  constructor(fd: number, isGzip: boolean, subject: string) {
    this.#subject = subject;
    this.#reader = new native.StreamReader(fd, isGzip, this.#ring);
    if (!native.StreamReader.canHash) this.#hash = createHash("sha256");
  }

  get chunks(): Iterable<Buffer> {
    return this.#chunks();
  }

  *#chunks(): Generator<Buffer> {
    for (let turn = 0; ; turn = (turn + 1) % RING_LENGTH) {
      const count = this.#reader.next();
      if (count < 0) throw this.#failure(count);
      if (count === 0) break;
      const chunk = this.#ring[turn]!.subarray(0, count);
      this.#hash?.update(chunk);
      yield chunk;
    }
    this.#digest = this.#hash?.digest() ?? this.#reader.digest();
  }

  #failure(result: number): unknown {
    if (result === -EILSEQ) return damaged(this.#subject, "wrong checksum or length");
    if (result === -ENODATA) return damaged(this.#subject, "it ends too early");
    if (result === -EBADMSG) return damaged(this.#subject, "invalid deflate data");
    return must(result, "read", this.#subject);
  }

  async completed(): Promise<void> {}

  consumed(): number {
    return this.#reader.consumed();
  }

  sha256(): string {
    return this.#digest?.toString("hex") ?? "";
  }

  stop(): void {
    this.#reader.close();
    // The thread has ended, and chunks are borrowed no longer than the loop over them.
    if (!this.#isStopped) spareRing = this.#ring;
    this.#isStopped = true;
  }
}

/** Node's own inflater. Its input is no file stream, whose destroy would close our file. */
class ZlibSource implements Source {
  readonly #blob: number;
  readonly #gunzip = createGunzip({ chunkSize: ZLIB_CHUNK });
  readonly #hash = createHash("sha256");
  #position = 0;

  constructor(blob: number) {
    this.#blob = blob;
    // The consumer sees errors by itself; pipeline only carries them (and destruction) across.
    pipeline(this.#compressed(), this.#gunzip, () => {});
  }

  get chunks(): AsyncIterable<Buffer> {
    return this.#chunks();
  }

  async *#chunks(): AsyncGenerator<Buffer> {
    for await (const chunk of this.#gunzip) {
      this.#hash.update(chunk);
      yield chunk;
    }
  }

  *#compressed(): Generator<Buffer> {
    for (;;) {
      const chunk = Buffer.allocUnsafe(ZLIB_CHUNK);
      const bytesRead = readSync(this.#blob, chunk, 0, chunk.length, this.#position);
      if (bytesRead === 0) return;
      this.#position += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  }

  async completed(): Promise<void> {}

  consumed(): number {
    return this.#position;
  }

  sha256(): string {
    return this.#hash.digest("hex");
  }

  stop(): void {
    this.#gunzip.destroy();
  }
}

/**
 * Runs a program that decompresses its standard input to its standard output, into a large pipe that
 * the addon's thread empties: Node's own streams take it in pieces of 64 KiB, each with a turn of
 * the event loop, and the two processes wait for one another.
 */
function childSource(
  blob: number,
  program: string,
  args: readonly string[],
  options: DecompressOptions,
): Source {
  const [readEnd, writeEnd] = must<[number, number]>(sys.pipe(), "pipe2", options.subject);
  // A user may have used up what pipes may take: it works with less.
  sys.setPipeSize(readEnd, PIPE_BYTES);
  const child = spawn(program, args, { stdio: [blob, writeEnd, "pipe"] });
  sys.close(writeEnd);
  const exit = exitOf(child, program, options.subject);
  // Nobody may be waiting for it yet when it fails.
  exit.catch(() => {});
  const output = new RingSource(readEnd, false, options.subject);
  sys.close(readEnd);
  const kill = () => child.kill("SIGKILL");
  options.signal?.addEventListener("abort", kill, { once: true });
  return {
    chunks: output.chunks,
    completed: () => exit,
    // The child shares our descriptor's file offset.
    consumed: () => Math.max(0, sys.lseek(blob, 0, SEEK_CUR)),
    sha256: () => output.sha256(),
    stop: () => {
      options.signal?.removeEventListener("abort", kill);
      // First, so that the thread's read ends.
      if (child.exitCode === null) kill();
      output.stop();
    },
  };
}

function exitOf(child: ChildProcess, program: string, subject: string): Promise<void> {
  let stderr = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    if (stderr.length < STDERR_LIMIT) stderr += chunk.toString("utf8");
  });
  return new Promise((resolve, reject) => {
    child.on("error", (cause) =>
      reject(new UnavailableError(`${subject}: run ${program}: ${cause.message}`, { cause })),
    );
    child.on("close", (code, signal) => {
      if (code === 0) return resolve();
      const reason = stderr.trim().slice(0, STDERR_LIMIT).replace(/\s+/g, " ");
      const status = signal === null ? `exit status ${code}` : `killed by ${signal}`;
      reject(
        new CorruptDataError(
          `${subject}: compressed data is damaged: ${program}: ${reason === "" ? status : reason}`,
        ),
      );
    });
  });
}
