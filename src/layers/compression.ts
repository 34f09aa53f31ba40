/**
 * How layer blobs are compressed, and how they are opened.
 *
 * The media type says what is allowed, the first bytes say what it is: registries are full of gzip
 * blobs under plain types and the reverse, and every tool reads them by their magic numbers.
 *
 * gzip goes through igzip or unpigz where they are installed (another core, and several times as
 * fast), else node:zlib; the environment variables that switch these off are containerd's. zstd
 * needs the `zstd` program: node:zlib's own (Node 22 and later) silently stops after the first
 * frame. All of them read multi-member input to its end, ignore zeros after it, and report truncation
 * and checksum errors. Other garbage after the last gzip member is ignored by the programs (as gzip
 * does) and an error for node:zlib (as for Go), so no sane tool writes any.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { pipeline } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import { sys } from "../system/addon.js";
import { SEEK_CUR } from "../system/constants.js";
import { EINTR, must } from "../system/errno.js";
import {
  BaseError,
  CancelledError,
  CorruptDataError,
  UnavailableError,
  UnsupportedError,
} from "../system/errors.js";

/** The encodings of a layer that varve reads and writes. */
export type Compression = "none" | "gzip" | "zstd";

/** node:zlib's default of 16 KiB halves its speed. */
const ZLIB_CHUNK = 256 * 1024;
const READ_CHUNK = 1024 * 1024;
/** The most that a user may ask for by default (/proc/sys/fs/pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;
/** Below this, starting a process costs more than it saves. */
const CHILD_MIN_BYTES = 512 * 1024;
const STDERR_LIMIT = 4096;
/** Windows of up to 2 GiB: what --ultra --long=31 made must be readable. */
const ZSTD_ARGUMENTS = ["-q", "-d", "-c", "--long=31"] as const;
/** How often progress is reported, in bytes of output. */
const PROGRESS_STEP = 1024 * 1024;

const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+(gzip|zstd))?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.(gzip|zstd))?)$/;

/**
 * The compression that a layer's media type announces.
 *
 * @throws UnsupportedError not a layer type that varve knows (encrypted layers, other artifacts)
 * @see OCI image-spec media-types.md; docker's image manifest v2 schema 2
 */
export function compressionOf(mediaType: string): Compression {
  const match = LAYER_TYPE.exec(mediaType);
  if (match !== null) return (match[1] ?? match[2] ?? "none") as Compression;
  const reason = mediaType.endsWith("+encrypted") ? " (encrypted layer)" : "";
  throw new UnsupportedError(
    `layer media type ${JSON.stringify(mediaType)} is not supported${reason}`,
  );
}

/** The compression that the first bytes (6 are enough) of a blob show. */
export function detectCompression(head: Buffer): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b) return "gzip";
  const magic = head.length < 4 ? 0 : head.readUInt32LE(0);
  // Skippable frames may come first: zstd:chunked and seekable archives have them.
  if (magic === 0xfd2fb528 || magic >>> 4 === 0x184d2a5) return "zstd";
  const text = head.toString("latin1");
  if (text.startsWith("\xfd7zXZ\0"))
    throw new UnsupportedError("xz-compressed layers are not supported");
  if (text.startsWith("BZh"))
    throw new UnsupportedError("bzip2-compressed layers are not supported");
  return "none";
}

/** What to open. */
export interface DecompressOptions {
  readonly blobPath: string;
  readonly mediaType: string;
  /** The blob's name in errors. */
  readonly subject: string;
  /** Stops with CancelledError and kills the decompressor. */
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with the number of blob bytes consumed so far. */
  readonly onProgress?: ((compressedBytes: number) => void) | undefined;
}

/**
 * Yields a blob's uncompressed bytes. Each chunk is borrowed until the next is asked for. Leaving the loop early
 * ends the decompressor.
 *
 * @throws CorruptDataError damaged or truncated compressed data
 * @throws UnsupportedError media type or compression
 * @throws CancelledError
 */
export async function* openDecompressed(options: DecompressOptions): AsyncGenerator<Buffer> {
  compressionOf(options.mediaType);
  const blob = await open(options.blobPath, "r");
  let stream: DecompressedStream | undefined;
  try {
    stream = await startStream(blob, options);
    let total = 0;
    let reported = 0;
    for await (const chunk of stream.chunks) {
      options.signal?.throwIfAborted();
      total += chunk.length;
      if (total - reported >= PROGRESS_STEP) {
        reported = total;
        options.onProgress?.(stream.consumed());
      }
      yield chunk;
    }
    await stream.completed();
    options.onProgress?.((await blob.stat()).size);
  } catch (error) {
    throw translate(error, options);
  } finally {
    stream?.stop();
    // Waits for a read that is still under way.
    await blob.close();
  }
}

