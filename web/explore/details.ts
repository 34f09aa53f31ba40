/** The chosen file: what became of it from layer to layer, its content, and what changed in its text. */

import type { StepMessage } from "../../src/explore/messages.js";
import { humanSize, make, modeText } from "./dom.js";
import { ask, type ContentMessage, type DiffMessage } from "./questions.js";
import { DIRECTORY, type Tree } from "./tree.js";

const WORDS = ["added", "changed", "removed"];
const SIGNS: Readonly<Record<string, string>> = { "+": "plus", "-": "minus" };

/** The right side of the page. */
export class Details {
  readonly #element: HTMLElement;
  #request = 0;

  constructor(element: HTMLElement) {
    this.#element = element;
    this.clear();
  }

  /** Nothing is chosen. */
  clear(): void {
    this.#request++;
    this.#element.replaceChildren(
      make("div", { className: "note", textContent: "Choose a file to see its history." }),
    );
  }

  /** Shows a node's history, and the content that its last layer gave it. */
  async show(tree: Tree, subject: number, node: number): Promise<void> {
    const request = ++this.#request;
    const steps = await ask("history", { subject, node });
    if (request !== this.#request) return;
    const body = make("pre", { tabIndex: 0 });
    const rows = steps.map((step, at) => this.#row(step, steps[at - 1], subject, node, body));
    const head = make(
      "div",
      { className: "head" },
      make("h2", { textContent: tree.path(node) }),
      make("table", {}, ...rows),
    );
    this.#element.replaceChildren(head, body);
    const last = steps.findLast(({ kind }) => kind > DIRECTORY);
    if (last !== undefined) await this.#content(subject, node, last.layer, body);
  }

  #row(
    step: StepMessage,
    before: StepMessage | undefined,
    subject: number,
    node: number,
    body: HTMLElement,
  ): HTMLElement {
    const actions: HTMLElement[] = [];
    const button = (text: string, onclick: () => Promise<void>) =>
      actions.push(make("button", { textContent: text, onclick: () => void onclick() }));
    if (step.kind > DIRECTORY) {
      button("content", () => this.#content(subject, node, step.layer, body));
      if (before !== undefined && before.kind === step.kind) {
        button("diff", () => this.#diff(subject, node, before.layer, step.layer, body));
      }
    }
    const isThere = step.kind >= DIRECTORY;
    return make(
      "tr",
      {},
      make("td", { textContent: `layer ${step.layer + 1}` }),
      make("td", { className: "ACD"[step.change]!, textContent: WORDS[step.change]! }),
      make("td", { textContent: isThere && step.kind !== DIRECTORY ? humanSize(step.size) : "" }),
      make("td", {
        textContent: isThere ? `${modeText(step.mode)} ${step.owner}` : "",
        title: step.modified,
      }),
      make("td", {}, ...actions),
    );
  }

  async #content(subject: number, node: number, layer: number, body: HTMLElement): Promise<void> {
    const content: ContentMessage = await ask("content", { subject, node, layer });
    const text = content.form === "target" ? `→ ${content.text}` : content.text;
    body.replaceChildren(text === "" ? "(empty)" : text, content.isCut ? "\n… cut here" : "");
  }

  async #diff(
    subject: number,
    node: number,
    from: number,
    to: number,
    body: HTMLElement,
  ): Promise<void> {
    const diff: DiffMessage = await ask("diff", { subject, node, from, to });
    const lines = diff.lines.map(({ sign, text }) =>
      make("div", { className: SIGNS[sign] ?? "", textContent: `${sign} ${text}` }),
    );
    body.replaceChildren(...(lines.length === 0 ? ["(no text)"] : lines));
    body.querySelector(".plus, .minus")?.scrollIntoView({ block: "center" });
  }
}
