/** What a target points to: walking from an index or a manifest down, in the content store. */

import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import { chainIdsOf, type Digest, isDigest } from "../content/digest.js";
import type { BlobReferences } from "../metadata/garbage-collection.js";
import { CorruptDataError, UnsupportedError } from "../system/errors.js";
import {
  MAX_CONFIG_BYTES,
  MAX_INDEX_DEPTH,
  MAX_INDEX_MANIFESTS,
  MAX_MANIFEST_BYTES,
} from "./limits.js";
import { type ImageManifest, parseConfig, parseIndex, parseManifest } from "./manifest.js";
import { isIndexType, isManifestType } from "./media-types.js";
import { normalizePlatform, type Platform, platformRank } from "./platform.js";

/** A manifest that an index (or the target itself) offers. */
export type Candidate = {
  readonly descriptor: Descriptor;
  /** As the index says, else as the config says; absent when neither is here. */
  readonly platform?: Platform;
};

const ATTESTATION = "vnd.docker.reference.type";

/** True for what buildkit adds beside the images: provenance and SBOM, for "unknown/unknown". */
export function isAttestation(descriptor: Descriptor): boolean {
  if (descriptor.annotations?.[ATTESTATION] !== undefined) return true;
  return descriptor.platform?.os === "unknown" && descriptor.platform.architecture === "unknown";
}

/**
 * The image manifests under a target in index order, nested indexes flattened, attestations and
 * other artifacts left out. Nested indexes that are not here are skipped.
 *
 * @throws NotFoundError the target is not here
 * @throws CorruptDataError, UnsupportedError malformed, or indexes nested too deep
 */
export async function listCandidates(
  content: ContentStore,
  target: Descriptor,
): Promise<Candidate[]> {
  const found: Candidate[] = [];
  await collect(content, target, 0, found);
  return found;
}

async function collect(
  content: ContentStore,
  descriptor: Descriptor,
  depth: number,
  found: Candidate[],
): Promise<void> {
  if (!isIndexType(descriptor.mediaType)) {
    if (depth > 0 && !isManifestType(descriptor.mediaType)) return;
    const platform = await platformOf(content, descriptor);
    found.push({ descriptor, ...(platform === undefined ? {} : { platform }) });
    return;
  }
  if (depth >= MAX_INDEX_DEPTH) {
    throw new UnsupportedError(`index ${descriptor.digest}: nested more than ${depth} deep`);
  }
  const data = await content.readBlob(descriptor.digest, MAX_MANIFEST_BYTES);
  const index = parseIndex(data, descriptor.mediaType, `index ${descriptor.digest}`);
  for (const child of index.manifests) {
    if (isAttestation(child)) continue;
    if (isIndexType(child.mediaType) && !content.has(child.digest)) continue;
    await collect(content, child, depth + 1, found);
    if (found.length > MAX_INDEX_MANIFESTS) {
      throw new CorruptDataError(
        `index ${descriptor.digest}: names more than ${MAX_INDEX_MANIFESTS} manifests`,
      );
    }
  }
}

async function platformOf(
  content: ContentStore,
  descriptor: Descriptor,
): Promise<Platform | undefined> {
  if (descriptor.platform !== undefined) return normalizePlatform(descriptor.platform);
  if (!content.has(descriptor.digest)) return undefined;
  const manifest = await readManifest(content, descriptor);
  if (!content.has(manifest.config.digest)) return undefined;
  const what = `config ${manifest.config.digest}`;
  const data = await content.readBlob(manifest.config.digest, MAX_CONFIG_BYTES);
  return normalizePlatform(parseConfig(data, what));
}

/** Reads and parses a manifest. @throws NotFoundError, CorruptDataError, UnsupportedError */
export async function readManifest(
  content: ContentStore,
  descriptor: Descriptor,
): Promise<ImageManifest> {
  const data = await content.readBlob(descriptor.digest, MAX_MANIFEST_BYTES);
  return parseManifest(data, descriptor.mediaType, `manifest ${descriptor.digest}`);
}

/** The candidates that run on `wanted`, best first; among equals the index's order. */
export function rankCandidates(candidates: readonly Candidate[], wanted: Platform): Candidate[] {
  return candidates
    .map((candidate) => ({
      candidate,
      rank: candidate.platform && platformRank(wanted, candidate.platform),
    }))
    .filter((entry) => entry.rank !== undefined)
    .sort((a, b) => a.rank! - b.rank!)
    .map((entry) => entry.candidate);
}

/** True when manifest, config and every layer of a candidate are in the store. */
export async function isComplete(content: ContentStore, descriptor: Descriptor): Promise<boolean> {
  return (await missingContent(content, descriptor)) === undefined;
}

/** The first blob that a manifest needs and the store lacks. */
export async function missingContent(
  content: ContentStore,
  descriptor: Descriptor,
): Promise<Descriptor | undefined> {
  if (!content.has(descriptor.digest)) return descriptor;
  const manifest = await readManifest(content, descriptor);
  return [manifest.config, ...manifest.layers].find((blob) => !content.has(blob.digest));
}

const NOTHING: BlobReferences = { blobs: [], snapshots: [] };

/**
 * Answers garbage collection what a blob refers to, by looking at its content: synchronously, and
 * from memory the second time, as blobs never change.
 */
export class ReferenceReader {
  readonly #content: ContentStore;
  readonly #known = new Map<Digest, BlobReferences>();

  constructor(content: ContentStore) {
    this.#content = content;
  }

  read(digest: Digest): BlobReferences {
    const known = this.#known.get(digest);
    if (known !== undefined) return known;
    const references = this.#parse(digest);
    this.#known.set(digest, references);
    return references;
  }

  /** Forgets blobs that are gone. */
  forget(digests: Iterable<Digest>): void {
    for (const digest of digests) this.#known.delete(digest);
  }

  #parse(digest: Digest): BlobReferences {
    const { size } = this.#content.info(digest);
    const file = this.#content.path(digest);
    try {
      if (size > MAX_CONFIG_BYTES || !startsLikeJson(file)) return NOTHING;
      return referencesOf(JSON.parse(readFileSync(file, "utf8")) as unknown);
    } catch (error) {
      // No JSON, or a file that someone took away: either way it leads nowhere.
      if (error instanceof SyntaxError) return NOTHING;
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return NOTHING;
      throw error;
    }
  }
}

function startsLikeJson(file: string): boolean {
  const fd = openSync(file, "r");
  try {
    const first = Buffer.alloc(16);
    const length = readSync(fd, first, 0, first.length, 0);
    return first.toString("latin1", 0, length).trimStart().startsWith("{");
  } finally {
    closeSync(fd);
  }
}

/** Reads leniently: what merely looks like a reference keeps content, which is the safe side. */
function referencesOf(value: unknown): BlobReferences {
  if (!isObject(value)) return NOTHING;
  const listed = [value.config, value.subject, value.layers, value.manifests].flat();
  const blobs = listed
    .map((entry) => (isObject(entry) ? entry.digest : undefined))
    .filter((digest) => typeof digest === "string" && isDigest(digest));
  const diffIds = isObject(value.rootfs) ? value.rootfs.diff_ids : undefined;
  const chain = Array.isArray(diffIds)
    ? diffIds.filter((id): id is Digest => typeof id === "string" && isDigest(id))
    : [];
  return { blobs: blobs as Digest[], snapshots: chainIdsOf(chain) };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
