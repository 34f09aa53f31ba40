/**
 * Saving images: an OCI archive, an OCI layout directory, or docker's archive, which is an OCI
 * archive with a manifest.json beside it, as docker itself writes it since version 25.
 *
 * The same images and options make the same bytes: entries are sorted, and without times or owners.
 */

import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { ContentStore } from "../content/content-store.js";
import { syncPath } from "../content/content-store.js";
import { type Digest, hexOf } from "../content/digest.js";
import { ioError } from "../content/io-error.js";
import { TAR_BLOCK } from "../layers/tar-entry.js";
import { END_OF_ARCHIVE, encodeEntryHeader, padding } from "../layers/tar-writer.js";
import { TRANSIENT_LABEL } from "../metadata/labels.js";
import { toBytes } from "../system/bytes.js";
import {
  CancelledError,
  CorruptDataError,
  FailedPreconditionError,
  InvalidArgumentError,
} from "../system/errors.js";
import type { ProgressEvent } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import { writeLayoutDirectory } from "./save-directory.js";
import { dockerDocuments, ociDocuments, planSave, type SavePlan } from "./save-plan.js";

/** What to write. */
export type SaveFormat = "oci-archive" | "docker-archive" | "oci-dir";

/** How to save. */
export type SaveOptions = {
  readonly format: SaveFormat;
  /** Platforms of an index, "os/arch[/variant]"; default: all that are here, if none is missing. */
  readonly platforms?: readonly string[];
  readonly onProgress?: (event: ProgressEvent) => void;
  readonly signal?: AbortSignal;
};

const PROGRESS_STEP = 1 << 20;
const LEASE_LIFETIME_MS = 24 * 3600 * 1000;

/**
 * Saves to a file (replaced at once when complete; durable on return) or, for "oci-dir", to a
 * directory that is absent, empty, or an OCI layout that gets the images added.
 *
 * @throws NotFoundError an image, a platform or a blob is not here
 * @throws CorruptDataError a blob of the store is damaged
 * @throws FailedPreconditionError the directory holds something else; the path is no regular file
 * @throws InvalidArgumentError an unknown format, or no images
 * @throws ResourceExhaustedError, PermissionDeniedError by the file system
 * @throws CancelledError the signal was aborted
 */
export async function saveImages(
  images: ImageStore,
  references: readonly string[],
  target: string,
  options: SaveOptions,
): Promise<void> {
  checkFormat(options.format);
  await withPlan(images, references, options, async (plan) => {
    if (options.format === "oci-dir") {
      const read = (digest: Digest, size: number) => readVerified(images, digest, size, options);
      await writeLayoutDirectory(target, plan, read);
    } else await writeFile(target, archive(images, plan, options));
  });
}

/**
 * The archive as a stream of chunks; the caller may keep them. Not for "oci-dir".
 *
 * @throws as `saveImages`, while being read
 */
export async function* streamImages(
  images: ImageStore,
  references: readonly string[],
  options: SaveOptions,
): AsyncGenerator<Buffer> {
  checkFormat(options.format);
  if (options.format === "oci-dir") {
    throw new InvalidArgumentError("save: a layout directory needs a path, it cannot be streamed");
  }
  const lease = holdImages(images);
  try {
    const plan = await leasedPlan(images, lease, references, options);
    yield* archive(images, plan, options);
  } finally {
    images.database.leases.delete(lease);
  }
}

async function withPlan(
  images: ImageStore,
  references: readonly string[],
  options: SaveOptions,
  work: (plan: SavePlan) => Promise<void>,
): Promise<void> {
  const lease = holdImages(images);
  try {
    await work(await leasedPlan(images, lease, references, options));
  } finally {
    images.database.leases.delete(lease);
  }
}

/** Saving takes time; the lease keeps the blobs although their image be removed meanwhile. */
function holdImages(images: ImageStore): string {
  const labels = { [TRANSIENT_LABEL]: "save" };
  const { database } = images;
  const options = { lifetimeMs: LEASE_LIFETIME_MS, labels };
  return database.transaction(() => database.leases.create(options)).id;
}

async function leasedPlan(
  images: ImageStore,
  lease: string,
  references: readonly string[],
  options: SaveOptions,
): Promise<SavePlan> {
  const plan = await planSave(images, references, options.platforms ?? []);
  for (const blob of plan.blobs) images.content.protect(blob.digest, lease);
  return plan;
}

