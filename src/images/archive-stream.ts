/** The bytes of an archive, decompressed when they are compressed. Nothing here seeks. */

import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { Readable, type Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { ioError } from "../content/io-error.js";
import { BaseError, CorruptDataError, UnsupportedError } from "../system/errors.js";

const GZIP_MAGIC = Buffer.from([0x1f, 0x8b]);
const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const SNIFFED_BYTES = 4;

/** Reads a file in pieces large enough not to matter. @throws as `ioError` */
export async function* readFileChunks(file: string): AsyncGenerator<Buffer> {
  try {
    yield* createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>;
  } catch (error) {
    throw ioError(error, `read ${file}`, file);
  }
}

/** How content is compressed, judged by its first bytes. */
export function sniffCompression(start: Buffer): "gzip" | "zstd" | "none" {
  if (start.subarray(0, 2).equals(GZIP_MAGIC)) return "gzip";
  return start.subarray(0, 4).equals(ZSTD_MAGIC) ? "zstd" : "none";
}

/**
 * Passes bytes through, decompressing gzip and zstd.
 *
 * @param what names the source in errors
 * @throws CorruptDataError the compressed stream is damaged or ends early
 * @throws UnsupportedError zstd, and no `zstd` program to decompress it
 */
export async function* decompressed(
  source: AsyncIterable<Uint8Array>,
  what: string,
): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    const start = await readStart(iterator);
    const whole = rejoin(start, iterator);
    const compression = sniffCompression(start);
    if (compression === "gzip") yield* gunzip(whole, what);
    else if (compression === "zstd") yield* unzstd(whole, what);
    else yield* whole;
  } finally {
    // A consumer that stops early must not leave the source open.
    await iterator.return?.();
  }
}

async function readStart(iterator: AsyncIterator<Uint8Array>): Promise<Buffer> {
  let start = Buffer.alloc(0);
  while (start.length < SNIFFED_BYTES) {
    const next = await iterator.next();
    if (next.done) break;
    start = Buffer.concat([start, next.value]);
  }
  return start;
}

async function* rejoin(start: Buffer, iterator: AsyncIterator<Uint8Array>): AsyncGenerator<Buffer> {
  if (start.length > 0) yield start;
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    const { value } = next;
    yield Buffer.isBuffer(value)
      ? value
      : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
}

async function* gunzip(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  const inflate: Transform = createGunzip({ chunkSize: 256 * 1024 });
  // The pipeline's own promise repeats what the iteration below throws.
  const done = pipeline(Readable.from(source), inflate).catch(() => {});
  try {
    yield* inflate as AsyncIterable<Buffer>;
  } catch (error) {
    throw damaged(error, what, "gzip");
  } finally {
    inflate.destroy();
    await done;
  }
}

async function* unzstd(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer> {
  // Node 20 has no zstd, and later versions stop silently after the first frame.
  const child = spawn("zstd", ["-dc"], { stdio: ["pipe", "pipe", "pipe"] });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(0, 500);
  });
  const exit = new Promise<number | Error>((resolve) => {
    child.on("error", resolve);
    child.on("close", (code) => resolve(code ?? -1));
  });
  let failure: unknown;
  const fed = pipeline(Readable.from(source), child.stdin).catch((error: unknown) => {
    // When zstd ends first, its own complaint says more than our broken pipe.
    if ((error as NodeJS.ErrnoException).code !== "EPIPE") failure = error;
  });
  try {
    yield* child.stdout as AsyncIterable<Buffer>;
    await fed;
    const code = await exit;
    if (failure !== undefined) throw failure;
    if (code instanceof Error) {
      throw new UnsupportedError(`${what}: compressed with zstd; install the zstd program`, {
        cause: code,
      });
    }
    if (code !== 0) throw new CorruptDataError(`${what}: damaged zstd data: ${complaint.trim()}`);
  } finally {
    child.kill("SIGKILL");
    await exit;
  }
}

function damaged(error: unknown, what: string, format: string): unknown {
  if (error instanceof BaseError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (!code?.startsWith("Z_")) return error;
  const reason = code === "Z_BUF_ERROR" ? "it ends early, it is truncated" : message;
  return new CorruptDataError(`${what}: damaged ${format} data: ${reason}`, { cause: error });
}
