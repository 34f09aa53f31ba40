/** Unpacking a layer into an active snapshot of containerd's. */

import { readdir } from "node:fs/promises";
import type { Digest } from "../../content/digest.js";
import type { AppliedLayer } from "../../layers/apply.js";
import { compressionOf } from "../../layers/compression.js";
import type { LayerLimits } from "../../layers/limits.js";
import type { LayerTasks } from "../../snapshots/layer-tasks.js";
import { syncFileSystem } from "../../snapshots/sync.js";
import { FailedPreconditionError, UnsupportedError } from "../../system/errors.js";
import type { ProxySnapshots } from "../../views/proxy-snapshots.js";
import type { HeldUpper, ShownMount } from "../../views/proxy-uppers.js";

/** What unpacks. */
export interface Unpacking {
  readonly snapshots: ProxySnapshots;
  readonly tasks: LayerTasks;
  readonly limits: Partial<LayerLimits>;
}

/** A layer in a file. */
export interface LayerBlob {
  readonly path: string;
  readonly mediaType: string;
  /** Its name in errors. */
  readonly digest: string;
  /** Where it is known. */
  readonly diffId?: Digest | undefined;
}

/**
 * Unpacks `fetch`ed bytes into the snapshot that the mounts show. Afterwards the snapshot's tree is what
 * containerd's own differ would have made of it.
 *
 * @param fetch brings the blob; called when it is sure that it is wanted
 * @throws UnsupportedError not our mounts, something was written there already, or no type of layer
 * @throws FailedPreconditionError something in the archive is not supported
 * @throws CorruptDataError, ResourceExhaustedError as `applyLayer`
 */
export async function applyToSnapshot(
  { snapshots, tasks, limits }: Unpacking,
  o: {
    readonly mounts: readonly ShownMount[];
    readonly mediaType: string;
    readonly syncFs: boolean;
    readonly signal: AbortSignal;
  },
  fetch: () => Promise<LayerBlob>,
): Promise<AppliedLayer> {
  compressionOf(o.mediaType);
  return await snapshots.withUpper(o.mounts, async (upper) => {
    if ((await readdir(upper.upperDir)).length > 0) {
      throw new UnsupportedError("apply a layer: the snapshot has been written to");
    }
    const blob = await fetch();
    const task = {
      ...{ blobPath: blob.path, mediaType: blob.mediaType, expectedDiffId: blob.diffId },
      ...{ targetDir: upper.upperDir, subject: `layer ${blob.digest}`, privileged: true, limits },
    };
    try {
      const applied = await tasks.apply(task, () => {}, o.signal);
      await settle(tasks, upper, applied);
      if (o.syncFs) await syncFileSystem(upper.upperDir);
      return applied;
    } catch (error) {
      // Half a layer is there: no other differ must go on with it.
      if (!(error instanceof UnsupportedError)) throw error;
      throw new FailedPreconditionError(error.message, { cause: error });
    }
  });
}

/**
 * Brings what the archive left open into the tree on disk: containerd's snapshots are indexed, and mounted
 * by the kernel, as they lie there. Building an index does that on the way; the index itself is
 * made again when the snapshot is committed.
 */
async function settle(tasks: LayerTasks, upper: HeldUpper, applied: AppliedLayer): Promise<void> {
  const { impliedDirectories, lowerLinks } = applied;
  // The root has got the attributes of the one below when the snapshot was prepared.
  const isSettled = impliedDirectories.every((path) => path === "") || upper.parentId === undefined;
  if (isSettled && lowerLinks.length === 0) return;
  const { indexPath, layerDirs } = await upper.lower();
  await tasks.buildIndex({
    parentIndexPath: indexPath,
    chainId: `containerd/${upper.id}`,
    fsDir: upper.upperDir,
    impliedDirectories,
    lowerLinks,
    layerDirs,
    outputPath: upper.indexPath,
    privileged: true,
  });
}
