/** Where a load finds blobs: in a layout directory, or among what an archive has brought. */

import { stat } from "node:fs/promises";
import path from "node:path";
import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import { type Digest, hexOf } from "../content/digest.js";
import { CancelledError, CorruptDataError, NotFoundError } from "../system/errors.js";
import { readFileChunks } from "./archive-stream.js";
import type { ProgressEvent } from "./image-record.js";

/** What every part of a load shares. */
export type LoadContext = {
  readonly content: ContentStore;
  /** Protects what comes in until a reference does. */
  readonly lease: string;
  /** Names the source in errors: "load /tmp/x.tar". */
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  readonly progress: (event: ProgressEvent) => void;
  /** Digests that were not in the store before this load. */
  readonly fresh: Set<Digest>;
};

/** Blobs by descriptor. */
export type BlobSource = {
  /** Brings a blob into the store, verified. @returns false when the source has no such blob */
  fetch(descriptor: Descriptor): Promise<boolean>;
};

/** Progress is told about every so many bytes of one blob. */
const PROGRESS_STEP = 1 << 20;

/**
 * Ingests one blob and reports progress under its digest, or `id`.
 *
 * @throws CorruptDataError, ResourceExhaustedError as the content store
 * @throws CancelledError the signal was aborted
 */
export async function ingestBlob(
  context: LoadContext,
  data: AsyncIterable<Buffer>,
  blob: { id: string; size: number; expected?: Digest; mediaType?: string },
): Promise<Digest> {
  const { content, lease, progress } = context;
  const { id, size, expected, mediaType } = blob;
  const known = expected !== undefined && content.has(expected);
  const ingest = await content.ingest({
    lease,
    expectedSize: size,
    ...(expected === undefined ? {} : { expected }),
    ...(mediaType === undefined ? {} : { mediaType }),
  });
  try {
    let reported = 0;
    progress({ id, action: known ? "verifying" : "loading", current: 0, total: size });
    for await (const chunk of data) {
      throwIfAborted(context);
      await ingest.write(chunk);
      if (ingest.offset - reported < PROGRESS_STEP) continue;
      reported = ingest.offset;
      progress({ id, action: known ? "verifying" : "loading", current: reported, total: size });
    }
    throwIfAborted(context);
    const { digest, existed } = await ingest.commit();
    if (!existed) context.fresh.add(digest);
    progress({ id, action: known ? "exists" : "done", current: size, total: size });
    return digest;
  } finally {
    await ingest.abort();
  }
}

/** @throws CancelledError when the signal was aborted */
export function throwIfAborted(context: Pick<LoadContext, "signal" | "what">): void {
  if (context.signal?.aborted) throw new CancelledError(`${context.what}: cancelled`);
}

/** The blobs of an OCI layout directory; only what is asked for is read. */
export class DirectoryBlobs implements BlobSource {
  readonly #context: LoadContext;
  readonly #directory: string;

  constructor(context: LoadContext, directory: string) {
    this.#context = context;
    this.#directory = directory;
  }

  async fetch(descriptor: Descriptor): Promise<boolean> {
    const { digest, mediaType } = descriptor;
    const file = path.join(this.#directory, "blobs", "sha256", hexOf(digest));
    const size = await sizeOf(file);
    if (size === undefined) return isStored(this.#context, descriptor);
    checkSize(this.#context, descriptor, size);
    const blob = { id: digest, size, expected: digest, mediaType };
    await ingestBlob(this.#context, readFileChunks(file), blob);
    return true;
  }
}

/** The blobs of an archive, which are in the store by the time anyone asks. */
export class StoredBlobs implements BlobSource {
  readonly #context: LoadContext;

  constructor(context: LoadContext) {
    this.#context = context;
  }

  async fetch(descriptor: Descriptor): Promise<boolean> {
    return isStored(this.#context, descriptor);
  }
}

/** A blob that an earlier load brought serves as well; it is protected from now on. */
function isStored(context: LoadContext, descriptor: Descriptor): boolean {
  const { content, lease } = context;
  if (!content.protect(descriptor.digest, lease)) return false;
  checkSize(context, descriptor, content.info(descriptor.digest).size);
  return true;
}

function checkSize(context: LoadContext, descriptor: Descriptor, size: number): void {
  if (size === descriptor.size) return;
  throw new CorruptDataError(
    `${context.what}: blob ${descriptor.digest} has ${size} bytes, but ${descriptor.size} are ` +
      "promised where it is referred to",
  );
}

async function sizeOf(file: string): Promise<number | undefined> {
  try {
    const found = await stat(file);
    return found.isFile() ? found.size : undefined;
  } catch {
    return undefined;
  }
}

/** Fetches a blob that must be there. @throws NotFoundError naming it */
export async function fetchRequired(
  context: LoadContext,
  source: BlobSource,
  descriptor: Descriptor,
  role: string,
): Promise<void> {
  throwIfAborted(context);
  if (await source.fetch(descriptor)) return;
  throw new NotFoundError(
    `${context.what}: ${role} ${descriptor.digest} is missing from the source`,
    { details: { digest: descriptor.digest } },
  );
}
