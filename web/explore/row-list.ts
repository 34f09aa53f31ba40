/** A list of rows that have nothing below them: wasted bytes, and what two images differ in. */

import { make } from "./dom.js";
import type { Panel } from "./panel.js";
import { VirtualList } from "./virtual-list.js";

/** A row of it. */
export interface Row {
  readonly mark: string;
  readonly size: string;
  readonly text: string;
  readonly aside: string;
  /** To choose when the row is. */
  readonly node: number | undefined;
}

/** The panels "Wasted" and "Compare". */
export class RowList implements Panel {
  readonly #rows: () => readonly Row[];
  readonly #onChoose: (node: number) => void;
  readonly #list: VirtualList;
  #shown: readonly Row[] = [];
  #chosen = -1;

  constructor(element: HTMLElement, rows: () => readonly Row[], onChoose: (node: number) => void) {
    this.#rows = rows;
    this.#onChoose = onChoose;
    this.#list = new VirtualList(element, (row) => this.#draw(row));
    this.refresh();
    if (this.#shown.length === 0) {
      element.append(make("div", { className: "note", textContent: "Nothing here." }));
    }
  }

  refresh(): void {
    this.#shown = this.#rows();
    this.#list.setLength(this.#shown.length);
  }

  onKey(event: KeyboardEvent): boolean {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: this.#list.pageRows,
      PageUp: -this.#list.pageRows,
    };
    const step = steps[event.key];
    if (step === undefined) return false;
    this.#choose(Math.min(Math.max(0, this.#chosen + step), this.#shown.length - 1));
    return true;
  }

  close(): void {
    this.#list.close();
  }

  #draw(row: number): HTMLElement {
    const { mark, size, text, aside } = this.#shown[row]!;
    const element = make(
      "div",
      { className: mark },
      make("span", { className: "mark", textContent: mark }),
      make("span", { className: "size", textContent: size }),
      make("span", { className: "name", textContent: text }),
      make("span", { className: "aside", textContent: aside }),
    );
    if (row === this.#chosen) element.classList.add("chosen");
    element.onclick = () => this.#choose(row);
    return element;
  }

  #choose(row: number): void {
    this.#chosen = row;
    this.#list.reveal(row);
    this.#list.render();
    const node = this.#shown[row]?.node;
    if (node !== undefined) this.#onChoose(node);
  }
}