function checkFormat(format: string): void {
  if (["oci-archive", "docker-archive", "oci-dir"].includes(format)) return;
  throw new InvalidArgumentError(
    `save: unknown format ${JSON.stringify(format)}; known are oci-archive, docker-archive, oci-dir`,
  );
}

/**
 * The file to replace, behind symbolic links. Anything but a file is refused: a rename would put the
 * archive in the place of /dev/null.
 */
async function replaceable(target: string): Promise<string> {
  try {
    const real = await realpath(target);
    if ((await stat(real)).isFile()) return real;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return target;
    throw ioError(error, `save ${target}`, target);
  }
  throw new FailedPreconditionError(
    `save ${target}: it is no regular file; choose another, or write to the standard output`,
  );
}

async function writeFile(path: string, chunks: AsyncIterable<Buffer>): Promise<void> {
  const target = await replaceable(path);
  const temporary = `${target}.tmp-${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(temporary, "wx", 0o644);
    try {
      for await (const chunk of chunks) await file.writeFile(chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
    await syncPath(dirname(target));
  } catch (error) {
    await rm(temporary, { force: true });
    throw ioError(error, `save ${target}`, target);
  }
}

/** A plain generator over the layer codec: it waits for its reader by itself, whoever that is. */
async function* archive(
  images: ImageStore,
  plan: SavePlan,
  options: SaveOptions,
): AsyncGenerator<Buffer> {
  // Documents first: whoever reads the stream knows at once what it is.
  const documents = ociDocuments(plan.manifests);
  if (options.format === "docker-archive") documents.push(...dockerDocuments(plan));
  for (const { path: name, data } of documents) yield* fileEntry(name, data.length, [data]);
  yield header("blobs", "directory", 0);
  yield header("blobs/sha256", "directory", 0);
  for (const [digest, data] of plan.madeBlobs) {
    yield* fileEntry(blobPath(digest), data.length, [data]);
  }
  for (const { digest, size } of plan.blobs) {
    yield* fileEntry(blobPath(digest), size, readVerified(images, digest, size, options));
  }
  yield Buffer.from(END_OF_ARCHIVE);
}

function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

async function* fileEntry(
  name: string,
  size: number,
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
): AsyncGenerator<Buffer> {
  yield header(name, "file", size);
  yield* chunks;
  if (size % TAR_BLOCK !== 0) yield Buffer.from(padding(size));
}

function header(name: string, type: "file" | "directory", size: number): Buffer {
  return encodeEntryHeader({
    path: toBytes(name),
    type,
    mode: type === "file" ? 0o644 : 0o755,
    uid: 0,
    gid: 0,
    size,
    mtimeSec: 0,
    mtimeNsec: 0,
    linkTarget: toBytes(""),
    rdev: 0,
    xattrs: [],
  });
}

/** Reads a blob, checking its digest on the way: an archive must not carry damage further. */
async function* readVerified(
  images: ImageStore,
  digest: Digest,
  size: number,
  options: SaveOptions,
): AsyncGenerator<Buffer> {
  const { onProgress = () => {}, signal } = options;
  const file = images.content.path(digest);
  const hash = createHash("sha256");
  let done = 0;
  let reported = 0;
  onProgress({ id: digest, action: "writing", current: 0, total: size });
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 18 })) {
      if (signal?.aborted) throw new CancelledError("save: cancelled");
      const data = chunk as Buffer;
      hash.update(data);
      done += data.length;
      if (done > size) break;
      yield data;
      if (done - reported < PROGRESS_STEP) continue;
      reported = done;
      onProgress({ id: digest, action: "writing", current: done, total: size });
    }
  } catch (error) {
    throw ioError(error, `save blob ${digest}`, file);
  }
  const actual = `sha256:${hash.digest("hex")}`;
  if (done !== size || actual !== digest) throw damaged(images.content, digest, actual);
  onProgress({ id: digest, action: "done", current: size, total: size });
}

function damaged(content: ContentStore, digest: Digest, actual: string): CorruptDataError {
  return new CorruptDataError(
    `save blob ${digest}: the file ${content.path(digest)} is damaged (its digest is ${actual}); ` +
      "load its image again",
    { details: { expected: digest, actual } },
  );
}
