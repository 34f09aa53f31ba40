/** Mounting and unmounting views, and what becomes of mounts when a thread or a daemon dies. */

import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { listUsers, type MountUser } from "../fuse/mount-users.js";
import type { ViewRow } from "../metadata/view-table.js";
import type { Log } from "../snapshots/log.js";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { MNT_DETACH } from "../system/constants.js";
import { FailedPreconditionError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import type { Tally } from "../system/tally.js";
import type { IoInUse } from "./io-mode.js";
import { readMounts } from "./mount-table.js";
import { prepareTarget } from "./mount-target.js";
import type { SessionKeeper } from "./session-keeper.js";
import { ViewHold } from "./view-hold.js";
import { ViewHosts } from "./view-hosts.js";
import { type MountTask, sourceOf } from "./view-protocol.js";

const MOUNT_TYPE = "fuse.varve";

/** The mounts of one daemon. */
export class ViewMounts {
  readonly #directory: string;
  readonly #log: Log;
  readonly #hosts: ViewHosts;
  readonly #io = new Map<string, IoInUse>();

  /** @param o.onLost a view is no longer mounted, without `unmount` having been called */
  constructor(o: {
    state: string;
    workers: number;
    workerFile: string | undefined;
    forceGraceMs: number | undefined;
    quickWakeUps: boolean;
    keeper: SessionKeeper | undefined;
    tallies?: Map<string, Tally> | undefined;
    log: Log;
    onLost(viewId: string): void;
  }) {
    this.#directory = path.join(o.state, "views");
    this.#log = o.log;
    this.#hosts = new ViewHosts({
      size: o.workers,
      keeper: o.keeper,
      file: o.workerFile,
      forceGraceMs: o.forceGraceMs,
      quickWakeUps: o.quickWakeUps,
      tallies: o.tallies,
      events: {
        onEnded: (viewId) => {
          this.#log.info(`view ${viewId}: unmounted`);
          o.onLost(viewId);
        },
        onCrashed: (viewIds, error) => {
          this.#log.warn(`a thread that served ${viewIds.length} views crashed`, error);
          for (const viewId of viewIds) o.onLost(viewId);
          void this.#detachAll(viewIds);
        },
        onWarning: (viewId, message) => this.#log.warn(`view ${viewId}: ${message}`),
      },
    });
  }

  /** How data gets to who reads the view; undefined when nobody serves it. */
  ioInUse(viewId: string): IoInUse | undefined {
    return this.isServed(viewId) ? this.#io.get(viewId) : undefined;
  }

  /** True when a live thread serves the view. */
  isServed(viewId: string): boolean {
    return this.#hosts.serves(viewId);
  }

  /**
   * Mounts a view on `target`, by default `views/<id>/rootfs` below the state directory. Leaves
   * nothing behind when it fails.
   *
   * @param durable what else must have succeeded, at the same time: the flush of a new view's directories
   * @returns where it is mounted, as the kernel's mount table has it
   */
  async mount(
    task: Omit<MountTask, "target">,
    target: string | undefined,
    durable: Promise<void>,
  ): Promise<string> {
    faultPoint("prepare.recorded");
    durable.catch(() => undefined); // awaited below; a mount that fails before does not get there
    const own = this.#defaultTarget(task.viewId);
    const wanted = target ?? own;
    // It may have been removed since it was last used. On our own tmpfs: no matter for the thread pool.
    if (wanted === own) mkdirSync(path.dirname(own), { recursive: true, mode: 0o711 });
    const prepared = await prepareTarget(wanted);
    try {
      const { io } = await this.#hosts.mount({ ...task, target: prepared.path });
      this.#io.set(task.viewId, io);
      faultPoint("mount.mounted");
      await durable;
      return prepared.path;
    } catch (error) {
      if (this.isServed(task.viewId)) {
        await this.#hosts.unmount({ viewId: task.viewId, force: true });
      }
      if (prepared.created) await fs.rmdir(prepared.path).catch(() => undefined);
      await this.removeDefaultTarget(task.viewId);
      throw error;
    }
  }

  /**
   * Takes over a view that an earlier daemon left to the keeper; false when it left none, or that
   * cannot be done.
   */
  async resume(task: Omit<MountTask, "target">): Promise<boolean> {
    const resumed = await this.#hosts.inherit(task);
    if (resumed !== undefined) this.#io.set(task.viewId, resumed.io);
    return resumed !== undefined;
  }

  /**
   * Unmounts a view.
   *
   * @throws FailedPreconditionError in use and `force` is false; names who uses it
   */
  async unmount(view: ViewRow, force: boolean): Promise<void> {
    try {
      await this.#hosts.unmount({ viewId: view.id, force });
      faultPoint("unmount.unmounted");
      await this.removeDefaultTarget(view.id);
    } catch (error) {
      throw withName(view, error);
    }
  }

  /**
   * Holds back who would change something in a view, until the hold is released.
   *
   * @throws FailedPreconditionError it is held already
   */
  async pause(view: ViewRow): Promise<ViewHold> {
    const waiting = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const unheld = await this.#hosts.pause({ viewId: view.id, waiting });
    return new ViewHold(view, { waiting, unheld }, () => this.#hosts.unpause(view.id));
  }

  /** See `ViewHosts.byForce`. */
  byForce<R>(viewId: string, work: () => Promise<R>): Promise<R> {
    return this.#hosts.byForce(viewId, work);
  }

  /** Detaches what an earlier daemon left mounted of these views: without it those mounts are dead. */
  async detachDead(views: readonly ViewRow[]): Promise<void> {
    await fs.mkdir(this.#directory, { recursive: true, mode: 0o711 });
    for (const mountPoint of await this.#detachAll(views.map((view) => view.id))) {
      this.#log.info(`detached the dead mount of an earlier daemon on ${mountPoint}`);
    }
    // An unmount or a removal that was cut short leaves its target.
    for (const viewId of await fs.readdir(this.#directory)) {
      if (!this.isServed(viewId)) await this.removeDefaultTarget(viewId);
    }
  }

  /** Removes the directory below the state directory. Best effort: what is in use stays. */
  async removeDefaultTarget(viewId: string): Promise<void> {
    const target = this.#defaultTarget(viewId);
    await fs.rmdir(target).catch(() => undefined);
    await fs.rmdir(path.dirname(target)).catch(() => undefined);
  }

  /** Ends the threads; mounts that are left are dead. */
  close(): Promise<void> {
    return this.#hosts.close();
  }

  #defaultTarget(viewId: string): string {
    return path.join(this.#directory, viewId, "rootfs");
  }

  /** Takes the dead mounts of views out of the tree, and says where they were. */
  async #detachAll(viewIds: readonly string[]): Promise<string[]> {
    const sources = new Set(viewIds.map(sourceOf));
    const ours = readMounts().filter((one) => one.type === MOUNT_TYPE && sources.has(one.source));
    // The latest first, in case one is mounted below another.
    const mountPoints = ours.map((mount) => mount.mountPoint).reverse();
    for (const mountPoint of mountPoints) await this.#detach(mountPoint);
    return mountPoints;
  }

  /** Takes a dead mount out of the tree, whoever still uses it. Failures are logged. */
  async #detach(mountPoint: string): Promise<void> {
    const result = sys.umount2(toBytes(mountPoint), MNT_DETACH);
    if (result === 0) return;
    // Without the right to unmount, the set-uid helper that mounted it can.
    await promisify(execFile)("fusermount3", ["-u", "-z", "--", mountPoint]).catch(() => {
      this.#log.warn(`dead mount on ${mountPoint}: not detached: ${sys.errnoText(-result)}`);
    });
  }
}

/** Says of which view it is that somebody uses its mount. */
function withName(view: ViewRow, error: unknown): unknown {
  if (!(error instanceof FailedPreconditionError)) return error;
  const users = error.details?.users as readonly MountUser[] | undefined;
  if (users === undefined || users.length === 0) return error;
  return new FailedPreconditionError(
    `unmount view ${view.name} from ${view.target}: it is in use by ${listUsers(users)}; stop that first, or use --force to detach it`,
    { cause: error, details: { users } },
  );
}
