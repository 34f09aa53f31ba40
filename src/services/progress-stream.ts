/** From callbacks of running work to a stream that no reader can be flooded by. */

import type { CallContext } from "./grpc-adapter.js";

/** One step of long work on one object. */
export interface ProgressEvent {
  readonly id: string;
  readonly action: string;
  /** Bytes; total 0 when unknown. */
  readonly current: number;
  readonly total: number;
}

/** The field of a request's metadata by which a client says that it wants the result alone. */
const QUIET_HEADER = "varve-quiet";

/** True for a call that gets no messages of progress. */
export function isQuiet(context: Pick<CallContext, "header">): boolean {
  return context.header(QUIET_HEADER) === "1";
}

/** What is waiting for the reader. */
export type StreamItem<R> = { readonly progress: ProgressEvent } | { readonly result: R };

// Ten a second is smooth to the eye.
const INTERVAL_MS = 100;
/** So many layers may change what they do that saying it takes longer than doing it; at once is soon enough. */
const REST_MS = 20;

/**
 * Runs `work` and yields its progress, then its result. No action of an id is left out, but of each only the
 * latest figures wait for the reader, at most ten times a second; a new action waits for no more than a fiftieth
 * of one. Rejects as `work` does. The work goes on when the reader leaves: cancel it by its own signal.
 *
 * @param context of a call that may be quiet: then there is no progress, since telling that of a hundred layers takes
 *   longer than what is told
 */
export async function* withProgress<R>(
  work: (report: (event: ProgressEvent) => void) => Promise<R>,
  context: Pick<CallContext, "header">,
): AsyncGenerator<StreamItem<R>, void, undefined> {
  if (isQuiet(context)) {
    yield { result: await work(() => undefined) };
    return;
  }
  const queue = new ProgressQueue();
  const outcome = work((event) => queue.push(event)).then(
    (result) => ({ result }),
    (error: unknown) => ({ error }),
  );
  void outcome.then(() => queue.end());
  for (let event = await queue.next(); event !== undefined; event = await queue.next()) {
    yield { progress: event };
  }
  const settled = await outcome;
  if ("error" in settled) throw settled.error;
  yield { result: settled.result };
}

interface Sent {
  readonly action: string;
  readonly atMs: number;
}

class ProgressQueue {
  /** The latest unsent figures of each action of each id, in the order in which the actions began. */
  readonly #waiting = new Map<string, ProgressEvent>();
  /** What each id did last, sent or not. */
  readonly #latest = new Map<string, string>();
  readonly #sent = new Map<string, Sent>();
  /** What is being sent. */
  #batch: ProgressEvent[] = [];
  #restsUntilMs = 0;
  #wake: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Infinity;
  #ended = false;

  push(event: ProgressEvent): void {
    const { id, action } = event;
    // Begun anew, with what came between still unsent: its place is at the end.
    if (this.#latest.get(id) !== action) this.#waiting.delete(keyOf(event));
    this.#latest.set(id, action);
    this.#waiting.set(keyOf(event), event);
    this.#wakeAt(this.#dueAtMs(event));
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  /** The next event that is due; undefined when the work has ended and all is sent. */
  async next(): Promise<ProgressEvent | undefined> {
    for (;;) {
      if (this.#batch.length === 0) this.#batch = this.#takeDue();
      const event = this.#batch.shift();
      if (event !== undefined) return event;
      if (this.#ended) return undefined;
      await this.#changed();
    }
  }

  #takeDue(): ProgressEvent[] {
    const nowMs = performance.now();
    const due = [...this.#waiting.values()].filter(
      (event) => this.#ended || this.#dueAtMs(event) <= nowMs,
    );
    for (const event of due) {
      const { id, action } = event;
      this.#waiting.delete(keyOf(event));
      this.#sent.set(id, { action, atMs: nowMs });
    }
    if (due.length > 0) this.#restsUntilMs = nowMs + REST_MS;
    return due;
  }

  #dueAtMs({ id, action }: ProgressEvent): number {
    const sent = this.#sent.get(id);
    const isOver = this.#latest.get(id) !== action;
    if (isOver || sent === undefined || sent.action !== action) return this.#restsUntilMs;
    return Math.max(this.#restsUntilMs, sent.atMs + INTERVAL_MS);
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      for (const event of this.#waiting.values()) this.#wakeAt(this.#dueAtMs(event));
    });
  }

  #wakeAt(atMs: number): void {
    if (this.#wake === undefined || atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    const inMs = atMs - performance.now();
    if (inMs <= 0) {
      this.#notify();
      return;
    }
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => this.#notify(), Math.ceil(inMs));
  }

  #notify(): void {
    clearTimeout(this.#timer);
    this.#timerAtMs = Infinity;
    this.#wake?.();
    this.#wake = undefined;
  }
}

const keyOf = ({ id, action }: ProgressEvent) => `${action} ${id}`;