function translate(error: unknown, options: DecompressOptions): unknown {
  if (options.signal?.aborted === true) {
    return new CancelledError(`${options.subject}: decompression cancelled`, { cause: error });
  }
  if (error instanceof BaseError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (!code.startsWith("Z_")) return error;
  return new CorruptDataError(
    `${options.subject}: gzip data is damaged: ${(error as Error).message}`,
    { cause: error },
  );
}

interface DecompressedStream {
  readonly chunks: AsyncIterable<Buffer>;
  /** Resolves when the source ended well. */
  completed(): Promise<void>;
  /** Blob bytes read so far. */
  consumed(): number;
  stop(): void;
}

async function startStream(
  blob: FileHandle,
  options: DecompressOptions,
): Promise<DecompressedStream> {
  const { bytesRead, buffer } = await blob.read(Buffer.alloc(6), 0, 6, 0);
  const compression = detectCompression(buffer.subarray(0, bytesRead));
  if (compression === "none") return plainStream(blob);
  if (compression === "zstd") return childStream(blob, requireZstd(), ZSTD_ARGUMENTS, options);
  const { size } = await blob.stat();
  const program = size < CHILD_MIN_BYTES ? undefined : gunzipProgram();
  if (program === undefined) return gunzipStream(blob);
  return childStream(blob, program, ["-d", "-c"], options);
}

/** Reads ahead of nobody: one read per chunk asked for. Not a stream, whose destroy closes our file. */
class BlobReader {
  position = 0;
  readonly #blob: FileHandle;
  readonly #chunkSize: number;

  constructor(blob: FileHandle, chunkSize: number) {
    this.#blob = blob;
    this.#chunkSize = chunkSize;
  }

  async *chunks(): AsyncGenerator<Buffer> {
    for (;;) {
      const chunk = Buffer.allocUnsafe(this.#chunkSize);
      const { bytesRead } = await this.#blob.read(chunk, 0, chunk.length, this.position);
      if (bytesRead === 0) return;
      this.position += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  }
}

function plainStream(blob: FileHandle): DecompressedStream {
  const reader = new BlobReader(blob, READ_CHUNK);
  return {
    chunks: reader.chunks(),
    completed: async () => {},
    consumed: () => reader.position,
    stop: () => {},
  };
}

function gunzipStream(blob: FileHandle): DecompressedStream {
  const reader = new BlobReader(blob, ZLIB_CHUNK);
  const gunzip = createGunzip({ chunkSize: ZLIB_CHUNK });
  // The consumer sees errors by itself; pipeline only carries them (and destruction) across.
  pipeline(reader.chunks(), gunzip, () => {});
  return {
    chunks: gunzip,
    completed: async () => {},
    consumed: () => reader.position,
    stop: () => gunzip.destroy(),
  };
}

/**
 * Runs a program that decompresses its standard input to its standard output. Its output comes
 * through a large pipe that is read as a file is, blocking: Node's own streams take it in pieces of
 * 64 KiB, each with a turn of the event loop, and the two processes wait for one another.
 */
function childStream(
  blob: FileHandle,
  program: string,
  args: readonly string[],
  options: DecompressOptions,
): DecompressedStream {
  const [readEnd, writeEnd] = must<[number, number]>(sys.pipe(), "pipe2", options.subject);
  // A user may have used up what pipes may take: it works with less.
  sys.setPipeSize(readEnd, PIPE_BYTES);
  const child = spawn(program, args, { stdio: [blob.fd, writeEnd, "pipe"] });
  sys.close(writeEnd);
  const exit = exitOf(child, program, options.subject);
  // Nobody may be waiting for it yet when it fails.
  exit.catch(() => {});
  const kill = () => child.kill("SIGKILL");
  options.signal?.addEventListener("abort", kill, { once: true });
  return {
    chunks: pipeChunks(readEnd, options.subject),
    completed: () => exit,
    // The child shares our descriptor's file offset.
    consumed: () => Math.max(0, sys.lseek(blob.fd, 0, SEEK_CUR)),
    stop: () => {
      options.signal?.removeEventListener("abort", kill);
      if (child.exitCode === null) kill();
      sys.close(readEnd);
    },
  };
}

async function* pipeChunks(fd: number, subject: string): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(READ_CHUNK);
  let sinceTurn = 0;
  for (;;) {
    const count = sys.read(fd, buffer, 0, buffer.length);
    if (count === -EINTR) continue;
    if (must(count, "read", subject) === 0) return;
    yield buffer.subarray(0, count);
    sinceTurn += count;
    if (sinceTurn < PROGRESS_STEP) continue;
    sinceTurn = 0;
    // Lets the thread's messages in: among them is the abort signal.
    await setImmediate();
  }
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

/** True for containerd's way of switching a program off: set, and not a spelling of false. */
function isDisabled(variable: string): boolean {
  const value = process.env[variable];
  return value !== undefined && !["", "0", "f", "false"].includes(value.toLowerCase());
}

/** The fastest gunzip program that is installed and allowed. */
export function gunzipProgram(): string | undefined {
  const igzip = isDisabled("CONTAINERD_DISABLE_IGZIP") ? undefined : findProgram("igzip");
  if (igzip !== undefined) return igzip;
  return isDisabled("CONTAINERD_DISABLE_PIGZ") ? undefined : findProgram("unpigz");
}

/**
 * The path of the `zstd` program.
 *
 * @throws UnsupportedError not installed
 */
export function requireZstd(): string {
  const program = findProgram("zstd");
  if (program !== undefined) return program;
  throw new UnsupportedError(
    "zstd layers need the zstd program, which is not on PATH; install it (apt-get install zstd)",
  );
}

/** Looks a program up on PATH. */
export function findProgram(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    if (directory === "") continue;
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here; try the next directory.
    }
  }
  return undefined;
}
