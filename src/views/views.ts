/**
 * Views: what users mount. A view is a chain of snapshots with, unless it is read-only, an upper
 * directory for what is written. It lives until it is removed; mounted or not is a state of it.
 *
 * Invariants: `views/<id>` below the root exists before the row and goes after it. The row's
 * `mounted` is the state that the user asked for; after a crash it is made true again, or cleared.
 * Operations on one view exclude each other; those on different views do not wait.
 */

import type { DiskUsage } from "../layers/usage-counter.js";
import type { Database } from "../metadata/database.js";
import type { EventLog } from "../metadata/event-log.js";
import type { IoMode, ViewRow } from "../metadata/view-table.js";
import type { Change, LayerTasks, UpperTask } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import type { SnapshotStore } from "../snapshots/snapshot-store.js";
import { syncFileSystem } from "../snapshots/sync.js";
import { bootId } from "../system/boot-id.js";
import { NotFoundError } from "../system/errors.js";
import type { Tally } from "../system/tally.js";
import { idMapsOf } from "./id-maps.js";
import type { IoInUse } from "./io-mode.js";
import { KeyLocks } from "./key-locks.js";
import { restoreMounts } from "./restart-policy.js";
import type { SessionKeeper } from "./session-keeper.js";
import { ViewDirectories } from "./view-directories.js";
import { readSteadily, type UpperWork } from "./view-hold.js";
import { ViewMounts } from "./view-mounts.js";
import { checkViewName, generateViewName } from "./view-names.js";
import {
  alreadyMounted,
  isForGuest,
  isTransient,
  labelsOf,
  type MountWishes,
  type NewView,
  nameIsTaken,
  notMounted,
  stillMounted,
} from "./view-requests.js";
import { selectView } from "./view-selection.js";

/** The views of one root directory. */
export class Views {
  readonly #database: Database;
  readonly #snapshots: SnapshotStore;
  readonly #tasks: LayerTasks;
  readonly #log: Log;
  readonly #events: EventLog | undefined;
  readonly #privileged: boolean;
  readonly #io: IoMode;
  readonly #directories: ViewDirectories;
  readonly #mounts: ViewMounts;
  readonly #locks = new KeyLocks();
  #isClosing = false;

