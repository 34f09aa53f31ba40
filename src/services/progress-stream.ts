/** From callbacks of running work to a stream that no reader can be flooded by. */

/** One step of long work on one object. */
export interface ProgressEvent {
  readonly id: string;
  readonly action: string;
  /** Bytes; total 0 when unknown. */
  readonly current: number;
  readonly total: number;
}

/** What is waiting for the reader. */
export type StreamItem<R> = { readonly progress: ProgressEvent } | { readonly result: R };

// Ten a second is smooth to the eye.
const INTERVAL_MS = 100;

/**
 * Runs `work` and yields its progress, then its result. Of each id only the latest figures wait for
 * the reader, at most ten times a second; a new action does not wait for that. Rejects
 * as `work` does. The work goes on when the reader leaves: cancel it by its own signal.
 */
export async function* withProgress<R>(
  work: (report: (event: ProgressEvent) => void) => Promise<R>,
): AsyncGenerator<StreamItem<R>, void, undefined> {
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
  /** The latest unsent figures of each id. */
  readonly #waiting = new Map<string, ProgressEvent>();
  readonly #sent = new Map<string, Sent>();
  #wake: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  push(event: ProgressEvent): void {
    this.#waiting.set(event.id, event);
    if (this.#dueInMs(event) <= 0) this.#notify();
  }

  end(): void {
    this.#ended = true;
    this.#notify();
  }

  /** The next event that is due; undefined when the work has ended and all is sent. */
  async next(): Promise<ProgressEvent | undefined> {
    for (;;) {
      const event = this.#takeDue();
      if (event !== undefined) return event;
      if (this.#ended) return undefined;
      await this.#changed();
    }
  }

  #takeDue(): ProgressEvent | undefined {
    for (const [id, event] of this.#waiting) {
      if (!this.#ended && this.#dueInMs(event) > 0) continue;
      this.#waiting.delete(id);
      this.#sent.set(event.id, { action: event.action, atMs: performance.now() });
      return event;
    }
    return undefined;
  }

  #dueInMs(event: ProgressEvent): number {
    const sent = this.#sent.get(event.id);
    if (sent === undefined || sent.action !== event.action) return 0;
    return sent.atMs + INTERVAL_MS - performance.now();
  }

  #changed(): Promise<void> {
    const delays = [...this.#waiting.values()].map((event) => this.#dueInMs(event));
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (delays.length === 0) return;
      this.#timer = setTimeout(() => this.#notify(), Math.max(1, Math.min(...delays)));
    });
  }

  #notify(): void {
    clearTimeout(this.#timer);
    this.#wake?.();
    this.#wake = undefined;
  }
}
