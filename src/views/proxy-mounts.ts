/**
 * FUSE mounts of containerd's snapshots, `containerd/<id>` below the state directory. containerd binds
 * them to where a container wants its root.
 */

import { mkdirSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import type { IoMode } from "../metadata/view-table.js";
import type { Log } from "../snapshots/log.js";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { MNT_DETACH } from "../system/constants.js";
import type { Tally } from "../system/tally.js";
import { readMounts } from "./mount-table.js";
import type { SessionKeeper } from "./session-keeper.js";
import { ViewHosts } from "./view-hosts.js";
import type { MountTask } from "./view-protocol.js";

const MOUNT_TYPE = "fuse.varve";
const VIEW_ID = /^containerd-([0-9]+)$/;

/** What mounts of snapshots are made with. */
export interface ProxyMountsOptions {
  readonly state: string;
  /** Threads that serve mounts. */
  readonly workers: number;
  readonly quickWakeUps: boolean;
  readonly io: IoMode;
  /** Threads are started before they are needed: whoever starts containers would wait for each. */
  readonly isAhead: boolean;
  /** Absent: mounts end with the daemon. */
  readonly keeper?: SessionKeeper | undefined;
  /** Gets the counts of each mounted snapshot. */
  readonly tallies?: Map<string, Tally> | undefined;
  readonly log: Log;
}

/** The mounts of one key space. */
export class ProxyMounts {
  #directory: string;
  readonly #log: Log;
  readonly #hosts: ViewHosts;
  readonly #io: IoMode;

  constructor(o: ProxyMountsOptions) {
    this.#io = o.io;
    this.#directory = path.join(o.state, "containerd");
    this.#log = o.log;
    this.#hosts = new ViewHosts({
      size: o.workers,
      quickWakeUps: o.quickWakeUps,
      isAhead: o.isAhead,
      keeper: o.keeper,
      tallies: o.tallies,
      events: {
        // By us, or by somebody's umount(8): then it is mounted again when it is asked for.
        onEnded: () => undefined,
        onCrashed: (viewIds, error) => {
          o.log.warn(`a thread that served ${viewIds.length} snapshots crashed`, error);
          this.#detach((target) => viewIds.some((viewId) => target === this.#targetOf(viewId)));
        },
        onWarning: (viewId, message) => o.log.warn(`snapshot ${viewId}: ${message}`),
      },
    });
  }

  /** Makes the directory. Call first. */
  async open(): Promise<void> {
    // 0711: a container's processes must get through to its root.
    await fs.mkdir(this.#directory, { recursive: true, mode: 0o711 });
    this.#directory = await fs.realpath(this.#directory);
  }

  /** True when an earlier daemon left the mount to the keeper. */
  isKept(id: number): boolean {
    return this.#hosts.isLeft(viewIdOf(id));
  }

  /** Goes on serving what an earlier daemon left to the keeper; false when that is nothing. */
  async resume(id: number, task: Omit<MountTask, "target" | "viewId" | "io">): Promise<boolean> {
    const resumed = await this.#hosts.inherit({ ...task, viewId: viewIdOf(id), io: this.#io });
    return resumed !== undefined;
  }

  /** Takes away what an earlier daemon left mounted and nobody serves: those mounts are dead. */
  detachDead(): void {
    this.#detach(
      (target) =>
        path.dirname(target) === this.#directory && !this.#hosts.serves(path.basename(target)),
    );
  }

  /** Mounts a snapshot, unless it is. @returns where */
  async mount(id: number, task: Omit<MountTask, "target" | "viewId" | "io">): Promise<string> {
    const viewId = viewIdOf(id);
    const target = this.#targetOf(viewId);
    if (this.#hosts.serves(viewId)) return target;
    // Below a directory of our own, under a number that nothing else has: no more is to be made sure of.
    mkdirSync(target, { recursive: true, mode: 0o755 });
    try {
      await this.#hosts.mount({ ...task, viewId, io: this.#io, target });
      return target;
    } catch (error) {
      await fs.rmdir(target).catch(() => undefined);
      throw error;
    }
  }

  /** The snapshot that is, or was, mounted there; undefined for any other place. */
  idOf(target: string): number | undefined {
    const id = VIEW_ID.exec(path.relative(this.#directory, target))?.[1];
    return id === undefined ? undefined : Number(id);
  }

  /** Where a snapshot is mounted; undefined when it is not. */
  targetOf(id: number): string | undefined {
    const viewId = viewIdOf(id);
    return this.#hosts.serves(viewId) ? this.#targetOf(viewId) : undefined;
  }

  /** Unmounts a snapshot, if it is mounted; what programs wrote through mappings is in the upper then. */
  async unmount(id: number): Promise<void> {
    const viewId = viewIdOf(id);
    const unmount = () => this.#hosts.unmount({ viewId, force: true });
    if (this.#hosts.serves(viewId)) await this.#hosts.byForce(viewId, unmount);
    await fs.rmdir(this.#targetOf(viewId)).catch(() => undefined);
  }

  /** Ends the threads; mounts that are left are dead. */
  close(): Promise<void> {
    return this.#hosts.close();
  }

  #targetOf(viewId: string): string {
    return path.join(this.#directory, viewId);
  }

  #detach(isWanted: (target: string) => boolean): void {
    for (const { type, mountPoint } of readMounts().reverse()) {
      if (type !== MOUNT_TYPE || !isWanted(mountPoint)) continue;
      const result = sys.umount2(toBytes(mountPoint), MNT_DETACH);
      if (result === 0) this.#log.info(`detached the dead mount on ${mountPoint}`);
      else this.#log.warn(`dead mount on ${mountPoint}: ${sys.errnoText(-result)}`);
    }
  }
}

function viewIdOf(id: number): string {
  return `containerd-${id}`;
}
