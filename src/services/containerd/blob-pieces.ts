/** From a blob that comes in pieces to something that the unpacker can read. */

import { open } from "node:fs/promises";
import { Socket } from "node:net";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { detectCompression } from "../../layers/compression.js";
import { canBePiped } from "../../layers/decompressed-blob.js";
import { sys } from "../../system/addon.js";
import { must } from "../../system/errno.js";
import type { LayerBlob } from "./apply-layer.js";

/** A blob on its way. */
export interface BlobInPieces {
  /** Its size. */
  readonly bytes: number;
  readonly signal: AbortSignal;
  /** Fetches it, until the signal fires. */
  read(ended: AbortSignal): AsyncIterable<Uint8Array>;
  /** A directory for as long as `use` takes, where it cannot be unpacked as it comes. */
  withTemporary<R>(use: (directory: string) => Promise<R>): Promise<R>;
}

type Source = Pick<LayerBlob, "path" | "piped">;

/** As much as a pipe may hold by default (/proc/sys/fs/pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;

/**
 * Runs `work` on the blob, through a pipe while it comes in, or else in a file.
 *
 * @throws what fetching it throws, else what `work` throws
 */
export async function withPieces<R>(
  blob: BlobInPieces,
  work: (source: Source) => Promise<R>,
): Promise<R> {
  const controller = new AbortController();
  const ended = AbortSignal.any([blob.signal, controller.signal]);
  const pieces = blob.read(ended)[Symbol.asyncIterator]();
  try {
    const first = await pieces.next();
    const head = first.done === true ? Buffer.alloc(0) : Buffer.from(first.value);
    const compression = detectCompression(head.subarray(0, 6));
    const all = joined(head, pieces);
    if (!canBePiped(compression)) return await throughFile(blob, all, work);
    const piped = { compression, bytes: blob.bytes };
    return await throughPipe(all, (end) => work({ path: end, piped }), controller);
  } finally {
    controller.abort();
  }
}

async function* joined(first: Buffer, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function throughFile<R>(
  { withTemporary }: BlobInPieces,
  pieces: AsyncIterable<Uint8Array>,
  work: (source: Source) => Promise<R>,
): Promise<R> {
  return await withTemporary(async (directory) => {
    const file = path.join(directory, "layer");
    const handle = await open(file, "wx", 0o600);
    try {
      for await (const piece of pieces) await handle.appendFile(piece);
    } finally {
      await handle.close();
    }
    return await work({ path: file });
  });
}

async function throughPipe<R>(
  pieces: AsyncIterable<Uint8Array>,
  work: (readEnd: string) => Promise<R>,
  controller: AbortController,
): Promise<R> {
  const [readEnd, writeEnd] = must<[number, number]>(sys.pipe(), "pipe2", "a layer");
  sys.setPipeSize(readEnd, PIPE_BYTES);
  // A socket waits for room on the event loop; a file would do so on a thread that everybody needs.
  const sink = new Socket({ fd: writeEnd, readable: false, writable: true });
  const failures: unknown[] = [];
  const fed = pipeline(pieces, sink).catch((error: unknown) => failures.push(error));
  try {
    // Another thread opens it anew by this name; ours keeps what it has not read yet.
    return await work(`/proc/self/fd/${readEnd}`);
  } catch (error) {
    const [cause = error] = failures;
    // Of a fetch that broke off the reader only sees that something is missing.
    throw (cause as NodeJS.ErrnoException).code === "EPIPE" ? error : cause;
  } finally {
    sys.close(readEnd);
    controller.abort();
    await fed;
  }
}
