/**
 * `varve check`: is everything here that the store's rows promise, and is it what they say?
 *
 * Runs beside all other work: rows and files are compared within one tick where both change together, and
 * whatever is found wrong is looked at again before it is reported.
 */

import type { Core } from "../core.js";
import { checkBlobs } from "./check-blobs.js";
import { checkImages } from "./check-images.js";
import { checkSnapshots } from "./check-snapshots.js";
import { checkViews } from "./check-views.js";
import type { CheckOptions, CheckSummary } from "./faults.js";

/**
 * Checks the whole store; reports each fault when it is found, and repaired where that can be.
 *
 * @throws CancelledError
 */
export async function checkStore(core: Core, o: CheckOptions): Promise<CheckSummary> {
  const { database } = core;
  for (const problem of database.verify()) {
    o.onFault({
      kind: "database",
      object: database.path,
      problem,
      isRepaired: false,
      remedy: "stop the daemon and restore it from a backup, or move it away to start empty",
    });
  }
  const blobBytes = await checkBlobs(core, o);
  const { verifiedBytes, unverified } = await checkSnapshots(core, o);
  // Last: what they need may have been found damaged, and forgotten, just now.
  await checkImages(core, o);
  await checkViews(core, o);
  return {
    blobs: database.blobs.list().length,
    snapshots: core.snapshots.list().length,
    images: database.references.list().length,
    views: core.views.list().length,
    verifiedBytes: blobBytes + verifiedBytes,
    unverified,
  };
}
