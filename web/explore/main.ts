/** The page: what is chosen, which panel is shown, and the keys. */

import type { DifferenceMessage, SubjectMessage } from "../../src/explore/messages.js";
import { Details } from "./details.js";
import { count, humanSize, make, part } from "./dom.js";
import { FileList } from "./file-list.js";
import { drawLayers } from "./layer-list.js";
import { LivePanel } from "./live-panel.js";
import type { Panel } from "./panel.js";
import { ask } from "./questions.js";
import { type Row, RowList } from "./row-list.js";
import { Tree } from "./tree.js";
import { Treemap } from "./treemap.js";

type PanelName = "Files" | "Treemap" | "Wasted" | "Compare" | "Live";

const HINTS =
  "<kbd>↑↓←→</kbd> move  <kbd>[</kbd><kbd>]</kbd> layer  <kbd>/</kbd> search  <kbd>c</kbd> only changes  <kbd>s</kbd> by size  <kbd>1</kbd>–<kbd>5</kbd> panel  <kbd>t</kbd> image  <kbd>r</kbd> read again  <kbd>d</kbd> dark";

class Page {
  readonly #subjects: readonly SubjectMessage[];
  readonly #trees: (Tree | undefined)[] = [];
  readonly #details = new Details(part("details"));
  readonly #search = part("search") as HTMLInputElement;
  readonly #open = new Set<number>();
  #subject = 0;
  #name: PanelName = "Files";
  #panel: Panel | undefined;
  #differences: readonly DifferenceMessage[] | undefined;
  #onlyChanges = false;
  #bySize = false;

  constructor(subjects: readonly SubjectMessage[]) {
    this.#subjects = subjects;
    part("hints").innerHTML = HINTS;
    document.title = `${subjects.map(({ name }) => name).join(" and ")} – varve`;
    this.#search.oninput = () => this.#searched();
    // The server is gone, mostly.
    window.addEventListener("unhandledrejection", (event) => {
      part("hints").textContent = `varve explore does not answer: ${event.reason}`;
      event.preventDefault();
    });
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  get #tree(): Tree {
    return this.#trees[this.#subject]!;
  }

  async start(): Promise<void> {
    await this.#chooseSubject(0);
    part("panel").focus();
    document.body.dataset.ready = "yes";
  }

  async #chooseSubject(subject: number): Promise<void> {
    this.#trees[subject] ??= new Tree(await ask("tree", { subject }));
    this.#subject = subject;
    this.#open.clear();
    this.#details.clear();
    if (this.#name === "Live" && this.#subjects[subject]!.kind !== "view") this.#name = "Files";
    this.#drawSubjects();
    this.#drawAll();
  }

