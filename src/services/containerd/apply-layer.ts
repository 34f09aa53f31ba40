/** Unpacking a layer into an active snapshot of containerd's. */

import { readdir } from "node:fs/promises";
import type { Digest } from "../../content/digest.js";
import type { AppliedLayer } from "../../layers/apply.js";
import { compressionOf } from "../../layers/compression.js";
import type { PipedBlob } from "../../layers/decompressed-blob.js";
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

/** A layer in a file, or in a pipe. */
export interface LayerBlob {
  readonly path: string;
  readonly piped?: PipedBlob | undefined;
  readonly mediaType: string;
  /** Its name in errors. */
  readonly digest: string;
  /** Where it is known. */
  readonly diffId?: Digest | undefined;
}

/** Brings a blob, and keeps it for as long as `work` takes. */
export type WithBlob = <R>(work: (blob: LayerBlob) => Promise<R>) => Promise<R>;

/**
 * Unpacks a blob into the snapshot that the mounts show. Afterwards the snapshot's tree is what
 * containerd's own differ would have made of it.
 *
 * @param withBlob called when it is sure that the blob is wanted
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
  withBlob: WithBlob,
): Promise<AppliedLayer> {
  compressionOf(o.mediaType);
  return await snapshots.withUpper(o.mounts, async (upper) => {
    if ((await readdir(upper.upperDir)).length > 0) {
      throw new UnsupportedError("apply a layer: the snapshot has been written to");
    }
    const unpack = ({ path, piped, mediaType, diffId, digest }: LayerBlob) => {
      const source = { blobPath: path, piped, mediaType, expectedDiffId: diffId };
      const target = { targetDir: upper.upperDir, privileged: true, limits };
      return tasks.apply({ ...source, ...target, subject: `layer ${digest}` }, () => {}, o.signal);
    };
    try {
      const applied = await withBlob(unpack);
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
