/** Downloading one blob: resumed after every break, verified while it comes in. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Ingest } from "../content/ingest.js";
import { BaseError, CancelledError, CorruptDataError } from "../system/errors.js";
import type { Connection, HostAnswer } from "./connection.js";
import { requestFailure, TransientError } from "./failures.js";
import type { RetryPolicy } from "./limits.js";
import type { Repository } from "./repository.js";
import { withRetries } from "./retry.js";
import { rememberSource } from "./source-labels.js";

/** What a download needs. */
export interface Download {
  readonly content: ContentStore;
  readonly repository: Repository;
  readonly descriptor: Descriptor;
  readonly lease: string;
  readonly signal: AbortSignal;
  /** Bytes that are here, of `descriptor.size`. */
  report(action: "downloading" | "verifying", current: number): void;
}

/** So much at least must come in between two breaks, or they count as one failure after another. */
const PROGRESS_BYTES = 256 * 1024;

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
        `/${repository.name.path}/blobs/${descriptor.digest}`,
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
  await withRetries(repository.retry, signal, async (progressed) => {
    const start = ingest.offset;
    try {
      const answer = await connection.send({
        method: "GET",
        path,
        // Some servers compress what they can; a blob's digest is of the bytes as they are.
        headers: {
          "accept-encoding": "identity",
          ...(start === 0 ? {} : { range: `bytes=${start}-` }),
        },
        scopes: repository.scopes("pull"),
        signal,
        what,
        accept: [200, 206],
      });
      await copy(download, ingest, answer, what);
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

async function copy(
  download: Download,
  ingest: Ingest,
  answer: HostAnswer,
  what: string,
): Promise<void> {
  const { descriptor, repository } = download;
  const type = String(answer.headers["content-type"] ?? "");
  if (/text\/html/i.test(type)) {
    answer.body.destroy();
    throw new CorruptDataError(`${what}: the answer is a web page, not the blob`);
  }
  // A server without ranges starts from the beginning again.
  let skip = answer.status === 206 ? ingest.offset - rangeStart(answer, what) : ingest.offset;
  if (skip < 0) {
    answer.body.destroy();
    throw new CorruptDataError(`${what}: the server skipped ${-skip} bytes`);
  }
  const pace = new Pace(repository.retry, what);
  // Leaving the loop early destroys the body, and with it the connection.
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    if (download.signal.aborted) throw new CancelledError(`${what}: cancelled`);
    pace.take(chunk.length);
    const fresh = chunk.subarray(Math.min(skip, chunk.length));
    skip -= chunk.length - fresh.length;
    if (fresh.length === 0) continue;
    await ingest.write(fresh);
    download.report("downloading", ingest.offset);
  }
  if (ingest.offset > descriptor.size) throw new CorruptDataError(`${what}: too long`);
}

/** @throws CorruptDataError a partial answer without a range that can be read */
function rangeStart(answer: HostAnswer, what: string): number {
  const match = /^bytes (\d+)-/.exec(String(answer.headers["content-range"] ?? ""));
  if (match !== null) return Number(match[1]);
  answer.body.destroy();
  throw new CorruptDataError(`${what}: a partial answer does not say which part it is`);
}

/** Notices bodies that drip: too slow to be of use, too fast for a timeout between bytes. */
class Pace {
  readonly #policy: RetryPolicy;
  readonly #what: string;
  #startMs = performance.now();
  #bytes = 0;

  constructor(policy: RetryPolicy, what: string) {
    this.#policy = policy;
    this.#what = what;
  }

  take(bytes: number): void {
    this.#bytes += bytes;
    const now = performance.now();
    if (now - this.#startMs < this.#policy.windowMs) return;
    if (this.#bytes < this.#policy.minWindowBytes) {
      throw new TransientError(`${this.#what}: too slow, ${this.#bytes} bytes in a while`, {});
    }
    this.#startMs = now;
    this.#bytes = 0;
  }
}
