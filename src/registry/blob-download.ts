/** Downloading one blob: resumed after every break, verified while it comes in. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Ingest } from "../content/ingest.js";
import { BaseError, CorruptDataError } from "../system/errors.js";
import { Pieces, type SpareSlots } from "./blob-pieces.js";
import { type BlobSource, type ByteRange, readRange } from "./blob-range.js";
import type { Connection } from "./connection.js";
import { requestFailure, TransientError } from "./failures.js";
import type { Repository } from "./repository.js";
import { withRetries } from "./retry.js";
import { rememberSource } from "./source-labels.js";

/** What a download needs. */
export interface Download {
  readonly content: ContentStore;
  readonly repository: Repository;
  readonly descriptor: Descriptor;
  readonly lease: string;
  readonly slots: SpareSlots;
  readonly signal: AbortSignal;
  /** Bytes that are here, of `descriptor.size`. */
  report(action: "downloading" | "verifying", current: number): void;
}

/** So much at least must come in between two breaks, or they count as one failure after another. */
const PROGRESS_BYTES = 256 * 1024;

/** More than this is worth several connections. */
const LARGE_BYTES = 16 * 1024 * 1024;

/** What one of several connections fetches at a time, and what is lost of it when the pull is killed. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** What one connection fetches alone before it looks for spare places again. */
const STRETCH_BYTES = 32 * 1024 * 1024;

/**
 * Brings a blob into the content store. What was received stays when this fails or is cancelled, and
 * the next download goes on from there.
 *
 * @throws CorruptDataError the content is not what the descriptor says; nothing of it is kept
 * @throws NotFoundError, PermissionDeniedError, UnavailableError, ResourceExhaustedError
 * @throws CancelledError
 */
export async function downloadBlob(download: Download): Promise<void> {
  try {
    await attempt(download);
  } catch (error) {
    if (!(error instanceof CorruptDataError)) throw error;
    // The damage may lie in what an earlier try left behind, or on the way: once more from the start.
    await attempt(download);
  }
}

async function attempt(download: Download): Promise<void> {
  const { content, descriptor, repository, lease } = download;
  const { digest, size, mediaType } = descriptor;
  const ingest = await content.ingest({
    ref: `fetch ${digest}`,
    expected: digest,
    expectedSize: size,
    mediaType,
    lease,
  });
  try {
    if (ingest.offset < size || size === 0) await receive(download, ingest);
    download.report("verifying", size);
    await ingest.commit();
    rememberSource(content, digest, repository.name);
  } finally {
    // Does nothing after a commit, or after a failure that was the content's fault.
    await ingest.suspend();
  }
}

async function receive(download: Download, ingest: Ingest): Promise<void> {
  const { repository, descriptor } = download;
  const what = `fetch blob ${descriptor.digest} of ${repository.name.domain}/${repository.name.path}`;
  try {
    await repository.firstOf("pull", (connection) =>
      receiveFrom(
        download,
        ingest,
        connection,
        `/${connection.host.path}/blobs/${descriptor.digest}`,
        what,
      ),
    );
  } catch (error) {
    const [connection] = repository.connections("pull").slice(-1);
    const url = descriptor.urls?.find((one) => /^https?:\/\//.test(one));
    // A foreign layer, which the registry itself does not have.
    if (url === undefined || connection === undefined || !isMissing(error)) throw error;
    await receiveFrom(download, ingest, connection, url, `${what} from ${url}`);
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof BaseError && error.code === "NOT_FOUND";
}

async function receiveFrom(
  download: Download,
  ingest: Ingest,
  connection: Connection,
  path: string,
  what: string,
): Promise<void> {
  const { repository, descriptor, signal } = download;
  const { retry } = repository;
  const source = { connection, path, what, retry, scopes: connection.scopes("pull") };
  await withRetries(retry, signal, async (progressed) => {
    const start = ingest.offset;
    try {
      await new Reception(download, ingest, source).run();
    } catch (error) {
      if (ingest.offset - start >= PROGRESS_BYTES) progressed();
      throw requestFailure(error, what, signal);
    }
    if (ingest.offset < descriptor.size) {
      throw new TransientError(
        `${what}: the body ended after ${ingest.offset} of ${descriptor.size} bytes`,
        {},
      );
    }
  });
}

/** What is missing of a blob, from one host, until the first failure. */
class Reception {
  readonly #download: Download;
  readonly #ingest: Ingest;
  readonly #source: BlobSource;
  #reported = 0;

  constructor(download: Download, ingest: Ingest, source: BlobSource) {
    this.#download = download;
    this.#ingest = ingest;
    this.#source = source;
  }

  /**
   * One body where the blob is small or the server knows no ranges. Else a piece, which shows
   * that it does, and then several connections at a time while others leave room for them.
   */
  async run(): Promise<void> {
    const { size } = this.#download.descriptor;
    let stretch = PIECE_BYTES;
    while (size - this.#ingest.offset >= LARGE_BYTES) {
      const start = this.#ingest.offset;
      const kind = await this.#read({ start, end: start + stretch });
      // A whole body has brought all there is; one that broke is counted by the caller.
      if (kind === "whole" || this.#ingest.offset < start + stretch) return;
      await this.#readPieces();
      stretch = STRETCH_BYTES;
    }
    if (this.#ingest.offset < size || size === 0) await this.#read({ start: this.#ingest.offset });
  }

  async #read(range: ByteRange): Promise<"part" | "whole"> {
    return await readRange(this.#source, range, this.#download.signal, async (bytes) => {
      await this.#ingest.write(bytes);
      this.#report(0);
    });
  }

  async #readPieces(): Promise<void> {
    const { descriptor, slots, signal } = this.#download;
    await new Pieces({
      source: this.#source,
      slots,
      start: this.#ingest.offset,
      size: descriptor.size,
      pieceBytes: PIECE_BYTES,
      signal,
      take: (bytes) => this.#ingest.write(bytes),
      onAhead: (bytes) => this.#report(bytes),
    }).run();
  }

  #report(ahead: number): void {
    // A piece that is just being written counts neither as ahead nor as written.
    this.#reported = Math.max(this.#reported, this.#ingest.offset + ahead);
    this.#download.report("downloading", this.#reported);
  }
}
