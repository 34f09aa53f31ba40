/** A few worker threads that share one queue of calls. */

import { CancelledError, UnavailableError } from "../system/errors.js";
import { type WorkerCallOptions, WorkerHost } from "./worker-host.js";

interface Waiting {
  readonly start: (host: WorkerHost) => void;
  readonly fail: (error: unknown) => void;
}

// A thread costs some 10 MB while it idles and some 30 ms to start.
const IDLE_MS = 10_000;

/** Work on layers makes much short-lived garbage; more space for it does not make it faster. */
const YOUNG_GENERATION_MB = 8;

/** How a call is run. */
export interface PoolCallOptions extends WorkerCallOptions {
  /** It goes before all that waits: others wait for its result. */
  readonly isUrgent?: boolean;
}

/** Runs at most `size` calls at once, each alone on its thread. Threads start when needed. */
export class WorkerPool {
  readonly #file: string;
  readonly #name: string;
  readonly #size: number;
  readonly #idle: WorkerHost[] = [];
  readonly #busy = new Set<WorkerHost>();
  readonly #queue: Waiting[] = [];
  #idleTimer: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param o.file the threads' compiled entry (see `workerFile`) */
  constructor(o: { file: string; name: string; size: number }) {
    this.#file = o.file;
    this.#name = o.name;
    this.#size = o.size;
  }

  /**
   * Calls `method` on the next free thread.
   *
   * @throws CancelledError the signal fired while the call waited for a thread
   * @throws UnavailableError the pool is closed, or the thread crashed
   * @throws whatever the method threw
   */
  async run<R>(method: string, argument: unknown, options: PoolCallOptions = {}): Promise<R> {
    const host = await this.#acquire(method, options);
    try {
      return await host.call<R>(method, argument, options);
    } finally {
      this.#release(host);
    }
  }

  /** Ends all threads; calls under way and waiting fail with UnavailableError. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    for (const { fail } of this.#queue.splice(0)) fail(closedError(this.#name));
    await Promise.all([...this.#busy, ...this.#idle.splice(0)].map((host) => host.close()));
  }

  #acquire(method: string, options: PoolCallOptions): Promise<WorkerHost> {
    const { signal, isUrgent } = options;
    if (this.#closed) return Promise.reject(closedError(this.#name));
    const host = this.#free();
    if (host !== undefined) return Promise.resolve(host);
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#queue.splice(this.#queue.indexOf(waiting), 1);
        reject(new CancelledError(`${method}: cancelled while waiting for a worker`));
      };
      const waiting: Waiting = {
        start: (free) => {
          signal?.removeEventListener("abort", abort);
          resolve(free);
        },
        fail: (error) => {
          signal?.removeEventListener("abort", abort);
          reject(error);
        },
      };
      signal?.addEventListener("abort", abort, { once: true });
      if (isUrgent === true) this.#queue.unshift(waiting);
      else this.#queue.push(waiting);
    });
  }

  /** A thread that is marked busy, or undefined when all are. */
  #free(): WorkerHost | undefined {
    let host = this.#idle.pop();
    while (host?.ended === true) host = this.#idle.pop();
    if (host === undefined) {
      if (this.#busy.size >= this.#size) return undefined;
      host = new WorkerHost({
        file: this.#file,
        name: this.#name,
        youngGenerationMb: YOUNG_GENERATION_MB,
      });
    }
    this.#busy.add(host);
    return host;
  }

  #release(host: WorkerHost): void {
    this.#busy.delete(host);
    if (this.#closed) return;
    if (!host.ended) this.#idle.push(host);
    const next = this.#queue.shift();
    if (next === undefined) this.#scheduleIdle();
    else next.start(this.#free()!);
  }

  #scheduleIdle(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(() => {
      for (const host of this.#idle.splice(0)) void host.close();
    }, IDLE_MS);
    this.#idleTimer.unref();
  }
}

function closedError(name: string): UnavailableError {
  return new UnavailableError(`worker pool ${name}: closed`);
}
