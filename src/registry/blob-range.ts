/** Asking for a part of a blob, and taking in what was asked for and nothing else. */

import { CancelledError, CorruptDataError } from "../system/errors.js";
import type { Connection, HostAnswer } from "./connection.js";
import { TransientError } from "./failures.js";
import type { RetryPolicy } from "./limits.js";

/** A blob at one host. */
export interface BlobSource {
  readonly connection: Connection;
  /** Below the host's API, or a whole address. */
  readonly path: string;
  readonly scopes: readonly string[];
  readonly retry: RetryPolicy;
  /** Names the operation in errors. */
  readonly what: string;
}

/** Bytes from `start` up to but without `end`; without an end, to the end of the blob. */
export interface ByteRange {
  readonly start: number;
  readonly end?: number;
}

/** Takes bytes; they are borrowed until the promise is fulfilled. */
export type Take = (bytes: Buffer) => Promise<void>;

/**
 * Asks for a range once and hands over its bytes in order. The body may be shorter than asked for:
 * the caller counts.
 *
 * @returns "whole" when the server knows no ranges: what came then is the rest of the blob from
 *   `start` on, whatever the end was to be
 * @throws CorruptDataError a web page, or another part than was asked for
 * @throws TransientError the body comes too slowly; else as `Connection.send`
 */
export async function readRange(
  source: BlobSource,
  range: ByteRange,
  signal: AbortSignal,
  take: Take,
): Promise<"part" | "whole"> {
  const { connection, path, scopes, what } = source;
  const isPlain = range.start === 0 && range.end === undefined;
  const last = range.end === undefined ? "" : range.end - 1;
  const answer = await connection.send({
    method: "GET",
    path,
    // Some servers compress what they can; a blob's digest is of the bytes as they are.
    headers: {
      "accept-encoding": "identity",
      ...(isPlain ? {} : { range: `bytes=${range.start}-${last}` }),
    },
    scopes,
    signal,
    what,
    accept: [200, 206],
  });
  const isPart = answer.status === 206;
  const skip = skipOf(answer, range.start, what);
  const limit = isPart && range.end !== undefined ? range.end - range.start : Infinity;
  await readBody(source, answer, { skip, limit }, signal, take);
  return isPart ? "part" : "whole";
}

/** How many bytes of a body lie before the ones that were asked for. */
function skipOf(answer: HostAnswer, start: number, what: string): number {
  const refuse = (reason: string): never => {
    answer.body.destroy();
    throw new CorruptDataError(`${what}: ${reason}`);
  };
  if (/text\/html/i.test(String(answer.headers["content-type"] ?? ""))) {
    return refuse("the answer is a web page, not the blob");
  }
  // A server without ranges starts from the beginning again.
  if (answer.status !== 206) return start;
  const match = /^bytes (\d+)-/.exec(String(answer.headers["content-range"] ?? ""));
  if (match === null) return refuse("a partial answer does not say which part it is");
  const skip = start - Number(match[1]);
  return skip < 0 ? refuse(`the server skipped ${-skip} bytes`) : skip;
}

async function readBody(
  { retry, what }: BlobSource,
  answer: HostAnswer,
  part: { readonly skip: number; readonly limit: number },
  signal: AbortSignal,
  take: Take,
): Promise<void> {
  const pace = new Pace(retry, what);
  let { skip, limit } = part;
  // Leaving the loop early destroys the body, and with it the connection.
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    if (signal.aborted) throw new CancelledError(`${what}: cancelled`);
    pace.take(chunk.length);
    const begin = Math.min(skip, chunk.length);
    skip -= begin;
    const fresh = chunk.subarray(begin, Math.min(chunk.length, begin + limit));
    if (fresh.length > 0) await take(fresh);
    limit -= fresh.length;
    if (limit === 0 && begin + fresh.length < chunk.length) return;
  }
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
