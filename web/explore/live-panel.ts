/** What a live view has changed so far, and what it is doing. */

import type { LiveMessage } from "../../src/explore/messages.js";
import { count, humanSize, make } from "./dom.js";
import type { Panel } from "./panel.js";
import { ask } from "./questions.js";

const PERIOD_MS = 1000;
/** More names than these tell nothing. */
const SHOWN_OPERATIONS = 4;

/** The panel "Live". */
export class LivePanel implements Panel {
  readonly #element: HTMLElement;
  readonly #subject: number;
  #timer: number | undefined;
  #before: { readonly time: number; readonly operations: LiveMessage["operations"] } | undefined;
  #isClosed = false;

  constructor(element: HTMLElement, subject: number) {
    this.#element = element;
    this.#subject = subject;
    element.replaceChildren(make("div", { className: "note", textContent: "Asking …" }));
    void this.#poll();
  }

  refresh(): void {
    // It does so by itself.
  }

  onKey(): boolean {
    return false;
  }

  close(): void {
    this.#isClosed = true;
    window.clearTimeout(this.#timer);
  }

  async #poll(): Promise<void> {
    try {
      const message = await ask("live", { subject: this.#subject });
      if (this.#isClosed) return;
      this.#show(message);
    } catch (error) {
      if (this.#isClosed) return;
      const text = (error as Error).message;
      this.#element.replaceChildren(make("div", { className: "note", textContent: text }));
    }
    this.#timer = window.setTimeout(() => void this.#poll(), PERIOD_MS);
  }

  #show(message: LiveMessage): void {
    const figure = (title: string, value: string) =>
      make("span", {}, make("b", { textContent: value }), title);
    const figures = [
      figure(message.mounted ? "mounted" : "not mounted", message.mounted ? "●" : "○"),
      figure("changes", count(message.total)),
      figure("written", humanSize(message.bytes)),
      ...this.#rates(message).map(([name, rate]) => figure(`${name}/s`, count(rate))),
    ];
    const rows = message.changes.map(({ kind, path }) =>
      make(
        "div",
        { className: kind },
        `${kind} `,
        make("span", { className: "name", textContent: path }),
      ),
    );
    const cut =
      message.total > rows.length ? [`… and ${count(message.total - rows.length)} more`] : [];
    this.#element.replaceChildren(
      make(
        "div",
        { className: "live" },
        make("div", { className: "figures" }, ...figures),
        ...rows,
        ...cut,
      ),
    );
  }

  /** Requests per second since the last answer: in all, then the most frequent operations. */
  #rates({ operations }: LiveMessage): [string, number][] {
    const now = performance.now();
    const before = this.#before;
    this.#before = { time: now, operations };
    if (before === undefined) return [];
    const seconds = (now - before.time) / 1000;
    const rates = Object.entries(operations).map(([name, total]): [string, number] => [
      name,
      Math.max(0, Math.round((total - (before.operations[name] ?? 0)) / seconds)),
    ]);
    const sum = rates.reduce((all, [, rate]) => all + rate, 0);
    const busiest = rates.filter(([, rate]) => rate > 0).sort((a, b) => b[1] - a[1]);
    return [["operations", sum], ...busiest.slice(0, SHOWN_OPERATIONS)];
  }
}
