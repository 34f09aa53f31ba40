/**
 * The threads that serve FUSE mounts, and which view is on which. When one crashes, another takes its
 * views over; where that cannot be, it takes its own views with it, never the daemon. One that is
 * stuck (its disk does not answer) loses the views that are unmounted by force.
 */

import { setTimeout as delay } from "node:timers/promises";
import { isOnTop, unmountFuse } from "../fuse/mount-point.js";
import type { Inheritance } from "../fuse/session-options.js";
import { WorkerHost, workerFile } from "../snapshots/worker-host.js";
import { FailedPreconditionError, NotFoundError, UnavailableError } from "../system/errors.js";
import { Tally } from "../system/tally.js";
import type { KeptSession, SessionKeeper } from "./session-keeper.js";
import {
  type MountResult,
  type MountTask,
  type PauseTask,
  type ServeTask,
  sourceOf,
  type UnmountTask,
  type ViewEvent,
  type ViewWorkerOptions,
} from "./view-protocol.js";

/** One view of a thread. */
interface Served {
  readonly task: MountTask;
  /** Resolves when the mount was taken away: nobody waits for the thread any more. */
  readonly taken: Promise<void>;
  readonly takeAway: () => void;
}

interface Host {
  readonly worker: WorkerHost;
  readonly views: Map<string, Served>;
  /** Views that were taken away from it, whose directories it still holds. */
  readonly lost: Set<string>;
}

/** What happens to mounts without anybody here asking for it. */
export interface HostEvents {
  /** The kernel ended it: somebody's umount(8), or the connection was aborted. */
  onEnded(viewId: string): void;
  /** Its thread crashed and no other could take it over: the mount is there, but dead. */
  onCrashed(viewIds: readonly string[], error: Error | undefined): void;
  onWarning(viewId: string, message: string): void;
}

/** Crashes within a minute after which a thread's views are given up: whatever they ask for, kills. */
const CRASH_LIMIT = 5;
const CRASH_WINDOW_MS = 60_000;
/** What a forced unmount may take before it goes on without the thread: longer than writing back what is dirty may. */
const FORCE_GRACE_MS = 8_000;

/** Spreads mounts over at most `size` threads, started when needed. */
export class ViewHosts {
  readonly #size: number;
  readonly #file: string;
  readonly #options: ViewWorkerOptions;
  readonly #events: HostEvents;
  readonly #keeper: SessionKeeper | undefined;
  readonly #isAhead: boolean;
  readonly #forceGraceMs: number;
  readonly #tallies: Map<string, Tally>;
  readonly #hosts = new Set<Host>();
  #started = 0;
  #closing = false;
  #crashes: number[] = [];