  #drawAll(): void {
    this.#drawLayers();
    this.#drawSummary();
    this.#drawTabs();
    this.#showPanel(this.#name);
  }

  #drawSubjects(): void {
    part("subjects").replaceChildren(
      ...this.#subjects.map(({ name, kind }, number) => {
        const button = make("button", {
          textContent: kind === "view" ? `${name} (view)` : name,
          onclick: () => void this.#chooseSubject(number),
        });
        button.setAttribute("aria-selected", String(number === this.#subject));
        return button;
      }),
    );
  }

  #drawLayers(): void {
    const tree = this.#tree;
    drawLayers(part("layers"), tree.message.layers, tree.layer, (layer) =>
      this.#chooseLayer(layer),
    );
  }

  #drawSummary(): void {
    const { message, sizes, files } = this.#tree;
    const shipped = message.layers.reduce((sum, { bytes }) => sum + bytes, 0);
    const wasted = message.waste.reduce((sum, [, bytes]) => sum + bytes, 0);
    const efficiency = shipped === 0 ? 100 : (100 * (shipped - wasted)) / shipped;
    part("summary").replaceChildren(
      make("b", { textContent: humanSize(sizes[0]!) }),
      ` in ${count(files[0]!)} files, ${message.layers.length} layers; wasted `,
      make("b", { textContent: humanSize(wasted) }),
      ` (${efficiency.toFixed(1)}% of what is shipped is used)`,
    );
  }

  #panelNames(): PanelName[] {
    const names: PanelName[] = ["Files", "Treemap", "Wasted"];
    if (this.#subjects.length > 1) names.push("Compare");
    if (this.#subjects[this.#subject]!.kind === "view") names.push("Live");
    return names;
  }

  #drawTabs(): void {
    const toggle = (text: string, isOn: boolean, onclick: () => void) => {
      const button = make("button", { textContent: text, onclick });
      button.setAttribute("aria-selected", String(isOn));
      return button;
    };
    part("tabs").replaceChildren(
      ...this.#panelNames().map((name) => {
        const button = toggle(name, name === this.#name, () => this.#showPanel(name));
        button.setAttribute("role", "tab");
        return button;
      }),
      make("span", { className: "space" }),
      toggle("only changes", this.#onlyChanges, () => this.#toggle("changes")),
      toggle("by size", this.#bySize, () => this.#toggle("size")),
    );
  }

  #toggle(what: "changes" | "size"): void {
    if (what === "changes") this.#onlyChanges = !this.#onlyChanges;
    else this.#bySize = !this.#bySize;
    this.#drawTabs();
    this.#panel?.refresh();
  }

  #showPanel(name: PanelName): void {
    this.#panel?.close();
    this.#name = name;
    this.#drawTabs();
    const element = part("panel");
    element.scrollTop = 0;
    this.#panel = this.#makePanel(name, element);
    element.focus();
  }

  #makePanel(name: PanelName, element: HTMLElement): Panel {
    const choose = (node: number) => void this.#details.show(this.#tree, this.#subject, node);
    switch (name) {
      case "Files":
        return new FileList(
          element,
          this.#tree,
          this.#open,
          () => ({
            search: this.#search.value,
            onlyChanges: this.#onlyChanges,
            bySize: this.#bySize,
          }),
          choose,
        );
      case "Treemap":
        return new Treemap(element, this.#tree, choose, (text) => {
          part("hints").textContent = text;
        });
      case "Wasted":
        return new RowList(element, () => this.#wasteRows(), choose);
      case "Compare":
        if (this.#differences === undefined) void this.#compare();
        return new RowList(element, () => this.#differenceRows(), choose);
      case "Live":
        return new LivePanel(element, this.#subject);
    }
  }

  #wasteRows(): Row[] {
    const tree = this.#tree;
    return tree.message.waste.map(([node, bytes, versions]) => ({
      mark: "",
      size: humanSize(bytes),
      text: tree.path(node),
      aside: `${versions} hidden ${versions === 1 ? "version" : "versions"}`,
      node,
    }));
  }

  async #compare(): Promise<void> {
    this.#differences = await ask("compare");
    if (this.#name === "Compare") this.#showPanel("Compare");
  }

  #differenceRows(): Row[] {
    const search = this.#search.value.toLowerCase();
    return (this.#differences ?? [])
      .filter(({ path }) => path.toLowerCase().includes(search))
      .map(({ kind, path, left, right }) => ({
        mark: kind,
        size: signed(right - left),
        text: path,
        aside: kind === "C" ? `${humanSize(left)} → ${humanSize(right)}` : "",
        node: this.#tree.find(path),
      }));
  }

  #chooseLayer(layer: number): void {
    const last = this.#tree.message.layers.length - 1;
    this.#tree.choose(Math.min(Math.max(0, layer), last));
    this.#drawLayers();
    this.#drawSummary();
    this.#panel?.refresh();
  }

  #searched(): void {
    if (this.#name !== "Files" && this.#name !== "Compare") this.#showPanel("Files");
    part("panel").scrollTop = 0;
    this.#panel?.refresh();
    this.#search.focus();
  }

  async #readAgain(): Promise<void> {
    const { layer } = this.#tree;
    this.#trees[this.#subject] = new Tree(await ask("refresh", { subject: this.#subject }));
    this.#tree.choose(Math.min(layer, this.#tree.message.layers.length - 1));
    this.#differences = undefined;
    this.#open.clear();
    this.#drawAll();
  }

  #onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === this.#search) {
      if (event.key !== "Escape" && event.key !== "ArrowDown" && event.key !== "Enter") return;
      if (event.key === "Escape") this.#search.value = "";
      this.#searched();
      part("panel").focus();
      event.preventDefault();
      return;
    }
    if (event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) {
      return;
    }
    if (this.#pageKey(event.key) || this.#panel?.onKey(event) === true) event.preventDefault();
  }

  #pageKey(key: string): boolean {
    const panel = this.#panelNames()[Number(key) - 1];
    if (panel !== undefined) this.#showPanel(panel);
    else if (key === "/") this.#search.select();
    else if (key === "[") this.#chooseLayer(this.#tree.layer - 1);
    else if (key === "]") this.#chooseLayer(this.#tree.layer + 1);
    else if (key === "c") this.#toggle("changes");
    else if (key === "s") this.#toggle("size");
    else if (key === "d") toggleTheme();
    else if (key === "r") void this.#readAgain();
    else if (key === "t") void this.#chooseSubject((this.#subject + 1) % this.#subjects.length);
    else return false;
    if (key === "/") this.#search.focus();
    if (key === "d") this.#panel?.refresh();
    return true;
  }
}

function signed(bytes: number): string {
  return `${bytes < 0 ? "−" : "+"}${humanSize(Math.abs(bytes))}`;
}

/** From what the system says to the other, and back. */
function toggleTheme(): void {
  const root = document.documentElement;
  const isDark =
    (root.dataset.theme ??
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = isDark ? "light" : "dark";
}

try {
  await new Page(await ask("subjects")).start();
} catch (error) {
  document.body.textContent = `varve explore: ${(error as Error).message}`;
}
