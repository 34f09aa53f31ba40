/** Writing images into an OCI layout directory, new or existing. */

import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { syncPath } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import { type Digest, hexOf } from "../content/digest.js";
import { ioError } from "../content/io-error.js";
import { FailedPreconditionError } from "../system/errors.js";
import { type JsonObject, parseJsonObject } from "./manifest.js";
import { ociDocuments, type SavePlan } from "./save-plan.js";

/** Reads a blob of the store, verified. */
export type BlobReader = (digest: Digest, size: number) => AsyncIterable<Buffer>;

const REF_NAME = "org.opencontainers.image.ref.name";

/**
 * Adds the plan's images to a layout. Blobs come first, index.json last and at once, so that the
 * layout is valid at every moment; after a failure only blobs that nothing names could be left, and
 * they are removed. An image whose name is in the layout already takes its place.
 *
 * @throws FailedPreconditionError the directory holds something that is no OCI layout
 */
export async function writeLayoutDirectory(
  directory: string,
  plan: SavePlan,
  read: BlobReader,
): Promise<void> {
  const written: string[] = [];
  let isNew = false;
  try {
    isNew = (await mkdir(directory, { recursive: true, mode: 0o755 })) !== undefined;
    const existing = await readExistingIndex(directory);
    const blobDir = path.join(directory, "blobs", "sha256");
    await mkdir(blobDir, { recursive: true, mode: 0o755 });
    for (const { digest, size } of plan.blobs) {
      const file = path.join(blobDir, hexOf(digest));
      if (await hasSize(file, size)) continue;
      await writeAtomically(file, read(digest, size));
      written.push(file);
    }
    for (const [digest, data] of plan.madeBlobs) {
      await writeAtomically(path.join(blobDir, hexOf(digest)), [data]);
    }
    await syncPath(blobDir);
    await writeDocuments(directory, plan, existing);
  } catch (error) {
    for (const file of written) await rm(file, { force: true });
    if (isNew) await rm(directory, { recursive: true, force: true });
    throw ioError(error, `save to ${directory}`, directory);
  }
}

async function writeDocuments(
  directory: string,
  plan: SavePlan,
  existing: JsonObject | undefined,
): Promise<void> {
  for (const { path: name, data } of ociDocuments(plan.manifests)) {
    const content = name === "index.json" && existing ? mergeIndex(existing, plan.manifests) : data;
    await writeAtomically(path.join(directory, name), [content]);
  }
  await syncPath(directory);
}

async function readExistingIndex(directory: string): Promise<JsonObject | undefined> {
  const names = await readdir(directory);
  if (names.length === 0) return undefined;
  if (!names.includes("oci-layout") || !names.includes("index.json")) {
    throw new FailedPreconditionError(
      `save to ${directory}: it is neither empty nor an OCI image layout; choose another directory`,
    );
  }
  const index = await readFile(path.join(directory, "index.json"));
  return parseJsonObject(index, `save to ${directory}: index.json`);
}

/** Keeps what the layout has, except entries that the new ones replace. */
function mergeIndex(existing: JsonObject, added: readonly Descriptor[]): Buffer {
  const names = new Set(added.map((entry) => entry.annotations?.[REF_NAME]));
  const digests = new Set(added.map((entry) => entry.digest));
  const old = Array.isArray(existing.manifests) ? (existing.manifests as Descriptor[]) : [];
  const kept = old.filter((entry) => {
    const name = entry.annotations?.[REF_NAME];
    return name === undefined ? !digests.has(entry.digest) : !names.has(name);
  });
  return Buffer.from(JSON.stringify({ ...existing, manifests: [...kept, ...added] }));
}

async function hasSize(file: string, size: number): Promise<boolean> {
  try {
    return (await stat(file)).size === size;
  } catch {
    return false;
  }
}

async function writeAtomically(
  file: string,
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
): Promise<void> {
  const temporary = `${file}.tmp-${randomBytes(6).toString("hex")}`;
  try {
    const handle = await open(temporary, "wx", 0o644);
    try {
      for await (const chunk of chunks) await handle.writeFile(chunk);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
