/** The main thread's side of a worker thread. */

import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { CancelledError, UnavailableError } from "../system/errors.js";
import { outsideRequests } from "../system/request-context.js";
import { type FromWorker, fromPlainError, type ToWorker } from "./worker-messages.js";

/** How long a thread may take to end. One that waits in a system call does not hear that it is to. */
const CLOSE_GRACE_MS = 3_000;
let live = 0;

/** How many threads have not ended. While one waits in a system call, process.exit waits with it. */
export function liveThreads(): number {
  return live;
}

/** What a call accepts. */
export interface WorkerCallOptions {
  /** Called for each event of this call, in order, before it settles. */
  readonly onEvent?: ((event: unknown) => void) | undefined;
  /** Asks the worker to stop; the call settles when it has (normally with CancelledError). */
  readonly signal?: AbortSignal | undefined;
}

interface PendingCall {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly onEvent: ((event: unknown) => void) | undefined;
}

/**
 * The bundle of a worker's entry (see scripts/bundle.mjs): `name` beside the module at `moduleUrl`. When that module
 * runs from src (as tests do), its twin below dist, because Node loads no TypeScript.
 */
export function workerFile(moduleUrl: string, name: string): string {
  const file = fileURLToPath(new URL(`./${name}.cjs`, moduleUrl));
  return moduleUrl.endsWith(".ts") ? file.replace(/\/src\/([^/]+\/[^/]+)$/, "/dist/$1") : file;
}

/** One worker thread that answers calls. It keeps the process alive only while calls are pending. */
export class WorkerHost {
  readonly #worker: Worker;
  readonly #name: string;
  readonly #pending = new Map<number, PendingCall>();
  #lastCall = 0;
  #ended = false;

  /**
   * @param onEvent events that belong to no call
   * @param onExit the thread has ended, expectedly (`close`) or not; `error` says why it crashed
   */
  constructor(o: {
    file: string;
    name: string;
    workerData?: unknown;
    /** Bounds the space for new objects; without it each thread may keep tens of MB of garbage. */
    youngGenerationMb?: number;
    onEvent?: (event: unknown) => void;
    onExit?: (error: Error | undefined) => void;
  }) {
    this.#name = o.name;
    const { youngGenerationMb: maxYoungGenerationSizeMb } = o;
    const makeWorker = () =>
      new Worker(o.file, {
        workerData: o.workerData,
        name: o.name,
        ...(maxYoungGenerationSizeMb === undefined
          ? {}
          : { resourceLimits: { maxYoungGenerationSizeMb } }),
      });
    this.#worker = outsideRequests(makeWorker);
    let crash: Error | undefined;
    this.#worker.on("message", (message: FromWorker) => this.#receive(message, o.onEvent));
    this.#worker.on("error", (error) => {
      crash = error;
    });
    live++;
    this.#worker.on("exit", (code) => {
      live--;
      this.#ended = true;
      this.#failAll(crash, code);
      o.onExit?.(crash);
    });
    this.#worker.unref();
  }

  /** Calls under way. */
  get pending(): number {
    return this.#pending.size;
  }

  /** True once the thread has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Calls `method` with a structured clone of `argument`.
   *
   * @throws UnavailableError the worker ended before it answered
   * @throws whatever the method threw
   */
  async call<R>(method: string, argument: unknown, options: WorkerCallOptions = {}): Promise<R> {
    if (options.signal?.aborted === true) throw new CancelledError(`${method}: cancelled`);
    if (this.#ended) throw new UnavailableError(`${method}: worker ${this.#name} has ended`);
    const call = ++this.#lastCall;
    const cancel = () => this.#post({ cancel: call });
    try {
      return await new Promise<R>((resolve, reject) => {
        this.#pending.set(call, {
          resolve: resolve as (result: unknown) => void,
          reject,
          onEvent: options.onEvent,
        });
        this.#worker.ref();
        options.signal?.addEventListener("abort", cancel, { once: true });
        this.#post({ call, method, argument });
      });
    } finally {
      options.signal?.removeEventListener("abort", cancel);
      this.#pending.delete(call);
      if (this.#pending.size === 0) this.#worker.unref();
    }
  }

  /** Ends the thread; pending calls fail. One that is stuck in a system call is left to it. */
  async close(): Promise<void> {
    const given = delay(CLOSE_GRACE_MS, undefined, { ref: false });
    await Promise.race([this.#worker.terminate(), given]);
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromWorker, onEvent: ((event: unknown) => void) | undefined): void {
    if (message.call === 0) {
      if ("event" in message) onEvent?.(message.event);
      return;
    }
    const call = this.#pending.get(message.call);
    if (call === undefined) return;
    if ("event" in message) call.onEvent?.(message.event);
    else if ("error" in message) call.reject(fromPlainError(message.error));
    else call.resolve(message.result);
  }

  #failAll(crash: Error | undefined, code: number): void {
    const reason = crash === undefined ? `it ended with code ${code}` : crash.message;
    for (const { reject } of this.#pending.values()) {
      reject(new UnavailableError(`worker ${this.#name}: ${reason}`, { cause: crash }));
    }
    this.#pending.clear();
  }
}