  /**
   * @param o.keeper absent: views end with their thread
   * @param o.isAhead start threads before they are needed, so that no mount waits for one
   * @param o.file the threads' entry, for tests
   * @param o.forceGraceMs for tests
   */
  constructor(o: {
    size: number;
    keeper?: SessionKeeper | undefined;
    quickWakeUps: boolean;
    isAhead?: boolean;
    /** Gets the counts of each mounted view. */
    tallies?: Map<string, Tally> | undefined;
    file?: string | undefined;
    forceGraceMs?: number | undefined;
    events: HostEvents;
  }) {
    this.#size = o.size;
    this.#forceGraceMs = o.forceGraceMs ?? FORCE_GRACE_MS;
    this.#options = { quickWakeUps: o.quickWakeUps };
    this.#keeper = o.keeper;
    this.#tallies = o.tallies ?? new Map();
    o.keeper?.onLost(() => this.#keepAll());
    this.#file = o.file ?? workerFile(import.meta.url, "view-worker");
    this.#events = o.events;
    this.#isAhead = o.isAhead === true;
    if (this.#isAhead) this.#start();
  }

  /** True when a live thread serves the view. */
  serves(viewId: string): boolean {
    return this.#hostOf(viewId) !== undefined;
  }

  /**
   * Mounts a view on the thread with the fewest.
   *
   * @throws FailedPreconditionError a stuck thread has not let go of it yet
   * @throws what the session and the overlay throw
   */
  async mount(task: MountTask): Promise<MountResult> {
    if ([...this.#hosts].some((host) => host.lost.has(task.viewId))) {
      throw new FailedPreconditionError(
        `mount view ${task.viewId}: the thread that served it is stuck in its disk and may still write ` +
          "there; wait until the disk answers, or restart the daemon",
      );
    }
    const result = await this.#serve(task, undefined);
    await this.#keep(task.viewId);
    return result;
  }

  /** True when an earlier daemon left the view to the keeper, and nobody has taken it yet. */
  isLeft(viewId: string): boolean {
    return this.#keeper?.hasLeft(viewId) === true;
  }

  /** Takes over a view that an earlier daemon left; undefined when it left none, or that cannot be done. */
  async inherit(task: Omit<MountTask, "target">): Promise<MountResult | undefined> {
    const session = this.#keeper?.inherit(task.viewId);
    if (session === undefined) return undefined;
    const result = await this.#takeOver(task, session);
    if (result === undefined) this.#keeper?.release(task.viewId);
    return result;
  }

  /** Gives the view's session to the keeper, if there is one and the kernel lets others take over. */
  async #keep(viewId: string): Promise<void> {
    const host = this.#hostOf(viewId);
    const target = host?.views.get(viewId)?.task.target;
    if (this.#keeper === undefined || host === undefined || target === undefined) return;
    const inheritance = await ask<Inheritance | undefined>(host, "bequeath", viewId, viewId);
    if (inheritance === undefined) return;
    await this.#keeper.keep(viewId, { target, inheritance });
  }

  async #keepAll(): Promise<void> {
    const views = [...this.#hosts].flatMap((host) => [...host.views.keys()]);
    await Promise.all(views.map((viewId) => this.#keep(viewId)));
  }

  async #serve(task: MountTask, inheritance: Inheritance | undefined): Promise<MountResult> {
    const host = this.#leastBusy();
    const notes = this.#keeper?.notes(task.viewId);
    const tally = this.#tallies.get(task.viewId) ?? new Tally();
    this.#tallies.set(task.viewId, tally);
    const serveTask: ServeTask = { ...task, inheritance, notes, tally: tally.memory };
    host.views.set(task.viewId, served(task));
    try {
      return await ask<MountResult>(host, "serve", task.viewId, serveTask);
    } catch (error) {
      host.views.delete(task.viewId);
      this.#tallies.delete(task.viewId);
      throw error;
    }
  }

  /** @throws NotFoundError no thread serves it */
  async unmount(task: UnmountTask): Promise<void> {
    const host = this.#hostOf(task.viewId);
    const view = host?.views.get(task.viewId);
    if (host === undefined || view === undefined) {
      throw new NotFoundError(`unmount view ${task.viewId}: not mounted`);
    }
    await Promise.race([host.worker.call("unmount", task), view.taken]);
    host.views.delete(task.viewId);
    this.#tallies.delete(task.viewId);
    this.#keeper?.release(task.viewId);
  }

  /**
   * Holds back who would change something in a view, until `unpause`. When no thread serves it, nobody does.
   *
   * @returns descriptors of files that are written to all the same; the caller's to close
   */
  async pause(task: PauseTask): Promise<readonly number[]> {
    const host = this.#hostOf(task.viewId);
    return host === undefined ? [] : ask<readonly number[]>(host, "pause", task.viewId, task);
  }

  /** False when the pause has ended before: the view's thread crashed, and another one serves it. */
  async unpause(viewId: string): Promise<boolean> {
    const host = this.#hostOf(viewId);
    return host === undefined || ask<boolean>(host, "unpause", viewId, viewId);
  }

  /**
   * Runs `work`, which is to unmount a view by force. When that takes too long, the mount is taken away
   * from its thread, whatever that or others do with it: everybody who waits for it gets an error.
   *
   * @throws FailedPreconditionError another mount covers it
   * @throws what `work` throws
   */
  async byForce<R>(viewId: string, work: () => Promise<R>): Promise<R> {
    const inTime = new AbortController();
    const done = work().finally(() => inTime.abort());
    const late = delay(this.#forceGraceMs, undefined, { signal: inTime.signal }).then(
      () => this.#takeAway(viewId),
      () => undefined,
    );
    // Rejects early only when the mount cannot be taken away, for then `work` might never end.
    return Promise.race([late.then(() => done), done]);
  }

  async #takeAway(viewId: string): Promise<void> {
    const host = this.#hostOf(viewId);
    const view = host?.views.get(viewId);
    if (host === undefined || view === undefined) return;
    const { privileged, target } = view.task;
    const message = `its thread does not answer; unmounting ${target} without it`;
    this.#events.onWarning(viewId, message);
    const isOurs = ({ source }: { source: string }) => source === sourceOf(viewId);
    if (isOnTop(target, isOurs)) await unmountFuse(target, true, privileged);
    // It may have ended by itself meanwhile.
    if (!host.views.delete(viewId)) return;
    host.lost.add(viewId);
    view.takeAway();
    this.#events.onEnded(viewId);
    this.#keeper?.release(viewId);
  }

  /** Ends all threads; mounts that are left are dead. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#hosts].map((host) => host.worker.close()));
  }

  #hostOf(viewId: string): Host | undefined {
    return [...this.#hosts].find((host) => host.views.has(viewId));
  }

  #leastBusy(): Host {
    const free = [...this.#hosts].filter((host) => host.lost.size === 0);
    const found = free.reduce(
      (a: Host | undefined, b) => (a === undefined || b.views.size < a.views.size ? b : a),
      undefined,
    );
    const mayStart = free.length < this.#size;
    if (found === undefined || (found.views.size > 0 && mayStart)) return this.#start();
    if (this.#isAhead) setImmediate(() => this.#startNext());
    return found;
  }

  #startNext(): void {
    const hasIdle = [...this.#hosts].some((host) => host.views.size + host.lost.size === 0);
    if (!this.#closing && this.#hosts.size < this.#size && !hasIdle) this.#start();
  }

  #start(): Host {
    const views = new Map<string, Served>();
    const host: Host = {
      views,
      lost: new Set(),
      worker: new WorkerHost({
        file: this.#file,
        name: `views-${++this.#started}`,
        workerData: this.#options,
        onEvent: (event) => this.#receive(host, event as ViewEvent),
        onExit: (error) => {
          this.#hosts.delete(host);
          if (!this.#closing && views.size > 0) void this.#replace(views, error);
        },
      }),
    };
    this.#hosts.add(host);
    return host;
  }

  /** Other threads take over what a crashed one served. */
  async #replace(views: ReadonlyMap<string, Served>, error: Error | undefined): Promise<void> {
    const now = Date.now();
    this.#crashes = [...this.#crashes.filter((at) => now - at < CRASH_WINDOW_MS), now];
    const wanted = this.#crashes.length <= CRASH_LIMIT ? views : new Map<string, Served>();
    const sessions = this.#keeper?.copies(wanted);
    const lost: string[] = [];
    for (const [viewId, { task }] of views) {
      const session = sessions?.get(viewId);
      if (session !== undefined && (await this.#takeOver(task, session)) !== undefined) {
        this.#events.onWarning(viewId, "its thread crashed; another one has taken over");
      } else {
        lost.push(viewId);
        this.#keeper?.release(viewId);
      }
    }
    if (lost.length > 0) this.#events.onCrashed(lost, error);
  }

  /** Serves a view that is mounted and whose thread or process is gone; undefined when that fails. */
  async #takeOver(
    task: Omit<MountTask, "target">,
    { target, inheritance }: KeptSession,
  ): Promise<MountResult | undefined> {
    try {
      return await this.#serve({ ...task, target }, inheritance);
    } catch (error) {
      this.#events.onWarning(task.viewId, `not taken over: ${(error as Error).message}`);
      return undefined;
    }
  }

  #receive(host: Host, event: ViewEvent): void {
    if (event.kind === "warn") {
      this.#events.onWarning(event.viewId, event.message);
    } else if (!host.lost.delete(event.viewId) && host.views.delete(event.viewId)) {
      this.#tallies.delete(event.viewId);
      // In this order: a view that is mounted by its row and that the keeper lacks is mounted again.
      this.#events.onEnded(event.viewId);
      this.#keeper?.release(event.viewId);
    }
  }
}

function served(task: MountTask): Served {
  let takeAway = () => {};
  const taken = new Promise<void>((resolve) => {
    takeAway = resolve;
  });
  return { task, taken, takeAway };
}

/** Calls a method of a view's thread. @throws UnavailableError the view was taken away from it meanwhile */
function ask<R>(host: Host, method: string, viewId: string, argument: unknown): Promise<R> {
  const { taken } = host.views.get(viewId)!;
  const lost = taken.then(() => {
    throw new UnavailableError(`${method} view ${viewId}: it was unmounted by force meanwhile`);
  });
  return Promise.race([host.worker.call<R>(method, argument), lost]);
}
