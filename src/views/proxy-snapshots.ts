/**
 * The snapshots of a containerd, in a key space of their own: containerd's garbage collector removes
 * what it does not know, so it must not see ours.
 *
 * Keys are opaque; directories are named by number. An active snapshot is an upper directory over
 * its parent's chain. Two forms of mounts come out: a bind of a FUSE mount of ours, which serves the
 * merged tree, and the kernel overlayfs' own, over the same directories. Commit turns the upper into a
 * layer as it stands; nothing is copied.
 *
 * Invariants: a row's directory exists (an empty one is made again when a power cut took it); a
 * committed directory never changes; children keep their parent's row by a foreign key. Calls on one
 * key exclude each other; those on different keys do not wait.
 */

import type { DiskUsage } from "../layers/usage-counter.js";
import type { ContainerdRow } from "../metadata/containerd-table.js";
import type { Database } from "../metadata/database.js";
import type { Labels } from "../metadata/labels.js";
import type { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { syncFileSystem } from "../snapshots/sync.js";
import {
  AlreadyExistsError,
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
} from "../system/errors.js";
import { KeyLocks } from "./key-locks.js";
import { ProxyChains } from "./proxy-chains.js";
import { ProxyDirectories } from "./proxy-directories.js";
import { bindMount, type MountForm, overlayMount, type ProxyMount } from "./proxy-mount-forms.js";
import { ProxyMounts, type ProxyMountsOptions } from "./proxy-mounts.js";
import { recoverDirectories } from "./proxy-recovery.js";
import type { NewProxySnapshot, ProxyCommit } from "./proxy-requests.js";
import { CHAIN_LABEL, type Sharing, shareChain } from "./proxy-shared-chains.js";
import {
  activeOf,
  baseOf,
  type HeldUpper,
  type LowerChain,
  type MountLookup,
  type ShownMount,
  upperOf,
} from "./proxy-uppers.js";

// Namespace and number come from containerd's metadata layer; its own tests talk without them.
const UNPACK_KEY = /^(?:[^/]+\/[0-9]+\/)?extract-/;

/** The snapshots of one root directory. */
export class ProxySnapshots {
  readonly #database: Database;
  readonly #tasks: LayerTasks;
  readonly #log: Log;
  readonly #form: MountForm;
  readonly #directories: ProxyDirectories;
  readonly #chains: ProxyChains;
  readonly #mounts: ProxyMounts;
  readonly #sharing: Sharing;
  readonly #lookup: MountLookup;
  readonly #locks = new KeyLocks();
  #onUnshared: () => void = () => undefined;

  constructor(
    o: Omit<ProxyMountsOptions, "isAhead"> & {
      root: string;
      database: Database;
      tasks: LayerTasks;
      /** What containers get; what containerd unpacks into is always the kernel's. */
      form: MountForm;
      sharing: Sharing;
    },
  ) {
    const { database, tasks, log, sharing } = o;
    this.#sharing = sharing;
    this.#database = database;
    this.#tasks = tasks;
    this.#log = log;
    this.#form = o.form;
    const directories = new ProxyDirectories({ root: o.root, tasks, log });
    this.#directories = directories;
    this.#chains = new ProxyChains({ database, directories, tasks, log, sharing });
    this.#mounts = new ProxyMounts({ ...o, isAhead: o.form === "fuse" });
    this.#lookup = {
      directories,
      mounts: this.#mounts,
      row: (id) => database.containerd.getById(id),
    };
  }

  /** Goes on serving what an earlier daemon left to the keeper. Call once, before `open`. */
  async takeOver(): Promise<void> {
    await this.#mounts.open();
    await Promise.all(this.list().map((row) => this.#resume(row)));
  }

  /**
   * Reconciles directories with rows, detaches dead mounts (of what was not taken over) and goes on building. The
   * rest is mounted when containerd asks. Call once, before use.
   *
   * @param o.onUnshared one of our own layers that containerd shared may be garbage now
   */
  async open(o: { onUnshared(): void }): Promise<void> {
    this.#onUnshared = o.onUnshared;
    await this.#directories.open(new Set(this.list().map((row) => row.id)));
    this.#mounts.detachDead();
    recoverDirectories(this.#database, this.#directories, this.#log);
    this.#chains.goOn();
  }

  /** Every snapshot, the oldest first. */
  list(): ContainerdRow[] {
    return this.#database.containerd.list();
  }

  /** @throws NotFoundError */
  get(key: string): ContainerdRow {
    const row = this.#database.containerd.get(key);
    if (row !== undefined) return row;
    throw new NotFoundError(`snapshot ${JSON.stringify(key)}: not found`);
  }

  /**
   * Makes an active snapshot or a view, and mounts it if it is to be served by FUSE.
   *
   * @throws InvalidArgumentError an empty key, a label that is too long, or a parent that is not committed
   * @throws AlreadyExistsError the key is taken, or what it is for is here (see proxy-shared-chains.ts)
   * @throws NotFoundError no such parent
   */
  prepare(o: NewProxySnapshot): Promise<readonly ProxyMount[]> {
    if (o.key === "") throw new InvalidArgumentError("prepare snapshot: the key is empty");
    return this.#locks.exclusive(o.key, async () => {
      await this.#offerShared(o);
      const row = this.#create(o);
      try {
        // The disk and the thread that mounts work side by side.
        const durable = this.#database.flush();
        durable.catch(() => undefined);
        const mounts = await this.#mountsOf(row);
        await durable;
        return mounts;
      } catch (error) {
        await this.#discard(row);
        throw error;
      }
    });
  }

  /**
   * How to mount an active snapshot or a view: what `prepare` returned.
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it is committed
   */
  mounts(key: string): Promise<readonly ProxyMount[]> {
    return this.#locks.exclusive(key, async () => {
      const row = this.get(key);
      if (row.kind !== "committed") return this.#mountsOf(row);
      throw new FailedPreconditionError(
        `mounts of snapshot ${JSON.stringify(key)}: it is committed; prepare a child or a view of it`,
      );
    });
  }

  /**
   * Makes an active snapshot a committed one. Returns before the chain's index is built; views of it
   * wait for that.
   *
   * @throws NotFoundError no such key, or no such parent
   * @throws AlreadyExistsError the name is taken
   * @throws FailedPreconditionError it is not active, or the parent is not committed
   * @throws InvalidArgumentError an empty name, another parent, or a label that is too long
   */
  commit(o: ProxyCommit): Promise<void> {
    if (o.name === "") throw new InvalidArgumentError("commit snapshot: the name is empty");
    return this.#locks.exclusive(o.key, async () => {
      const { id } = this.#activeRow(o);
      await this.#mounts.unmount(id);
      const row = this.#database.lazyTransaction(() => {
        const parentId = this.#commitParent(this.#activeRow(o), o.parent);
        return this.#database.containerd.commit(id, o.name, parentId, o.labels);
      });
      await this.#database.flush();
      this.#chains.begin(row);
    });
  }

  /**
   * Removes a snapshot; its directory goes in the background (see `cleanup`).
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it has children
   */
  remove(key: string): Promise<void> {
    return this.#locks.exclusive(key, async () => {
      const { id, chainId } = this.get(key);
      this.#checkChildless(id, key);
      await this.#chains.settle(id);
      await this.#mounts.unmount(id);
      // Should a power cut undo this, containerd does not know the snapshot and removes it again.
      this.#database.lazyTransaction(() => {
        this.#checkChildless(id, key);
        this.#database.containerd.delete(id);
      });
      this.#directories.remove(id);
      if (chainId !== undefined) this.#onUnshared();
    });
  }

  /** Replaces the labels. @throws NotFoundError; InvalidArgumentError a label is too long */
  setLabels(key: string, change: (labels: Labels) => Labels): ContainerdRow {
    return this.#database.transaction(() => {
      const row = this.get(key);
      this.#database.containerd.setLabels(row, change(row.labels));
      return this.get(key);
    });
  }

  /** Disk usage of the snapshot's own layer; nothing for a view. @throws NotFoundError */
  async usage(key: string): Promise<DiskUsage> {
    const row = this.get(key);
    if (row.kind === "committed") return this.#chains.ready(row);
    if (row.kind === "active") return this.#tasks.usage(this.#directories.fs(row.id));
    return { bytes: 0, inodes: 0 };
  }

  /** Waits until the directories of removed snapshots are gone. */
  cleanup(): Promise<void> {
    return this.#directories.settle();
  }

  /**
   * Runs `work` on the active snapshot that mounts show; what programs wrote until now is in its upper.
   *
   * @throws UnsupportedError the mounts are none of ours
   */
  async withUpper<R>(
    mounts: readonly ShownMount[],
    work: (upper: HeldUpper) => Promise<R>,
  ): Promise<R> {
    const { key } = activeOf(this.#lookup, mounts);
    return await this.#locks.exclusive(key, async () => {
      const { id, parentId } = activeOf(this.#lookup, mounts);
      const target = this.#mounts.targetOf(id);
      // Pages that programs dirtied through mappings are in the view's page cache.
      if (target !== undefined) await syncFileSystem(target);
      return await work({
        ...{ id, parentId },
        upperDir: this.#directories.fs(id),
        workDir: this.#directories.work(id),
        indexPath: this.#directories.index(id),
        lower: () => this.#lower(this.get(key)),
      });
    });
  }

  /** containerd's key of the active snapshot that mounts show. @throws UnsupportedError none of ours */
  keyOf(mounts: readonly ShownMount[]): string {
    return activeOf(this.#lookup, mounts).key;
  }

  /** The committed snapshot that mounts show as it is; none: an empty root. @throws UnsupportedError */
  baseOf(mounts: readonly ShownMount[]): number | undefined {
    return baseOf(this.#lookup, mounts);
  }

  /** A directory on the snapshots' file system for as long as `work` takes. */
  withTemporary<R>(work: (directory: string) => Promise<R>): Promise<R> {
    return this.#directories.withTemporary(work);
  }

  /**
   * Ends all mounts, also those in use; with `keepMounts` leaves them in place, dead. Waits for
   * indexes that are being built.
   */
  async close(o: { keepMounts: boolean }): Promise<void> {
    if (!o.keepMounts) {
      await Promise.all(
        this.list().map(async ({ id }) => {
          await this.#mounts.unmount(id).catch((error: unknown) => {
            this.#log.warn(`containerd: snapshot ${id} is left mounted`, error);
          });
        }),
      );
    }
    await this.#chains.close();
    await this.#mounts.close();
    await this.#directories.settle();
  }

  async #resume(row: ContainerdRow): Promise<void> {
    if (row.kind === "committed" || !this.#mounts.isKept(row.id)) return;
    const taken = await this.#mounts.resume(row.id, await this.#mountTask(row));
    if (taken) this.#log.info(`containerd: snapshot ${row.key}: taken over from the last daemon`);
  }

  /** Not yet durable. */
  #create({ key, kind, labels, parent }: NewProxySnapshot): ContainerdRow {
    return this.#database.lazyTransaction(() => {
      const parentId = parent === "" ? undefined : this.#committed(parent, key).id;
      const row = this.#database.containerd.insert({ key, kind, labels, parentId });
      this.#directories.create(row.id, parentId);
      return row;
    });
  }

  /** @throws AlreadyExistsError what the snapshot is to be unpacked for is here */
  async #offerShared({ key, kind, parent, labels }: NewProxySnapshot): Promise<void> {
    if (kind !== "active" || this.#database.containerd.get(key) !== undefined) return;
    const base = parent === "" ? undefined : this.#committed(parent, key);
    const { [CHAIN_LABEL]: chainId = "" } = labels;
    // containerd has no blob to unpack it from again after a power cut.
    if (this.#database.unsynced.has(chainId)) await this.#sharing.settle();
    if (!shareChain(this.#database, this.#directories, labels, base)) return;
    throw new AlreadyExistsError(`snapshot ${chainId}: varve has it, nothing is left to unpack`);
  }

  #committed(parent: string, key: string): ContainerdRow {
    const row = this.get(parent);
    if (row.kind === "committed") return row;
    throw new InvalidArgumentError(
      `prepare snapshot ${JSON.stringify(key)}: its parent ${JSON.stringify(parent)} is not committed`,
    );
  }

  async #discard({ id }: ContainerdRow): Promise<void> {
    await this.#mounts.unmount(id);
    this.#database.containerd.delete(id);
    this.#directories.remove(id);
  }

  #activeRow({ key, name }: ProxyCommit): ContainerdRow {
    const row = this.get(key);
    if (row.kind === "active") return row;
    throw new FailedPreconditionError(
      `commit snapshot ${JSON.stringify(key)} as ${JSON.stringify(name)}: it is not active`,
    );
  }

  #commitParent(row: ContainerdRow, parent: string): number | undefined {
    if (parent === "" || parent === row.parent) return row.parentId;
    const commit = `commit snapshot ${JSON.stringify(row.key)} onto ${JSON.stringify(parent)}`;
    if (row.parentId !== undefined) {
      throw new InvalidArgumentError(`${commit}: it was prepared on ${JSON.stringify(row.parent)}`);
    }
    const { id, kind } = this.get(parent);
    if (kind === "committed") return id;
    throw new FailedPreconditionError(`${commit}: that one is not committed`);
  }

  #checkChildless(id: number, key: string): void {
    const children = this.#database.containerd.children(id);
    if (children.length === 0) return;
    throw new FailedPreconditionError(
      `remove snapshot ${JSON.stringify(key)}: ${children.length} snapshots are built on it, ` +
        `such as ${JSON.stringify(children[0]!.key)}`,
    );
  }

  async #mountsOf(row: ContainerdRow): Promise<readonly ProxyMount[]> {
    const { id, key, parentId } = row;
    const isReadOnly = row.kind === "view";
    const fsDir = this.#directories.fs(id);
    if (parentId === undefined) return [bindMount(fsDir, isReadOnly)];
    if (this.#form === "overlay" || (!isReadOnly && UNPACK_KEY.test(key))) {
      const upper = isReadOnly ? {} : { upperDir: fsDir, workDir: this.#directories.work(id) };
      return [overlayMount({ layers: this.#layerDirs(row), ...upper })];
    }
    return [bindMount(await this.#mounts.mount(id, await this.#mountTask(row)), isReadOnly)];
  }

  async #mountTask(row: ContainerdRow) {
    return { ...upperOf(row, this.#directories), ...(await this.#lower(row)) };
  }

  #layerDirs(row: ContainerdRow): string[] {
    return this.#chains.ancestors(row).map((layer) => this.#directories.fs(layer.id));
  }

  async #lower(row: ContainerdRow): Promise<LowerChain> {
    const { parentId } = row;
    if (parentId === undefined) return { indexPath: undefined, layerDirs: [] };
    const indexPath = await this.#chains.indexOf(this.#database.containerd.getById(parentId)!);
    return { indexPath, layerDirs: this.#layerDirs(row) };
  }
}
