/**
 * The indexes of our own chains: which there are, and how one that is missing comes about.
 *
 * An index is that of a whole chain, and of the chains of an image with a hundred layers only the last is
 * ever mounted. So the others have one only where it costs little beside the layer itself; for
 * whoever wants one that is not there it is made from the nearest one below and the trees between, all at once. What is
 * made so can be made again: an index that is missing is no damage.
 */

import { existsSync } from "node:fs";
import path from "node:path";
import { type Digest, hexOf } from "../content/digest.js";
import type { LowerLink } from "../layers/hard-links.js";
import { adoptRoot, needsChain } from "../layers/implied-directories.js";
import type { UnindexedLayer } from "../layers/index-builder.js";
import { DiskTree } from "../layers/layer-scan.js";
import type { DiskUsage } from "../layers/usage-counter.js";
import type { Database } from "../metadata/database.js";
import type { SnapshotRow } from "../metadata/snapshot-table.js";
import { overlayAttributes } from "../overlay/format.js";
import type { ByteString } from "../system/bytes.js";
import { NotFoundError } from "../system/errors.js";
import { Flights } from "./flights.js";
import type { LayerTasks } from "./layer-tasks.js";

/** A layer's tree that is complete but for what depends on the layers below. */
export interface AppliedTree {
  readonly chainId: Digest;
  readonly parent: Digest | undefined;
  readonly fsDir: string;
  /** Directories of `fsDir` that the layer does not name. */
  readonly impliedDirectories: readonly ByteString[];
  /** Hard links to files of the parent chain; none by default. */
  readonly lowerLinks?: readonly LowerLink[] | undefined;
}

/** See the file comment. */
export class ChainIndexes {
  readonly #directory: string;
  readonly #database: Database;
  readonly #tasks: LayerTasks;
  readonly #privileged: boolean;
  readonly #builds = new Flights<void, never>();

  /** @param o.directory has the snapshots' directories in it */
  constructor(o: {
    directory: string;
    database: Database;
    tasks: LayerTasks;
    privileged: boolean;
  }) {
    this.#directory = o.directory;
    this.#database = o.database;
    this.#tasks = o.tasks;
    this.#privileged = o.privileged;
  }

  /** True when the chain's index is there. */
  has(chainId: Digest): boolean {
    return existsSync(this.#path(chainId));
  }

  /**
   * The chain's index file, made durably if need be; undefined for an image without layers, which has none.
   *
   * @throws NotFoundError the chain is not unpacked
   * @throws CorruptDataError, SyscallError its layers cannot be read
   */
  async ready(chainId: Digest | undefined): Promise<string | undefined> {
    if (chainId === undefined) return undefined;
    if (!this.has(chainId)) {
      const { parent } = this.#row(chainId);
      const fsDir = this.treeOf(chainId);
      const tree = { chainId, parent: parent as Digest | undefined, fsDir, impliedDirectories: [] };
      await this.#builds.board(chainId, async () => {
        await this.build(tree, { outputPath: this.#path(chainId), isDurable: true });
      }).result;
    }
    return this.#path(chainId);
  }

  /** Settles a layer's tree, and builds its chain's index. @returns what the tree occupies; throws what `buildIndex` throws */
  build(tree: AppliedTree, o: { outputPath: string; isDurable: boolean }): Promise<DiskUsage> {
    const { chainId, parent, fsDir, impliedDirectories, lowerLinks = [] } = tree;
    return this.#tasks.buildIndex({
      ...this.#below(parent),
      chainId,
      fsDir,
      impliedDirectories,
      lowerLinks,
      layerDirs: lowerLinks.length === 0 ? [] : this.layerDirs(parent),
      ...o,
      privileged: this.#privileged,
    });
  }

  /** Settles a layer's tree without an index, where that is possible. False: it takes one. */
  settle(tree: AppliedTree): boolean {
    if (needsChain(tree)) return false;
    if (tree.parent === undefined || tree.impliedDirectories.length === 0) return true;
    const disk = new DiskTree(tree.fsDir);
    try {
      const below = new DiskTree(this.treeOf(tree.parent));
      const names = overlayAttributes(this.#privileged);
      try {
        adoptRoot(disk, below, { names, privileged: this.#privileged });
      } finally {
        below.close();
      }
    } finally {
      disk.close();
    }
    return true;
  }

  /**
   * Compares a chain's index with the trees that it was made from; one that is missing cannot be wrong.
   *
   * @returns the first difference, and the chain whose layer it is in
   * @throws CorruptDataError, NotFoundError, SyscallError index or trees cannot be read
   */
  async verify(row: SnapshotRow): Promise<{ chainId: Digest; problem: string } | undefined> {
    const chainId = row.name as Digest;
    if (!this.has(chainId)) return undefined;
    const parent = row.parent as Digest | undefined;
    const difference = await this.#tasks.verifyIndex({
      ...this.#below(parent),
      chainId,
      fsDir: this.treeOf(chainId),
      indexPath: this.#path(chainId),
      layerDirs: [...this.layerDirs(parent), this.treeOf(chainId)],
      privileged: this.#privileged,
    });
    return difference && { ...difference, chainId: difference.chainId as Digest };
  }

  /** The directory of one snapshot's own tree. */
  treeOf(chainId: Digest): string {
    return path.join(this.#directory, hexOf(chainId), "fs");
  }

  /**
   * The `fs` directories of a chain, base first; none for an image without layers.
   *
   * @throws NotFoundError
   */
  layerDirs(chainId: Digest | undefined): string[] {
    if (chainId === undefined) return [];
    const chain = this.#database.snapshots.chain(chainId);
    if (chain.length === 0) throw notUnpacked(chainId);
    return chain.map((name) => this.treeOf(name as Digest));
  }

  /** The nearest index at or below a chain, and the layers above that. */
  #below(chainId: Digest | undefined): {
    parentIndexPath: string | undefined;
    between: UnindexedLayer[];
  } {
    const between: UnindexedLayer[] = [];
    let next = chainId;
    while (next !== undefined && !this.has(next)) {
      between.push({ chainId: next, fsDir: this.treeOf(next) });
      next = this.#row(next).parent as Digest | undefined;
    }
    const parentIndexPath = next === undefined ? undefined : this.#path(next);
    return { parentIndexPath, between: between.reverse() };
  }

  #path(chainId: Digest): string {
    return path.join(this.#directory, hexOf(chainId), "index");
  }

  #row(chainId: Digest): SnapshotRow {
    const row = this.#database.snapshots.get(chainId);
    if (row !== undefined) return row;
    throw notUnpacked(chainId);
  }
}

function notUnpacked(chainId: Digest): NotFoundError {
  return new NotFoundError(`snapshot ${chainId}: not found; unpack its image first`);
}