  constructor(o: {
    root: string;
    state: string;
    database: Database;
    snapshots: SnapshotStore;
    tasks: LayerTasks;
    privileged: boolean;
    /** Threads that serve mounts. */
    workers: number;
    /** The I/O mode of views for which none was asked. */
    io: IoMode;
    /** Their entry, for tests. */
    workerFile?: string;
    /** How long a forced unmount waits for them, for tests. */
    forceGraceMs?: number;
    /** Is told what becomes of views. */
    events?: EventLog;
    /** Keep the CPUs awake while requests come in bursts. */
    quickWakeUps: boolean;
    /** Absent: views end with their daemon, and are mounted again by the next. */
    keeper?: SessionKeeper | undefined;
    /** Gets the counts of each mounted view, by its ID. */
    tallies?: Map<string, Tally>;
    log: Log;
  }) {
    this.#database = o.database;
    this.#snapshots = o.snapshots;
    this.#tasks = o.tasks;
    this.#log = o.log;
    this.#events = o.events;
    this.#privileged = o.privileged;
    this.#io = o.io;
    this.#directories = new ViewDirectories({ root: o.root, tasks: o.tasks, log: o.log });
    this.#mounts = new ViewMounts({
      state: o.state,
      workers: o.workers,
      workerFile: o.workerFile,
      forceGraceMs: o.forceGraceMs,
      quickWakeUps: o.quickWakeUps,
      ...{ keeper: o.keeper, tallies: o.tallies, log: o.log },
      onLost: (viewId) => this.#markUnmounted(viewId),
    });
  }

  /** Goes on serving what an earlier daemon left to the keeper. Call once, before `open`. */
  async takeOver(): Promise<void> {
    await Promise.all(this.#database.views.list().map((view) => this.#resume(view)));
  }

  /**
   * Reconciles directories with rows, detaches dead mounts (of what was not taken over) and, with `restore`, mounts
   * again what was mounted then. After the machine was started anew that is what is marked for it, by `restart`. A
   * view that cannot be mounted is logged and left unmounted. Call once, before use.
   *
   * @param o.remount mounts one view, and makes what it needs for that; absent: `mount`
   */
  async open(o: {
    restore: boolean;
    remount?: (view: ViewRow) => Promise<unknown>;
  }): Promise<void> {
    const rows = this.#database.views.list();
    await this.#mounts.detachDead(rows.filter((view) => !this.isMounted(view)));
    for (const view of rows.filter(isTransient)) {
      this.#database.views.delete(view.id);
      await this.#mounts.removeDefaultTarget(view.id);
    }
    await this.#directories.open(this.list().map((view) => view.id));
    const wanted = this.list().filter((row) => row.mounted && !this.isMounted(row));
    await restoreMounts(wanted, {
      isOn: o.restore,
      remount: o.remount ?? ((view) => this.mount(view.id)),
      giveUp: (view) => this.#markUnmounted(view.id),
      log: this.#log,
    });
  }

  /** Every view but those of work that is under way, oldest first. */
  list(): ViewRow[] {
    return this.#database.views.list().filter((view) => !isTransient(view));
  }

  /**
   * The view with this name, ID, unique ID prefix, or mount path.
   *
   * @throws NotFoundError
   * @throws InvalidArgumentError an ambiguous prefix
   */
  get(selector: string): ViewRow {
    return selectView(this.#database.views, selector);
  }

  /** True when the view is mounted and served. */
  isMounted(view: ViewRow): boolean {
    return view.mounted && this.#mounts.isServed(view.id);
  }

  /** The I/O mode of a mounted view; undefined while it is not. */
  ioInUse(view: ViewRow): IoInUse | undefined {
    return view.mounted ? this.#mounts.ioInUse(view.id) : undefined;
  }

  /** The directory that holds what was written; undefined for a read-only view. */
  upperDir(view: ViewRow): string | undefined {
    return view.readOnly ? undefined : this.#directories.of(view.id).upper;
  }

  /** @throws InvalidArgumentError a bad name; AlreadyExistsError it is taken */
  checkNewName(name: string): void {
    checkViewName(name);
    if (this.#isTaken(name)) throw nameIsTaken(name);
  }

  readonly #isTaken = (name: string) => this.#database.views.getByName(name) !== undefined;

  /**
   * Makes a view, not yet mounted. Its first mount makes it durable: one flush less to wait for.
   *
   * @throws InvalidArgumentError a bad name
   * @throws AlreadyExistsError the name is taken
   * @throws NotFoundError the chain is not unpacked
   */
  async prepare(o: NewView): Promise<ViewRow> {
    const name = o.name ?? generateViewName(this.#isTaken);
    this.checkNewName(name);
    if (o.chainId !== undefined) this.#snapshots.get(o.chainId); // throws when it is not unpacked
    const id = this.#directories.newId();
    const { image, imageId, manifestDigest, chainId, readOnly } = o;
    try {
      if (!readOnly) this.#directories.create(id);
      const row = {
        ...{ id, name, image, imageId, manifestDigest, readOnly },
        ...(chainId === undefined ? {} : { chainId }),
        target: "",
        mounted: false,
        labels: labelsOf(o),
        ...(o.io === undefined ? {} : { io: o.io }),
        ...(o.restart === undefined ? {} : { restart: o.restart }),
      };
      const view = this.#database.lazyTransaction(() => this.#database.views.insert(row));
      this.#tell("create", view);
      return view;
    } catch (error) {
      await this.#directories.remove(id);
      throw error;
    }
  }

  /**
   * Mounts a view. Without `target`: where it was last mounted, at first below the state directory.
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it is mounted already, or the target is not an empty directory
   * @throws PermissionDeniedError, UnavailableError no right to mount, or no /dev/fuse
   */
  mount(selector: string, target?: string, wishes: MountWishes = {}): Promise<ViewRow> {
    return this.#exclusive(selector, (view) => this.#mount(view, target, wishes));
  }

  /**
   * Unmounts a view; what was written stays.
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it is not mounted, or in use and `force` is false
   */
  async unmount(selector: string, force: boolean): Promise<ViewRow> {
    const { id, name } = this.get(selector);
    if (!force) return this.#exclusive(id, (view) => this.#unmount(view, false));
    if (!this.isMounted(this.get(id))) throw notMounted(name);
    // Whatever ended it, and be it this very call: it is gone.
    const unmount = async (now: ViewRow) => (this.isMounted(now) ? this.#unmount(now, true) : now);
    return this.#byForce(id, unmount);
  }

  async #unmount(view: ViewRow, force: boolean): Promise<ViewRow> {
    if (!this.isMounted(view)) throw notMounted(view.name);
    await this.#mounts.unmount(view, force);
    this.#markUnmounted(view.id);
    return this.#database.views.get(view.id)!;
  }

  /** `#exclusive` for work that begins with a forced unmount, for which nobody can stand in the way. */
  #byForce<R>(viewId: string, work: (view: ViewRow) => Promise<R>): Promise<R> {
    return this.#mounts.byForce(viewId, () => this.#exclusive(viewId, work));
  }

  /**
   * Removes a view and what was written in it. With `force` a mounted one is unmounted first.
   *
   * @throws NotFoundError
   * @throws FailedPreconditionError it is mounted and `force` is false
   */
  async remove(selector: string, force: boolean): Promise<void> {
    const { id } = this.get(selector);
    const remove = (view: ViewRow) => this.#remove(view, force);
    return force ? this.#byForce(id, remove) : this.#exclusive(id, remove);
  }

  async #remove(view: ViewRow, force: boolean): Promise<void> {
    if (this.isMounted(view)) {
      if (!force) throw stillMounted(view);
      await this.#mounts.unmount(view, true);
    }
    this.#database.views.delete(view.id);
    await this.#mounts.removeDefaultTarget(view.id); // left by a mount that ended by itself
    await this.#directories.remove(view.id);
    this.#tell("destroy", view);
  }

  /** Disk usage of what was written; nothing for a read-only view. @throws NotFoundError */
  async usage(selector: string): Promise<DiskUsage> {
    const upper = this.upperDir(this.get(selector));
    return upper === undefined ? { bytes: 0, inodes: 0 } : this.#tasks.usage(upper);
  }

  /**
   * Lists what changed since the view was made, in batches; what programs wrote until now is in it.
   *
   * @throws NotFoundError
   * @throws CancelledError
   */
  async changes(
    selector: string,
    onChanges: (changes: readonly Change[]) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#exclusive(selector, async (view) => {
      const upper = await this.#flushedUpper(view);
      if (upper === undefined) return;
      const read = () => this.#tasks.changes(upper, onChanges, signal);
      await readSteadily(read, () => this.#mounts.pause(view));
    });
  }

  /**
   * Runs `work` on a view's upper directory, flushed, while nobody mounts, unmounts or removes the view.
   *
   * @throws NotFoundError
   */
  withUpper<R>(selector: string, work: UpperWork<R>): Promise<R> {
    return this.#exclusive(selector, async (view) => {
      const upper = await this.#flushedUpper(view);
      return work(view, upper, () => this.#mounts.pause(view));
    });
  }

  /**
   * Ends all mounts, also those in use; with `keepMounts` leaves them in place (dead until the next
   * daemon restores them).
   */
  async close(o: { keepMounts: boolean }): Promise<void> {
    this.#isClosing = true;
    if (!o.keepMounts) {
      const mounted = this.#database.views.list().filter((row) => this.isMounted(row));
      const ends = mounted.map(({ id, name, target }) =>
        this.unmount(id, true).catch((e) => this.#log.warn(`view ${name}: left on ${target}`, e)),
      );
      await Promise.all(ends);
    }
    await this.#mounts.close();
  }

  async #mount(
    view: ViewRow,
    target: string | undefined,
    { io = view.io, restart }: MountWishes,
  ): Promise<ViewRow> {
    if (this.isMounted(view)) throw alreadyMounted(view);
    const mountedOn = await this.#mounts.mount(
      await this.#task(view, io),
      target ?? (view.target === "" ? undefined : view.target),
      this.#directories.flushed(view.id),
    );
    if (io !== undefined && io !== view.io) this.#database.views.setIo(view.id, io);
    if (restart !== undefined) this.#database.views.setRestart(view.id, restart);
    const record = () => this.#database.views.setMounted(view.id, mountedOn, bootId);
    // Of transient views a power cut leaves nothing in any case: nobody waits for the disk.
    if (isTransient(view)) this.#database.lazyTransaction(record);
    else record();
    const mounted = this.#database.views.get(view.id)!;
    this.#tell("mount", mounted);
    return mounted;
  }

  async #resume(view: ViewRow): Promise<void> {
    if (!view.mounted || isTransient(view) || !this.#snapshots.hasAll(view.chainId)) return;
    if (!(await this.#mounts.resume(await this.#task(view, view.io)))) return;
    this.#log.info(`view ${view.name}: taken over from the last daemon`);
  }

  async #task(view: ViewRow, io: IoMode | undefined) {
    const own = { viewId: view.id, readOnly: view.readOnly, isForGuest: isForGuest(view) };
    const layers = await this.#layers(view);
    const upper = this.#upper(view);
    return { ...own, idMaps: idMapsOf(view), io: io ?? this.#io, ...layers, ...upper };
  }

  async #layers(view: ViewRow) {
    return {
      privileged: this.#privileged,
      indexPath: await this.#snapshots.readyIndex(view.chainId),
      layerDirs: this.#snapshots.layerDirs(view.chainId),
    };
  }

  #upper(view: ViewRow): { upperDir: string | undefined; workDir: string | undefined } {
    if (view.readOnly) return { upperDir: undefined, workDir: undefined };
    const { upper, work } = this.#directories.of(view.id);
    return { upperDir: upper, workDir: work };
  }

  async #flushedUpper(view: ViewRow): Promise<UpperTask | undefined> {
    const { upperDir, workDir } = this.#upper(view);
    if (upperDir === undefined || workDir === undefined) return undefined;
    // Pages that programs dirtied through mappings are in the view's page cache, not yet in the upper.
    if (this.isMounted(view)) await syncFileSystem(view.target);
    const upper = { upperDir, workDir, ...(await this.#layers(view)) };
    if (view.target === "") await this.#tasks.prepareUpper(upper);
    return upper;
  }

  #markUnmounted(viewId: string): void {
    const view = this.#database.views.get(viewId);
    if (view?.mounted !== true) return;
    // What the next daemon is to mount again stays wanted.
    if (!this.#isClosing || view.restart !== "always") this.#database.views.setUnmounted(viewId);
    this.#tell("unmount", view);
  }

  #tell(action: string, view: ViewRow): void {
    if (isTransient(view)) return;
    const { name, image, imageId, target } = view;
    this.#events?.publish("view", action, view.id, { name, image, imageId, target });
  }

  /** Runs `work` with the view as it is once all earlier work on it is done. */
  async #exclusive<R>(selector: string, work: (view: ViewRow) => Promise<R>): Promise<R> {
    const { id, name } = this.get(selector);
    return this.#locks.exclusive(id, async () => {
      const view = this.#database.views.get(id);
      if (view === undefined) throw new NotFoundError(`view ${name}: it was removed`);
      return work(view);
    });
  }
}
