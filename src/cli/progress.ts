/**
 * Progress of long commands, on standard error: bars that are redrawn on a terminal, plain lines
 * when an action changes anywhere else, nothing with `--quiet`. Bars are erased at the end: what a
 * command leaves on the screen is its result.
 */

import type { OutputStream } from "./context.js";
import { isFinished, type ProgressTask, renderFrame, shortId } from "./progress-frame.js";
import { humanSize } from "./sizes.js";
import { displayWidth, screenSize } from "./terminal-text.js";

/** One step as the daemon reports it. */
export interface ProgressStep {
  readonly id: string;
  readonly action: string;
  readonly current: bigint;
  readonly total: bigint;
}

/** Shows steps. Call `finish` in every case, or the cursor stays among the bars. */
export interface ProgressDisplay {
  /** Takes the next step. */
  update(step: ProgressStep): void;
  /** Removes the bars, so that something else can be printed; the next step brings them back. */
  clear(): void;
  /** Removes the bars for good. Idempotent. */
  finish(): void;
}

/** The display that suits the stream. */
export function createProgress(
  stream: OutputStream,
  isQuiet: boolean,
  env: Readonly<Record<string, string | undefined>>,
): ProgressDisplay {
  if (isQuiet) return SILENT;
  const canRedraw = stream.isTTY === true && env.TERM !== "dumb";
  return canRedraw ? new BarDisplay(stream) : new LineDisplay(stream);
}

/**
 * Feeds a stream's progress to a display and every message to `onMessage`; finishes the display.
 *
 * @throws whatever the stream throws
 */
export async function followProgress<T extends { readonly progress?: ProgressStep | undefined }>(
  messages: AsyncIterable<T>,
  display: ProgressDisplay,
  onMessage: (message: T) => void | Promise<void>,
): Promise<void> {
  try {
    for await (const message of messages) {
      if (message.progress !== undefined) display.update(message.progress);
      await onMessage(message);
    }
  } finally {
    display.finish();
  }
}

const SILENT: ProgressDisplay = {
  update: () => undefined,
  clear: () => undefined,
  finish: () => undefined,
};

/** The steps of each task, in the order in which the tasks first came. */
class TaskList {
  readonly #tasks = new Map<string, ProgressTask>();

  /** Returns true when the task is new or does something else now. */
  take(step: ProgressStep, nowMs: number): boolean {
    const known = this.#tasks.get(step.id);
    const current = Number(step.current);
    const isNewAction = known?.action !== step.action;
    this.#tasks.set(step.id, {
      id: step.id,
      action: step.action,
      current,
      total: Number(step.total),
      sinceMs: known === undefined || isNewAction ? nowMs : known.sinceMs,
      sinceBytes: known === undefined || isNewAction ? current : known.sinceBytes,
    });
    return isNewAction;
  }

  list(): ProgressTask[] {
    return [...this.#tasks.values()];
  }
}

const NO_NEWS = new Set(["waiting", "exists"]);

/** One line per change of action: for logs, pipes and continuous integration. */
class LineDisplay implements ProgressDisplay {
  readonly #stream: OutputStream;
  readonly #tasks = new TaskList();

  constructor(stream: OutputStream) {
    this.#stream = stream;
  }

  update(step: ProgressStep): void {
    if (!this.#tasks.take(step, 0) || NO_NEWS.has(step.action)) return;
    const total = step.total > 0n ? ` (${humanSize(step.total)})` : "";
    this.#stream.write(`${shortId(step.id)}: ${step.action}${total}\n`);
  }

  clear(): void {}
  finish(): void {}
}

const REDRAW_MS = 100;
/** Sooner, so that something is seen at once; what takes less than this needs no bars. */
const FIRST_DRAW_MS = 40;

/** Bars, redrawn in place at most ten times a second. */
export class BarDisplay implements ProgressDisplay {
  readonly #stream: OutputStream;
  readonly #now: () => number;
  readonly #tasks = new TaskList();
  readonly #redraw = (): void => this.#draw();
  /** Widths of the lines on the screen, top first; the cursor is on the line below them. */
  #drawn: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #first: NodeJS.Timeout | undefined;

  constructor(stream: OutputStream, now: () => number = Date.now) {
    this.#stream = stream;
    this.#now = now;
    stream.on("resize", this.#redraw);
  }

  update(step: ProgressStep): void {
    this.#tasks.take(step, this.#now());
    // Unref'd: a display that is never finished must not keep the process alive.
    this.#timer ??= setInterval(this.#redraw, REDRAW_MS).unref();
    this.#first ??= setTimeout(this.#redraw, FIRST_DRAW_MS).unref();
  }

  clear(): void {
    if (this.#drawn.length > 0) this.#stream.write(this.#eraseSequence());
    this.#drawn = [];
    clearInterval(this.#timer);
    this.#timer = undefined;
    clearTimeout(this.#first);
    this.#first = undefined;
  }

  finish(): void {
    this.clear();
    this.#stream.off("resize", this.#redraw);
  }

  #draw(): void {
    const tasks = this.#tasks.list();
    // Nothing but finished tasks is no news, and would only flash before it is erased.
    if (tasks.length === 0 || (this.#drawn.length === 0 && tasks.every(isFinished))) return;
    const lines = renderFrame(tasks, screenSize(this.#stream), this.#now());
    // One write, so that no half-drawn frame is ever seen.
    this.#stream.write(`${this.#eraseSequence()}${lines.map((line) => `${line}\n`).join("")}`);
    this.#drawn = lines.map(displayWidth);
  }

  /** Goes up to the first drawn line and erases from there to the end of the screen. */
  #eraseSequence(): string {
    const { columns } = screenSize(this.#stream);
    // A terminal that became narrower has wrapped the lines: they take more rows than were written.
    const rows = this.#drawn.reduce(
      (sum, width) => sum + Math.max(1, Math.ceil(width / columns)),
      0,
    );
    return rows === 0 ? "" : `\r\x1b[${rows}A\x1b[J`;
  }
}
