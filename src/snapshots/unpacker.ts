/**
 * Unpacking an image's layers into snapshots: one flight per chain ID, layers side by side.
 *
 * Each missing layer is applied into a draft of its own as soon as a worker is free; it becomes a
 * snapshot when its parent is one, because what it leaves open depends on that. The last one gets an index, which
 * is what a mount needs; so do large ones, beside the unpacking of those above.
 */

import type { Descriptor } from "../content/descriptor.js";
import { chainIdsOf, type Digest } from "../content/digest.js";
import { type MakeRoom, withRoom } from "../content/disk-full.js";
import type { LayerLimits } from "../layers/limits.js";
import { CancelledError, NotFoundError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { type FlightCrew, Flights, type Passage } from "./flights.js";
import { type LayerTasks, THIN_ENTRIES } from "./layer-tasks.js";
import type { Draft, SnapshotStore } from "./snapshot-store.js";

/** One layer of an image. */
export interface LayerToUnpack {
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
  /** Set while the blob is still on its way: resolves when it is in the content store. */
  readonly arrival?: Promise<void>;
  /** Whether the blob was made or unpacked here before: however little there is of it, its content is wanted then. */
  readonly isKnown?: () => boolean;
}

/** How far one layer is. */
export interface UnpackProgress {
  /** The layer blob's digest. */
  readonly id: string;
  readonly action: "waiting" | "unpacking" | "indexing" | "done" | "exists";
  /** Compressed bytes. */
  readonly current: number;
  readonly total: number;
}

/** Where layer blobs lie. */
export interface LayerBlobs {
  has(digest: Digest): boolean;
  path(digest: Digest): string;
}

/** What `unpack` accepts. */
export interface UnpackOptions {
  readonly onProgress?: ((event: UnpackProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Step {
  readonly layer: LayerToUnpack;
  readonly chainId: Digest;
  readonly parent: Digest | undefined;
  readonly isTop: boolean;
}

/** Unpacks layers; knows what is under way. */
export class Unpacker {
  readonly #snapshots: SnapshotStore;
  readonly #blobs: LayerBlobs;
  readonly #tasks: LayerTasks;
  readonly #privileged: boolean;
  readonly #limits: Partial<LayerLimits>;
  readonly #makeRoom: MakeRoom | undefined;
  readonly #flights = new Flights<void, UnpackProgress>();
  /** The chains of the calls under way. */
  readonly #chains = new Set<readonly Digest[]>();

  constructor(o: {
    snapshots: SnapshotStore;
    blobs: LayerBlobs;
    tasks: LayerTasks;
    privileged: boolean;
    /** Bounds on each layer, where they differ from the defaults. */
    limits?: Partial<LayerLimits>;
    /** Called when the disk is full; then the layer is unpacked again. */
    makeRoom?: MakeRoom;
  }) {
    this.#snapshots = o.snapshots;
    this.#blobs = o.blobs;
    this.#tasks = o.tasks;
    this.#privileged = o.privileged;
    this.#limits = o.limits ?? {};
    this.#makeRoom = o.makeRoom;
  }

  /** Chain IDs that calls under way need or make; garbage collection must leave them. */
  busy(): Iterable<string> {
    return [...this.#chains].flat();
  }

  /**
   * Makes sure that all layers (base first) are snapshots, and that they can be mounted; returns the top chain ID,
   * undefined for an image without layers. Layers that others unpack are waited for. After a failure or an abort
   * nothing is left of what this call alone wanted, except whole layers.
   *
   * @throws CorruptDataError a layer is damaged or is not what its diff ID says
   * @throws ResourceExhaustedError a layer is beyond its limits
   * @throws NotFoundError a layer's blob is missing
   * @throws CancelledError
   */
  async unpack(
    layers: readonly LayerToUnpack[],
    options: UnpackOptions = {},
  ): Promise<Digest | undefined> {
    const chainIds = chainIdsOf(layers.map((layer) => layer.diffId));
    const steps = layers.map((layer, position) => ({
      layer,
      chainId: chainIds[position]!,
      parent: chainIds[position - 1],
      isTop: position === layers.length - 1,
    }));
    // What a snapshot stands on is there as well.
    const known = steps.findLastIndex((step) => this.#snapshots.has(step.chainId));
    for (const step of steps.slice(0, known + 1)) options.onProgress?.(progressOf(step, "exists"));
    const missing = steps.slice(known + 1);
    this.#checkBlobs(missing);
    this.#chains.add(chainIds);
    try {
      await this.#fly(missing, options);
      // It may have been unpacked as a layer in the midst of another image.
      await this.#snapshots.readyIndex(chainIds.at(-1));
    } finally {
      this.#chains.delete(chainIds);
    }
    return chainIds.at(-1);
  }

  /** Waits until everything under way has ended, on disk too. */
  async settle(): Promise<void> {
    await this.#flights.settle();
    await this.#snapshots.settle();
  }

  #checkBlobs(steps: readonly Step[]): void {
    for (const { layer, chainId } of steps) {
      if (layer.arrival !== undefined || this.#blobs.has(layer.descriptor.digest)) continue;
      throw new NotFoundError(
        `unpack ${chainId}: layer ${layer.descriptor.digest} is not in the content store; load the image again`,
      );
    }
  }

  async #fly(steps: readonly Step[], options: UnpackOptions): Promise<void> {
    throwIfAborted(options.signal);
    // Base first, so that a child finds its parent's flight.
    const flights = new Map<Digest, Promise<void>>();
    const passages: Passage<void>[] = [];
    for (const step of steps) {
      const parent = step.parent === undefined ? undefined : flights.get(step.parent);
      const passage = this.#flights.board(
        step.chainId,
        (crew) => this.#unpackLayer(step, parent ?? Promise.resolve(), crew),
        options.onProgress,
      );
      flights.set(step.chainId, passage.flight);
      passages.push(passage);
    }
    const abort = () => {
      for (const passage of passages) void passage.leave();
    };
    options.signal?.addEventListener("abort", abort, { once: true });
    try {
      await Promise.all(passages.map((passage) => passage.result));
    } catch (error) {
      throwIfAborted(options.signal);
      throw error;
    } finally {
      options.signal?.removeEventListener("abort", abort);
      // After a failure the other layers are pointless, unless another caller wants them too.
      await Promise.all(passages.map((passage) => passage.leave()));
    }
  }

  async #unpackLayer(
    step: Step,
    parent: Promise<void>,
    crew: FlightCrew<UnpackProgress>,
  ): Promise<void> {
    // It may have become one while this flight waited for a cancelled one to end.
    if (this.#snapshots.has(step.chainId)) return;
    await step.layer.arrival;
    await withRoom(this.#makeRoom, () => this.#unpackIntoDraft(step, parent, crew));
    crew.report(progressOf(step, "done"));
  }

  async #unpackIntoDraft(
    step: Step,
    parent: Promise<void>,
    crew: FlightCrew<UnpackProgress>,
  ): Promise<void> {
    crew.report(progressOf(step, "waiting"));
    const draft = await this.#snapshots.beginDraft();
    faultPoint("unpack.begun");
    try {
      await this.#applyAndCommit(step, draft, parent, crew);
    } catch (error) {
      await this.#snapshots.discardDraft(draft);
      throw error;
    }
  }

  async #applyAndCommit(
    step: Step,
    draft: Draft,
    parent: Promise<void>,
    crew: FlightCrew<UnpackProgress>,
  ): Promise<void> {
    const { descriptor, diffId } = step.layer;
    const apply = this.#tasks.apply(
      {
        blobPath: this.#blobs.path(descriptor.digest),
        mediaType: descriptor.mediaType,
        expectedDiffId: diffId,
        targetDir: draft.fsDir,
        subject: `layer ${descriptor.digest}`,
        privileged: this.#privileged,
        limits: step.layer.isKnown?.() ? { ...this.#limits, ratio: Infinity } : this.#limits,
      },
      (bytes) => crew.report({ ...progressOf(step, "unpacking"), current: bytes }),
      crew.signal,
    );
    const [applied] = await settleBoth(apply, parent);
    // The worker may have been done before it heard of the abort.
    throwIfAborted(crew.signal);
    faultPoint("unpack.applied");
    crew.report(progressOf(step, "indexing"));
    await this.#snapshots.commitDraft(draft, {
      chainId: step.chainId,
      parent: step.parent,
      diffId,
      impliedDirectories: applied.impliedDirectories,
      lowerLinks: applied.lowerLinks,
      usage: applied.usage,
      wantsIndex: step.isTop || applied.entries >= THIN_ENTRIES,
      canBeMadeAgain: true,
    });
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new CancelledError("unpack: cancelled");
}

/** Both results; rejects only when both have settled, so that nothing writes into a removed draft. */
async function settleBoth<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([a, b]);
  return Promise.all([a, b]);
}

function progressOf(step: Step, action: UnpackProgress["action"]): UnpackProgress {
  const { digest, size } = step.layer.descriptor;
  const isComplete = action === "done" || action === "exists" || action === "indexing";
  return { id: digest, action, current: isComplete ? size : 0, total: size };
}
