/**
 * The threads that serve FUSE mounts, and which view is on which. A thread that crashes takes its
 * own views with it, never the daemon.
 */

import { WorkerHost, workerFile } from "../snapshots/worker-host.js";
import { NotFoundError } from "../system/errors.js";
import type {
  MountResult,
  MountTask,
  UnmountTask,
  ViewEvent,
  ViewWorkerOptions,
} from "./view-protocol.js";

interface Host {
  readonly worker: WorkerHost;
  readonly views: Set<string>;
}

/** What happens to mounts without anybody here asking for it. */
export interface HostEvents {
  /** The kernel ended it: somebody's umount(8), or the connection was aborted. */
  onEnded(viewId: string): void;
  /** Its thread crashed: the mount is there, but dead. */
  onCrashed(viewIds: readonly string[], error: Error | undefined): void;
  onWarning(viewId: string, message: string): void;
}

/** Spreads mounts over at most `size` threads, started when needed. */
export class ViewHosts {
  readonly #size: number;
  readonly #file: string;
  readonly #options: ViewWorkerOptions;
  readonly #events: HostEvents;
  readonly #hosts = new Set<Host>();
  #started = 0;
  #closing = false;

  /** @param o.file the threads' entry, for tests */
  constructor(o: {
    size: number;
    file?: string | undefined;
    quickWakeUps: boolean;
    events: HostEvents;
  }) {
    this.#size = o.size;
    this.#options = { quickWakeUps: o.quickWakeUps };
    this.#file = o.file ?? workerFile(import.meta.url, "view-worker");
    this.#events = o.events;
  }

  /** True when a live thread serves the view. */
  serves(viewId: string): boolean {
    return this.#hostOf(viewId) !== undefined;
  }

  /** Mounts a view on the thread with the fewest. @throws what the session and the overlay throw */
  async mount(task: MountTask): Promise<MountResult> {
    const host = this.#leastBusy();
    host.views.add(task.viewId);
    try {
      return (await host.worker.call("mount", task)) as MountResult;
    } catch (error) {
      host.views.delete(task.viewId);
      throw error;
    }
  }

  /** @throws NotFoundError no thread serves it */
  async unmount(task: UnmountTask): Promise<void> {
    const host = this.#hostOf(task.viewId);
    if (host === undefined) throw new NotFoundError(`unmount view ${task.viewId}: not mounted`);
    await host.worker.call("unmount", task);
    host.views.delete(task.viewId);
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
    if (this.#hosts.size < this.#size) return this.#start();
    return [...this.#hosts].reduce((a, b) => (b.views.size < a.views.size ? b : a));
  }

  #start(): Host {
    const views = new Set<string>();
    const host: Host = {
      views,
      worker: new WorkerHost({
        file: this.#file,
        name: `views-${++this.#started}`,
        workerData: this.#options,
        onEvent: (event) => this.#receive(host, event as ViewEvent),
        onExit: (error) => {
          this.#hosts.delete(host);
          if (!this.#closing && views.size > 0) this.#events.onCrashed([...views], error);
        },
      }),
    };
    this.#hosts.add(host);
    return host;
  }

  #receive(host: Host, event: ViewEvent): void {
    if (event.kind === "warn") {
      this.#events.onWarning(event.viewId, event.message);
    } else if (host.views.delete(event.viewId)) {
      this.#events.onEnded(event.viewId);
    }
  }
}
