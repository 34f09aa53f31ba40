/** Blobs: every row has its file, every file its row and its digest. */

import { createHash } from "node:crypto";
import { createReadStream, rmSync, statSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import type { Digest } from "../../content/digest.js";
import type { BlobRow } from "../../metadata/blob-table.js";
import { CancelledError } from "../../system/errors.js";
import type { Core } from "../core.js";
import { type CheckOptions, type FaultKind, STRAY_AGE_MS } from "./faults.js";

/** Documents are read whole in any case: they are few and small, and all else hangs on them. */
const ALWAYS_READ_BYTES = 256 * 1024;
const GONE = "its row was removed, so that pulling or loading its image again brings it back";
const LOST =
  'pull or load its image again; "varve check --repair" forgets it, so that it is fetched';

/**
 * Checks all blobs. A repair can only forget one that is damaged: there is no second copy of it here.
 *
 * @returns how many bytes were read
 */
export async function checkBlobs(core: Core, o: CheckOptions): Promise<number> {
  let read = 0;
  for (const row of core.database.blobs.list()) {
    if (o.signal?.aborted === true) throw new CancelledError("check: cancelled");
    const isRead = o.verifyContent || row.size <= ALWAYS_READ_BYTES;
    const verdict = await examine(core, row, isRead, o);
    if (verdict === undefined) {
      if (isRead) read += row.size;
      continue;
    }
    // It may have been removed while it was read.
    if (!core.content.has(row.digest)) continue;
    if (o.repair) await core.content.delete(row.digest);
    const isForgotten = o.repair && !core.content.has(row.digest);
    const remedy = isForgotten ? GONE : LOST;
    o.onFault({ ...verdict, object: row.digest, isRepaired: false, remedy });
  }
  await checkStrayBlobs(core, o);
  await checkStrayIngests(core, o);
  return read;
}

type Verdict = { readonly kind: FaultKind; readonly problem: string } | undefined;

async function examine(
  core: Core,
  row: BlobRow,
  isRead: boolean,
  o: CheckOptions,
): Promise<Verdict> {
  const file = core.content.path(row.digest);
  const found = statSync(file, { throwIfNoEntry: false });
  if (found === undefined) return { kind: "blob-missing", problem: "its file is missing" };
  if (found.size !== row.size) {
    const problem = `its file has ${found.size} bytes instead of ${row.size}`;
    return { kind: "blob-damaged", problem };
  }
  if (!isRead) return undefined;
  try {
    const actual = await hashFile(file, row, o);
    if (actual === row.digest) return undefined;
    return { kind: "blob-damaged", problem: `its content has the digest ${actual}` };
  } catch (error) {
    if (error instanceof CancelledError) throw error;
    const problem = `its file cannot be read: ${(error as Error).message}`;
    return { kind: "blob-damaged", problem };
  }
}

async function hashFile(file: string, row: BlobRow, o: CheckOptions): Promise<Digest> {
  const hash = createHash("sha256");
  let current = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
    if (o.signal?.aborted === true) throw new CancelledError("check: cancelled");
    hash.update(chunk as Buffer);
    current += (chunk as Buffer).length;
    o.onProgress?.({ id: row.digest, action: "verifying", current, total: row.size });
  }
  return `sha256:${hash.digest("hex")}` as Digest;
}

async function checkStrayBlobs(core: Core, o: CheckOptions): Promise<void> {
  const { content, database } = core;
  const directory = path.join(content.root, "blobs", "sha256");
  for (const name of await readdir(directory)) {
    const file = path.join(directory, name);
    const digest = `sha256:${name}` as Digest;
    // In one tick with what follows: a blob on its way in has its name before its row.
    const isKnown = database.blobs.get(digest) !== undefined;
    const isBusy = new Set(content.busyDigests()).has(digest);
    if (isKnown || isBusy || statSync(file, { throwIfNoEntry: false }) === undefined) continue;
    if (o.repair) rmSync(file, { recursive: true, force: true });
    o.onFault({
      kind: "blob-stray",
      object: path.join("blobs", "sha256", name),
      problem: "no row of the database knows this file",
      isRepaired: o.repair,
      remedy: o.repair ? "removed" : '"varve check --repair" removes it',
    });
  }
}

async function checkStrayIngests(core: Core, o: CheckOptions): Promise<void> {
  const directory = path.join(core.content.root, "ingest");
  for (const name of await readdir(directory)) {
    // What can be resumed is the content store's to keep and to drop.
    if (name.startsWith("ref-")) continue;
    const file = path.join(directory, name);
    const found = await stat(file).catch(() => undefined);
    if (found === undefined || Date.now() - found.mtimeMs < STRAY_AGE_MS) continue;
    if (o.repair) rmSync(file, { recursive: true, force: true });
    o.onFault({
      kind: "ingest-stray",
      object: path.join("ingest", name),
      problem: "an unfinished file that nobody writes to",
      isRepaired: o.repair,
      remedy: o.repair ? "removed" : '"varve check --repair" removes it',
    });
  }
}
