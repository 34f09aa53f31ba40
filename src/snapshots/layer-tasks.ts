/**
 * The long work on layers, typed, each task on a worker thread of its own. What the arguments mean
 * is said where the work is done (`layers/apply.ts`, `layers/pack.ts`, …).
 */

import type { Digest } from "../content/digest.js";
import type { AppliedLayer } from "../layers/apply.js";
import type { CompareTreesOptions } from "../layers/compare-trees.js";
import type { PipedBlob } from "../layers/decompressed-blob.js";
import type { LowerLink } from "../layers/hard-links.js";
import type { UnindexedLayer } from "../layers/index-builder.js";
import type { LayerLimits } from "../layers/limits.js";
import type { PackedLayer, WriterPause } from "../layers/pack.js";
import type { DiskUsage } from "../layers/usage-counter.js";
import type { IndexDifference, VerifyIndexOptions } from "../layers/verify-index.js";
import type { ByteString } from "../system/bytes.js";
import { workerFile } from "./worker-host.js";
import { WorkerPool } from "./worker-pool.js";

/** Unpack one layer blob into an empty directory. */
export interface ApplyTask {
  readonly blobPath: string;
  readonly piped?: PipedBlob | undefined;
  readonly mediaType: string;
  readonly expectedDiffId: Digest | undefined;
  readonly targetDir: string;
  /** The layer's name in errors. */
  readonly subject: string;
  readonly limits: Partial<LayerLimits>;
  readonly privileged: boolean;
}

/** Merge a layer's tree, and those between, into the index below. */
export interface IndexTask {
  readonly parentIndexPath: string | undefined;
  readonly between?: readonly UnindexedLayer[];
  readonly chainId: string;
  readonly fsDir: string;
  readonly impliedDirectories: readonly ByteString[];
  readonly lowerLinks: readonly LowerLink[];
  /** The parent chain's trees, base first. */
  readonly layerDirs: readonly string[];
  readonly outputPath: string;
  readonly isDurable?: boolean;
  readonly privileged: boolean;
}

/** Build an index once more, and compare. */
export type VerifyTask = Omit<VerifyIndexOptions, "parentIndexPath"> & {
  readonly parentIndexPath: string | undefined;
};

/** An upper directory over its chain. */
export interface UpperTask {
  readonly upperDir: string;
  readonly workDir: string;
  /** Absent for an image without layers. */
  readonly indexPath: string | undefined;
  readonly layerDirs: readonly string[];
  readonly privileged: boolean;
}

/** Pack an upper directory as a layer. */
export interface PackTask extends UpperTask {
  readonly outputPath: string;
  readonly compression: "gzip" | "zstd" | "none";
  readonly level: number | undefined;
  readonly sourceDateEpoch: number | undefined;
  /** The blob is copied elsewhere before anybody relies on it. */
  readonly isTemporary?: boolean;
  /** All that the view shows, not only what changed. */
  readonly isWhole: boolean;
  /** Given when programs wait until the upper directory has been read. */
  readonly pause: WriterPause | undefined;
}

/** What happens while packing: bytes of tar so far, or the end of reading. */
export type PackEvent = number | "read";

/** One changed path. */
export interface Change {
  readonly kind: "A" | "C" | "D";
  /** Absolute path in the view. */
  readonly path: ByteString;
}

/** A layer of fewer entries is thin: beside unpacking it, an index of its whole chain costs much. */
export const THIN_ENTRIES = 1000;

/** Changes come in batches of at most this many. */
export const CHANGE_BATCH = 1000;

// One that is long (removing a big tree) must not hold up the others.
const CHORE_WORKERS = 2;

/** Runs the tasks; of the long ones at most `workers` at once, the others wait. */
export class LayerTasks {
  readonly #pool: WorkerPool;
  /** For what people wait for: a mount must not stand behind the unpacking of fifty layers. */
  readonly #chores: WorkerPool;

  constructor(o: { workers: number }) {
    const file = workerFile(import.meta.url, "layer-worker");
    this.#pool = new WorkerPool({ file, name: "layers", size: o.workers });
    this.#chores = new WorkerPool({ file, name: "chores", size: CHORE_WORKERS });
  }

  /** Unpacks a layer; says what its tree occupies if it is a thin one. `onProgress` gets the compressed bytes so far. */
  apply(
    task: ApplyTask,
    onProgress: (compressedBytes: number) => void,
    signal: AbortSignal,
  ): Promise<AppliedLayer & { readonly usage?: DiskUsage }> {
    const onEvent = (event: unknown) => onProgress(event as number);
    return this.#pool.run("apply", task, { onEvent, signal });
  }

  /** Builds an index; returns the usage of the layer's own tree, which it has just seen whole. */
  buildIndex(task: IndexTask): Promise<DiskUsage> {
    // Layers above wait for it, while those that are to be unpacked wait for nothing.
    return this.#pool.run("buildIndex", task, { isUrgent: true });
  }

  /** Builds an index once more and compares: what `verifyIndex` returns. */
  verifyIndex(task: VerifyTask): Promise<IndexDifference | undefined> {
    return this.#pool.run("verifyIndex", task);
  }

  /** Compares two trees: what `compareTrees` returns. */
  compareTrees(task: CompareTreesOptions): Promise<string | undefined> {
    return this.#pool.run("compareTrees", task);
  }

  /** Gives an upper directory that was never mounted the attributes of the chain's root. */
  prepareUpper(task: UpperTask): Promise<void> {
    return this.#chores.run("prepareUpper", task);
  }

  /** Packs an upper directory. */
  pack(
    task: PackTask,
    onPackEvent: (event: PackEvent) => void,
    signal: AbortSignal | undefined,
  ): Promise<PackedLayer> {
    const onEvent = (event: unknown) => onPackEvent(event as PackEvent);
    return this.#pool.run("pack", task, { onEvent, signal });
  }

  /** Lists what changed, in batches of at most CHANGE_BATCH. */
  changes(
    task: UpperTask,
    onChanges: (changes: readonly Change[]) => void,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const onEvent = (event: unknown) => onChanges(event as readonly Change[]);
    return this.#chores.run("changes", task, { onEvent, signal });
  }

  /** Disk usage of a tree. */
  usage(path: string): Promise<DiskUsage> {
    return this.#chores.run("usage", path);
  }

  /** Removes a tree; one that is not there is fine. */
  removeTree(path: string): Promise<void> {
    return this.#chores.run("removeTree", path);
  }

  /** Ends the threads; tasks under way fail with UnavailableError. */
  async close(): Promise<void> {
    await Promise.all([this.#pool.close(), this.#chores.close()]);
  }
}
