/** Loading images from archives and layout directories into the content and image stores. */

import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import type { Digest } from "../content/digest.js";
import { ioError } from "../content/io-error.js";
import { TRANSIENT_LABEL } from "../metadata/labels.js";
import { CorruptDataError, InvalidArgumentError, UnsupportedError } from "../system/errors.js";
import { takeInArchive } from "./archive-intake.js";
import { readFileChunks } from "./archive-stream.js";
import { DirectoryBlobs, type LoadContext, StoredBlobs } from "./blob-source.js";
import type { ProgressEvent } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import { MAX_ARCHIVE_INDEX_BYTES } from "./limits.js";
import { prepareDockerImages } from "./load-docker.js";
import { type PlatformChoice, type PreparedImage, prepareOciImages } from "./load-oci.js";
import { parseJsonObject } from "./manifest.js";
import { parsePlatform } from "./platform.js";

export type { ProgressEvent } from "./image-record.js";

/** An image that a load created; `reference` is absent when the archive has no name for it. */
export type LoadedImage = {
  readonly reference?: string;
  readonly id: Digest;
  /** The target's: manifest or index. */
  readonly digest: Digest;
};

/** How to load. */
export type LoadOptions = {
  /** Platforms to take out of an index, "os/arch[/variant]"; default: the store's own. */
  readonly platforms?: readonly string[];
  /** Every platform that the source has. */
  readonly allPlatforms?: boolean;
  /** Repository for names that are a tag only; default: from the name of the file or directory. */
  readonly baseName?: string;
  readonly onProgress?: (event: ProgressEvent) => void;
  readonly signal?: AbortSignal;
  /** Sweeps what came in and is not needed; called at the end, whether or not the load succeeded. */
  readonly collectGarbage?: () => Promise<unknown>;
};

/** Longer than any load takes; ends the lease of one whose process was killed. */
const LEASE_LIFETIME_MS = 24 * 3600 * 1000;

/**
 * Loads every image of a source. All or nothing: names appear only after all content is there and
 * verified, and a failed load leaves nothing (given `collectGarbage`).
 *
 * @param source the path of an OCI layout directory or of an archive (OCI or docker, old or new;
 *   plain, gzip or zstd), or an archive's bytes
 * @throws InvalidArgumentError a malformed platform
 * @throws NotFoundError no such file; a blob is missing (named); no image for a platform
 * @throws CorruptDataError truncated or damaged; a blob that does not have its digest or size
 * @throws UnsupportedError an obsolete or unknown format
 * @throws ResourceExhaustedError the disk is full
 * @throws CancelledError the signal was aborted
 */
export async function loadImages(
  images: ImageStore,
  source: string | AsyncIterable<Uint8Array>,
  options: LoadOptions = {},
): Promise<LoadedImage[]> {
  const choice: PlatformChoice = {
    platforms: (options.platforms ?? []).filter((text) => text !== "").map(parsePlatform),
    all: options.allPlatforms ?? false,
    preferred: images.platform,
  };
  const { leases } = images.database;
  const leaseOptions = { lifetimeMs: LEASE_LIFETIME_MS, labels: { [TRANSIENT_LABEL]: "load" } };
  const lease = images.database.transaction(() => leases.create(leaseOptions)).id;
  const context: LoadContext = {
    content: images.content,
    lease,
    what: typeof source === "string" ? `load ${source}` : "load from the input stream",
    signal: options.signal,
    progress: options.onProgress ?? (() => {}),
    fresh: new Set(),
  };
  try {
    const prepared = await prepare(context, source, choice, options.baseName);
    return await createAll(images, prepared);
  } finally {
    leases.delete(lease);
    await options.collectGarbage?.();
  }
}

async function prepare(
  context: LoadContext,
  source: string | AsyncIterable<Uint8Array>,
  choice: PlatformChoice,
  baseName: string | undefined,
): Promise<PreparedImage[]> {
  if (typeof source !== "string") return await prepareArchive(context, source, choice, baseName);
  const base = baseName ?? baseNameOf(source);
  const isDirectory = await isDirectoryPath(source);
  if (isDirectory) return await prepareDirectory(context, source, choice, base);
  return await prepareArchive(context, readFileChunks(source), choice, base);
}

async function isDirectoryPath(source: string): Promise<boolean> {
  try {
    const found = await stat(source);
    if (found.isDirectory()) return true;
    if (found.isFile() || found.isFIFO()) return false;
  } catch (error) {
    throw ioError(error, `load ${source}`, source);
  }
  throw new InvalidArgumentError(`load ${source}: neither a file nor a directory`);
}

/** "/tmp/busybox.oci.tar.gz" → "busybox". */
function baseNameOf(file: string): string | undefined {
  const name = path
    .basename(file)
    .toLowerCase()
    .replace(/(?:\.(?:tar|tgz|gz|zst|oci))+$/, "");
  return /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*$/.test(name) ? name : undefined;
}

async function prepareDirectory(
  context: LoadContext,
  directory: string,
  choice: PlatformChoice,
  baseName: string | undefined,
): Promise<PreparedImage[]> {
  const index = await readDocument(directory, "index.json");
  if (index === undefined) {
    const hint = (await readDocument(directory, "manifest.json"))
      ? "; it looks like skopeo's dir: format, copy it to oci: first"
      : "";
    throw new UnsupportedError(
      `load ${directory}: not an OCI image layout (it has no index.json)${hint}`,
    );
  }
  const json = parseJsonObject(index, `load ${directory}: index.json`);
  const blobs = new DirectoryBlobs(context, directory);
  return await prepareOciImages(context, blobs, json, choice, baseName);
}

async function readDocument(directory: string, name: string): Promise<Buffer | undefined> {
  const file = path.join(directory, name);
  try {
    const found = await stat(file);
    if (!found.isFile() || found.size > MAX_ARCHIVE_INDEX_BYTES) {
      throw new CorruptDataError(`load ${directory}: ${name} is no file, or too large`);
    }
    return await readFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw ioError(error, `load ${directory}`, file);
  }
}

async function prepareArchive(
  context: LoadContext,
  source: AsyncIterable<Uint8Array>,
  choice: PlatformChoice,
  baseName: string | undefined,
): Promise<PreparedImage[]> {
  const archive = await takeInArchive(context, source);
  // An archive of docker 25 or later has both; index.json keeps the original digests.
  if (archive.index !== undefined) {
    const blobs = new StoredBlobs(context);
    return await prepareOciImages(context, blobs, archive.index, choice, baseName);
  }
  if (archive.manifest !== undefined) return await prepareDockerImages(context, archive, choice);
  throw new UnsupportedError(
    archive.hasRepositories
      ? `${context.what}: an archive of docker before 1.10 (no manifest.json) is not supported`
      : `${context.what}: not an image archive (neither index.json nor manifest.json in it)`,
  );
}

async function createAll(
  images: ImageStore,
  prepared: readonly PreparedImage[],
): Promise<LoadedImage[]> {
  const loaded: LoadedImage[] = [];
  for (const { reference, target } of prepared) {
    const { id } = await images.create(reference, target);
    loaded.push({ id, digest: target.digest, ...(reference === undefined ? {} : { reference }) });
  }
  return loaded;
}
