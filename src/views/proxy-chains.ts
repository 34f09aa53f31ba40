/**
 * Chain indexes of containerd's committed snapshots. containerd commits inside the one write
 * transaction of its own database, so the index is built right after, in the background, parents first;
 * who needs it sooner waits. A layer whose usage stands in the database has a durable index; the
 * others are built again when the daemon starts.
 */

import type { DiskUsage } from "../layers/usage-counter.js";
import type { ContainerdRow } from "../metadata/containerd-table.js";
import type { Database } from "../metadata/database.js";
import type { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { syncFileSystem } from "../snapshots/sync.js";
import { NotFoundError } from "../system/errors.js";
import type { ProxyDirectories } from "./proxy-directories.js";
import type { Sharing } from "./proxy-shared-chains.js";

/** Builds and knows the indexes of one key space. */
export class ProxyChains {
  readonly #database: Database;
  readonly #directories: ProxyDirectories;
  readonly #tasks: LayerTasks;
  readonly #log: Log;
  readonly #sharing: Sharing;
  /** Builds under way. */
  readonly #builds = new Map<number, Promise<DiskUsage>>();
  /** Built, not yet durable. */
  readonly #built = new Map<number, DiskUsage>();
  #flushing: Promise<void> | undefined;
  #isClosed = false;

  constructor(o: {
    database: Database;
    directories: ProxyDirectories;
    tasks: LayerTasks;
    log: Log;
    sharing: Sharing;
  }) {
    this.#database = o.database;
    this.#directories = o.directories;
    this.#tasks = o.tasks;
    this.#log = o.log;
    this.#sharing = o.sharing;
  }

  /** Starts to build the index of a committed snapshot. Failures are logged. */
  begin(row: ContainerdRow): void {
    this.ready(row).catch((error: unknown) => {
      // The end of the daemon ends builds; the next one starts them again.
      if (this.#isClosed) return;
      this.#log.warn(`containerd: no chain index for snapshot ${row.id}`, error);
    });
  }

  /** Builds what the last daemon did not finish. */
  goOn(): void {
    for (const row of this.#database.containerd.list()) {
      if (row.kind === "committed" && row.sizeBytes === undefined) this.begin(row);
    }
  }

  /**
   * Waits for a committed snapshot's index.
   *
   * @returns the usage of its own layer
   * @throws CorruptDataError the layer does not fit on its parent
   */
  async ready(row: ContainerdRow): Promise<DiskUsage> {
    const { id } = row;
    const { sizeBytes, inodes } = this.#database.containerd.getById(id) ?? row;
    if (sizeBytes !== undefined && inodes !== undefined) return { bytes: sizeBytes, inodes };
    const built = this.#built.get(id);
    if (built !== undefined) return built;
    const current = this.#builds.get(id);
    if (current !== undefined) return current;
    const build = this.#build(row).finally(() => this.#builds.delete(id));
    this.#builds.set(id, build);
    return build;
  }

  /** Waits for a committed snapshot's index, which not all layers of ours have from the start. Throws as `ready`. */
  async indexOf(row: ContainerdRow): Promise<string> {
    await this.ready(row);
    if (row.chainId !== undefined) await this.#sharing.readyIndex(row.chainId);
    return this.#directories.index(row.id);
  }

  /** Waits until nothing reads the snapshot's directory to build its index. */
  async settle(id: number): Promise<void> {
    await this.#builds.get(id)?.catch(() => undefined);
    this.#built.delete(id);
  }

  /** The chain below a snapshot, base first. */
  ancestors(row: ContainerdRow): ContainerdRow[] {
    const chain: ContainerdRow[] = [];
    let next = row.parentId;
    while (next !== undefined) {
      const parent = this.#database.containerd.getById(next);
      if (parent === undefined) throw new NotFoundError(`snapshot ${next}: it was removed`);
      chain.push(parent);
      next = parent.parentId;
    }
    return chain.reverse();
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#builds.values());
    await this.#flushing;
  }

  async #build(row: ContainerdRow): Promise<DiskUsage> {
    const parent =
      row.parentId === undefined ? undefined : this.#database.containerd.getById(row.parentId);
    const usage = await this.#tasks.buildIndex({
      parentIndexPath: parent && (await this.indexOf(parent)),
      chainId: `containerd/${row.id}`,
      fsDir: this.#directories.fs(row.id),
      // containerd's differ settled both when it wrote the tree.
      impliedDirectories: [],
      lowerLinks: [],
      layerDirs: [],
      outputPath: this.#directories.index(row.id),
      privileged: true,
    });
    this.#directories.removeWork(row.id);
    this.#built.set(row.id, usage);
    this.#flushing ??= this.#flush().finally(() => {
      this.#flushing = undefined;
    });
    return usage;
  }

  /** Makes layers durable, all that were built meanwhile with one flush, and says so in the database. */
  async #flush(): Promise<void> {
    while (this.#built.size > 0) {
      const batch = [...this.#built];
      try {
        await syncFileSystem(this.#directories.path);
      } catch (error) {
        // They stay in `#built` for the next flush, or are built again at the next start.
        this.#log.warn("containerd: committed snapshots are not on disk yet", error);
        return;
      }
      this.#database.transaction(() => {
        for (const [id, { bytes, inodes }] of batch) {
          this.#database.containerd.setUsage(id, bytes, inodes);
        }
      });
      for (const [id] of batch) this.#built.delete(id);
    }
  }
}
