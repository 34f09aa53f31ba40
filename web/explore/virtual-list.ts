/** A list of which only the rows in sight are elements: 60,000 rows scroll as ten do. */

import { make } from "./dom.js";

const ROW_HEIGHT = 22;
const SPARE_ROWS = 8;

/** Rows in a scrolling element. */
export class VirtualList {
  readonly #panel: HTMLElement;
  readonly #rows = make("div", { className: "rows" });
  readonly #draw: (row: number) => HTMLElement;
  readonly #onScroll = () => this.render();
  #length = 0;

  /** @param draw makes the element of a row */
  constructor(panel: HTMLElement, draw: (row: number) => HTMLElement) {
    this.#panel = panel;
    this.#draw = draw;
    panel.replaceChildren(this.#rows);
    panel.addEventListener("scroll", this.#onScroll);
  }

  /** There are so many rows now. */
  setLength(length: number): void {
    this.#length = length;
    this.#rows.style.height = `${length * ROW_HEIGHT}px`;
    this.render();
  }

  /** Draws what is in sight. */
  render(): void {
    const first = Math.max(0, Math.floor(this.#panel.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const rows = Math.ceil(this.#panel.clientHeight / ROW_HEIGHT) + 2 * SPARE_ROWS;
    const elements: HTMLElement[] = [];
    for (let row = first; row < Math.min(first + rows, this.#length); row++) {
      const element = this.#draw(row);
      element.classList.add("row");
      element.style.top = `${row * ROW_HEIGHT}px`;
      elements.push(element);
    }
    this.#rows.replaceChildren(...elements);
  }

  /** Brings a row into sight. */
  reveal(row: number): void {
    const top = row * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.#panel;
    if (top < scrollTop) this.#panel.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + clientHeight) {
      this.#panel.scrollTop = top + ROW_HEIGHT - clientHeight;
    }
  }

  /** Rows that fit. */
  get pageRows(): number {
    return Math.max(1, Math.floor(this.#panel.clientHeight / ROW_HEIGHT) - 1);
  }

  /** Lets the panel go. */
  close(): void {
    this.#panel.removeEventListener("scroll", this.#onScroll);
  }
}
