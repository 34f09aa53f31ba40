/**
 * Taking in an archive in one pass. What the archive means stands in index.json or manifest.json,
 * which may come last, so everything that can be a blob goes to the content store as it passes, and
 * is remembered by path. What turns out not to be needed is swept afterwards.
 */

import type { Digest } from "../content/digest.js";
import { CorruptDataError } from "../system/errors.js";
import { readArchive } from "./archive-reader.js";
import { decompressed } from "./archive-stream.js";
import { ingestBlob, type LoadContext, throwIfAborted } from "./blob-source.js";
import { MAX_ARCHIVE_INDEX_BYTES } from "./limits.js";
import { type JsonObject, parseJsonObject } from "./manifest.js";

/** An archive whose blobs are in the store. */
export type ArchiveContents = {
  /** index.json of an OCI layout. */
  readonly index?: JsonObject;
  /** manifest.json of `docker save`. */
  readonly manifest?: readonly unknown[];
  /** True when there was a `repositories` file: docker's format of before 1.10, if alone. */
  readonly hasRepositories: boolean;
  /** The blob at a path, through links; undefined when there is none. */
  blobAt(path: string): Digest | undefined;
};

const OCI_BLOB = /^blobs\/sha256\/([0-9a-f]{64})$/;
const BLOB_LIKE = /(?:\.(?:tar|tar\.gz|tgz|tar\.zst|json)|(?:^|\/)(?:sha256[:-])?[0-9a-f]{64})$/;
const DOCUMENTS = new Set(["index.json", "manifest.json", "oci-layout"]);
/** Symbolic links to links, as many as a file system follows. */
const MAX_LINKS = 40;

/**
 * Reads a whole archive.
 *
 * @throws CorruptDataError truncated, damaged, or a blob whose digest is not its name
 * @throws ResourceExhaustedError the disk is full, or the archive exceeds a limit
 */
export async function takeInArchive(
  context: LoadContext,
  source: AsyncIterable<Uint8Array>,
): Promise<ArchiveContents> {
  const { what } = context;
  const documents = new Map<string, Buffer>();
  const blobs = new Map<string, Digest>();
  const links = new Map<string, string>();
  let hasRepositories = false;
  for await (const entry of readArchive(decompressed(source, what), what)) {
    throwIfAborted(context);
    const { path, size } = entry;
    if (entry.type === "link") links.set(path, entry.target!);
    else if (DOCUMENTS.has(path))
      documents.set(path, await readSmall(entry.data, size, path, what));
    else if (path === "repositories") hasRepositories = true;
    else {
      const expected = OCI_BLOB.exec(path)?.[1];
      if (expected === undefined && !BLOB_LIKE.test(path)) continue;
      const blob =
        expected === undefined
          ? { id: path, size }
          : { id: `sha256:${expected}`, size, expected: `sha256:${expected}` as Digest };
      blobs.set(path, await ingestBlob(context, entry.data, blob));
    }
  }
  const index = documents.get("index.json");
  const manifest = documents.get("manifest.json");
  return {
    ...(index === undefined ? {} : { index: parseJsonObject(index, `${what}: index.json`) }),
    ...(manifest === undefined ? {} : { manifest: parseArray(manifest, `${what}: manifest.json`) }),
    hasRepositories,
    blobAt: (path) => followLinks(path, blobs, links),
  };
}

async function readSmall(
  data: AsyncIterable<Buffer>,
  size: number,
  path: string,
  what: string,
): Promise<Buffer> {
  if (size > MAX_ARCHIVE_INDEX_BYTES) {
    throw new CorruptDataError(`${what}: ${path} of ${size} bytes is too large to be one`);
  }
  const chunks: Buffer[] = [];
  for await (const chunk of data) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

function parseArray(data: Buffer, what: string): readonly unknown[] {
  try {
    const value: unknown = JSON.parse(data.toString("utf8"));
    if (Array.isArray(value)) return value;
  } catch (error) {
    throw new CorruptDataError(`${what}: not JSON: ${(error as Error).message}`, { cause: error });
  }
  throw new CorruptDataError(`${what}: not a JSON list`);
}

function followLinks(
  path: string,
  blobs: ReadonlyMap<string, Digest>,
  links: ReadonlyMap<string, string>,
): Digest | undefined {
  let at: string | undefined = path;
  for (let step = 0; at !== undefined && step <= MAX_LINKS; step++) {
    const blob = blobs.get(at);
    if (blob !== undefined) return blob;
    at = links.get(at);
  }
  return undefined;
}
