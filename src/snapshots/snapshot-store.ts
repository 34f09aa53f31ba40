/**
 * Committed snapshots: unpacked layers by chain ID.
 *
 * On disk `snapshots/<chain hex>/fs` is the layer's own tree and `snapshots/<chain hex>/index` the
 * merged tree of the chain, which not every chain has (see chain-indexes.ts). Invariants: a row promises a complete tree, durable unless it is
 * marked (see late-sync.ts); a directory without a row is rubbish; nothing below a snapshot's directory changes
 * while its row exists, but that the index may come. A
 * *draft* is a snapshot in the making, `snapshots/.tmp-<random>`, which no one else knows.
 */

import { randomBytes } from "node:crypto";
import { existsSync, renameSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { type Digest, hexOf } from "../content/digest.js";
import type { LowerLink } from "../layers/hard-links.js";
import { LAYER_MEDIA_TYPE } from "../layers/layer-compressor.js";
import type { DiskUsage } from "../layers/usage-counter.js";
import type { Database } from "../metadata/database.js";
import type { SnapshotRow } from "../metadata/snapshot-table.js";
import type { ByteString } from "../system/bytes.js";
import { FailedPreconditionError, NotFoundError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { ChainIndexes } from "./chain-indexes.js";
import { LateSync } from "./late-sync.js";
import type { LayerTasks } from "./layer-tasks.js";
import type { Log } from "./log.js";
import { syncDirectory, syncFileSystem } from "./sync.js";

/** A snapshot's label with the digest of its blob. It keeps nothing: blobs may go before snapshots. */
const BLOB_LABEL = "varve.blob";
const TEMPORARY = ".tmp-";
// Of a layer without an entry for its root; containerd's suite (RootPermission) wants it whatever the umask.
const ROOT_MODE = 0o755;

/** A snapshot in the making. */
export interface Draft {
  readonly directory: string;
  /** The layer's tree goes here. */
  readonly fsDir: string;
}

/** What is known of a layer when its draft is complete. */
export interface DraftLayer {
  readonly chainId: Digest;
  readonly parent: Digest | undefined;
  readonly diffId: Digest;
  /** Directories of `fsDir` that the layer does not name. */
  readonly impliedDirectories: readonly ByteString[];
  /** Hard links to files of the parent chain; none by default. */
  readonly lowerLinks?: readonly LowerLink[];
  /** What the tree occupies, where that is known. */
  readonly usage?: DiskUsage | undefined;
  /** The chain's index is wanted at once. It may be made even so. */
  readonly wantsIndex: boolean;
  /** The layer's blob is durable and kept, so that the disk may have the tree later. */
  readonly canBeMadeAgain?: boolean;
}

/** The snapshots of one root directory. */
export class SnapshotStore {
  readonly #directory: string;
  readonly #database: Database;
  readonly #tasks: LayerTasks;
  readonly #privileged: boolean;
  readonly #log: Log;
  readonly #lateSync: LateSync;
  readonly #indexes: ChainIndexes;
  /** Directories of drafts that have not ended yet. */
  readonly #drafts = new Set<string>();

  constructor(o: {
    root: string;
    database: Database;
    tasks: LayerTasks;
    privileged: boolean;
    log: Log;
  }) {
    this.#directory = path.join(o.root, "snapshots");
    this.#database = o.database;
    this.#tasks = o.tasks;
    this.#privileged = o.privileged;
    this.#log = o.log;
    const isBusy = () => this.#drafts.size > 0;
    this.#lateSync = new LateSync({ ...o, directory: this.#directory, isBusy });
    this.#indexes = new ChainIndexes({ ...o, directory: this.#directory });
  }

  /**
   * Makes the directory and reconciles it with the rows: drafts and directories without a row go,
   * and so do rows without a directory, or with one that a power cut may have damaged, with their
   * descendants. Call once, before use.
   */
  async open(): Promise<void> {
    // 0700: layers contain set-id programs that other users must not reach around the mounts.
    await fs.mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const doubtful = new Set(this.#lateSync.doubtful());
    const lost = this.list().filter(
      (row) => doubtful.has(row.name) || !existsSync(this.treeOf(row.name as Digest)),
    );
    for (const row of lost) this.#deleteLostRow(row.name);
    await this.#lateSync.flush();
    const expected = new Set(this.list().map((row) => hexOf(row.name as Digest)));
    for (const name of await fs.readdir(this.#directory)) {
      if (expected.has(name)) continue;
      this.#log.info(`snapshots: removed left-over directory ${name}`);
      await this.#tasks.removeTree(path.join(this.#directory, name));
    }
  }

  /** True when the chain is there, complete. */
  has(chainId: Digest): boolean {
    return this.#database.snapshots.get(chainId) !== undefined;
  }

  /** False when a layer of the chain is gone, as when its files were lost with the power. */
  hasAll(chainId: Digest | undefined): boolean {
    let row = chainId === undefined ? undefined : this.#database.snapshots.get(chainId);
    while (row?.parent !== undefined) row = this.#database.snapshots.get(row.parent);
    return chainId === undefined || row !== undefined;
  }

  /** @throws NotFoundError */
  get(chainId: Digest): SnapshotRow {
    const row = this.#database.snapshots.get(chainId);
    if (row !== undefined) return row;
    throw new NotFoundError(`snapshot ${chainId}: not found; unpack its image first`);
  }

  /** Every committed snapshot, sorted by chain ID. */
  list(): SnapshotRow[] {
    return this.#database.snapshots.list().filter((row) => row.kind === "committed");
  }

  /**
   * The `fs` directories of a chain, base first; none for an image without layers.
   *
   * @throws NotFoundError
   */
  layerDirs(chainId: Digest | undefined): string[] {
    return this.#indexes.layerDirs(chainId);
  }

  /** The directory of one snapshot's own tree. */
  treeOf(chainId: Digest): string {
    return this.#indexes.treeOf(chainId);
  }

  /** The blob that a chain's top layer was unpacked from or packed into last; undefined: not known. */
  blobOf(chainId: Digest): Digest | undefined {
    return this.get(chainId).labels[BLOB_LABEL] as Digest | undefined;
  }

  /** The same of those chains that are there; null: not known. */
  blobsOf(chainIds: readonly Digest[]): Map<Digest, Digest | null> {
    return this.#database.snapshots.label(chainIds, BLOB_LABEL) as Map<Digest, Digest | null>;
  }

  /** Notes that; a chain that is not there is left alone. */
  setBlob(chainId: Digest, blob: Digest): void {
    const row = this.#database.snapshots.get(chainId);
    if (row === undefined || row.labels[BLOB_LABEL] === blob) return;
    this.#database.snapshots.setLabels(chainId, { ...row.labels, [BLOB_LABEL]: blob });
  }

  /** The chain's index file, as `ChainIndexes.ready`. */
  readyIndex(chainId: Digest | undefined): Promise<string | undefined> {
    return this.#indexes.ready(chainId);
  }

  /** Starts a snapshot: an empty tree. End it with `commit` or `discard`. */
  async beginDraft(): Promise<Draft> {
    const directory = path.join(this.#directory, TEMPORARY + randomBytes(8).toString("hex"));
    const fsDir = path.join(directory, "fs");
    await fs.mkdir(fsDir, { recursive: true, mode: 0o700 });
    await fs.chmod(fsDir, ROOT_MODE);
    this.#drafts.add(directory);
    return { directory, fsDir };
  }

  /** Removes a draft; one that was committed is left alone. */
  async discardDraft(draft: Draft): Promise<void> {
    this.#drafts.delete(draft.directory);
    await this.#tasks.removeTree(draft.directory);
  }

  /**
   * Makes a draft the snapshot `layer.chainId`; durably, unless it can be made again: then the disk has it soon
   * after, and a power cut before that makes the next start forget it. One that is there already
   * wins; then the draft is removed. Only one call per chain ID at a time.
   *
   * @throws NotFoundError the parent is not there
   * @throws CorruptDataError a hard link of the layer leads nowhere
   */
  async commitDraft(draft: Draft, layer: DraftLayer): Promise<SnapshotRow> {
    if (layer.parent !== undefined) this.get(layer.parent);
    if (this.has(layer.chainId)) {
      await this.discardDraft(draft);
      return this.get(layer.chainId);
    }
    const usage = await this.#settle(draft, layer);
    const isLate = layer.canBeMadeAgain === true;
    // 1. Every file of the tree. One syncfs costs less than an fsync for each of 10,000 files.
    if (!isLate) await syncFileSystem(draft.directory);
    // 2. The name. A crash from here to 4 leaves a directory without a row: swept at the next start.
    renameSync(draft.directory, this.#path(layer.chainId));
    faultPoint("snapshot.renamed");
    // 3. The name, durably: an unmarked row must never promise what a power cut takes away.
    if (!isLate) await syncDirectory(this.#directory);
    // 4. The row.
    this.#drafts.delete(draft.directory);
    this.#insert(layer, usage, isLate);
    faultPoint("snapshot.recorded");
    return this.get(layer.chainId);
  }

  /** Brings the layers below into the tree, with an index on the way if one is wanted, or takes less than to do without. */
  async #settle(draft: Draft, layer: DraftLayer): Promise<DiskUsage> {
    const tree = { ...layer, fsDir: draft.fsDir };
    if (!layer.wantsIndex && this.#indexes.settle(tree)) {
      return layer.usage ?? (await this.#tasks.usage(draft.fsDir));
    }
    const outputPath = path.join(draft.directory, "index");
    const usage = await this.#indexes.build(tree, { outputPath, isDurable: false });
    faultPoint("index.built");
    return usage;
  }

  #insert(layer: DraftLayer, usage: DiskUsage, isLate: boolean): void {
    const row = {
      name: layer.chainId,
      ...(layer.parent === undefined ? {} : { parent: layer.parent }),
      kind: "committed" as const,
      diffId: layer.diffId,
      sizeBytes: usage.bytes,
      inodes: usage.inodes,
    };
    if (!isLate) {
      this.#database.snapshots.insert(row);
      return;
    }
    this.#database.lazyTransaction(() => {
      this.#database.snapshots.insert(row);
      this.#lateSync.mark(layer.chainId);
    });
  }

  /** Compares a chain's index with its layers' trees, as `ChainIndexes.verify`. */
  verifyIndex(row: SnapshotRow): Promise<{ chainId: Digest; problem: string } | undefined> {
    return this.#indexes.verify(row);
  }

  /**
   * Compares a snapshot's tree with what its layer's blob unpacks to, byte by byte, beside it on the disk.
   *
   * @returns the first difference, for a person
   * @throws CorruptDataError the blob is damaged, or is not the snapshot's layer
   * @throws ResourceExhaustedError no space for the second tree; CancelledError
   */
  async verifyContent(
    row: SnapshotRow,
    source: { blob: Digest; blobPath: string; mediaType: string | undefined },
    signal: AbortSignal = new AbortController().signal,
  ): Promise<string | undefined> {
    const draft = await this.beginDraft();
    try {
      const applied = await this.#tasks.apply(
        {
          blobPath: source.blobPath,
          mediaType: source.mediaType ?? LAYER_MEDIA_TYPE.none,
          expectedDiffId: row.diffId,
          targetDir: draft.fsDir,
          subject: `layer ${source.blob}`,
          privileged: this.#privileged,
          // It was accepted once, by whatever limits there were.
          limits: { ratio: Number.MAX_VALUE, tarBytes: Number.MAX_VALUE },
        },
        () => undefined,
        signal,
      );
      const parent = row.parent as Digest | undefined;
      // Which also moves what belongs elsewhere, and joins hard links to the layers below.
      await this.#settle(draft, {
        ...{ ...applied, chainId: row.name as Digest, diffId: applied.diffId, parent },
        wantsIndex: false,
      });
      return await this.#tasks.compareTrees({
        wantedDir: draft.fsDir,
        actualDir: this.treeOf(row.name as Digest),
        untimedDirectories: applied.impliedDirectories,
      });
    } finally {
      await this.discardDraft(draft);
    }
  }

  /** Waits until all snapshots are durable. */
  settle(): Promise<void> {
    return this.#lateSync.flush();
  }

  /**
   * Removes a snapshot: the row, then the directory.
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it has children
   */
  async remove(chainId: Digest): Promise<void> {
    const children = this.#database.snapshots.children(this.get(chainId).name);
    if (children.length > 0) {
      throw new FailedPreconditionError(
        `remove snapshot ${chainId}: ${children.length} snapshots are built on it, such as ${children[0]!.name}`,
      );
    }
    this.#database.snapshots.delete(chainId);
    await this.discard([chainId]);
  }

  /**
   * Removes the directories of snapshots whose rows are gone. The names are free when this returns
   * its promise, so that the same chain may be unpacked again at once.
   */
  discard(chainIds: readonly string[]): Promise<void> {
    const moved = chainIds
      .map((chainId) => this.#moveAway(chainId as Digest))
      .filter((directory) => directory !== undefined);
    if (moved.length > 0) faultPoint("gc.discarded");
    return this.#removeAll(moved);
  }

  async #removeAll(directories: readonly string[]): Promise<void> {
    for (const directory of directories) {
      await this.#tasks.removeTree(directory).catch((error: unknown) => {
        this.#log.warn(`snapshots: ${directory} is left for the next start to remove`, error);
      });
    }
  }

  #moveAway(chainId: Digest): string | undefined {
    const removed = path.join(this.#directory, TEMPORARY + randomBytes(8).toString("hex"));
    try {
      renameSync(this.#path(chainId), removed);
      return removed;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return undefined;
    }
  }

  #path(chainId: Digest): string {
    return path.join(this.#directory, hexOf(chainId));
  }

  #deleteLostRow(name: string): void {
    for (const child of this.#database.snapshots.children(name)) this.#deleteLostRow(child.name);
    if (!this.#database.snapshots.delete(name)) return;
    this.#log.warn(`snapshots: ${name} had lost files on disk; it will be unpacked again`);
  }
}
