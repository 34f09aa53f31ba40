/** The tree as a list: open and closed directories, or the paths that match a search. */

import { count, humanSize, make } from "./dom.js";
import type { Panel } from "./panel.js";
import { ABSENT, DIRECTORY, LETTERS, type Tree } from "./tree.js";
import { VirtualList } from "./virtual-list.js";

/** How the list is to be. */
export interface ListOptions {
  readonly search: string;
  readonly onlyChanges: boolean;
  readonly bySize: boolean;
}

/** The panel "Files". */
export class FileList implements Panel {
  readonly #tree: Tree;
  readonly #options: () => ListOptions;
  readonly #onChoose: (node: number) => void;
  readonly #list: VirtualList;
  /** Nodes whose children are shown. */
  readonly #open: Set<number>;
  #nodes: number[] = [];
  #depths: number[] = [];
  #chosen = 0;

  /** @param open kept by the caller, so that it outlives the panel */
  constructor(
    element: HTMLElement,
    tree: Tree,
    open: Set<number>,
    options: () => ListOptions,
    onChoose: (node: number) => void,
  ) {
    this.#tree = tree;
    this.#open = open;
    this.#options = options;
    this.#onChoose = onChoose;
    this.#list = new VirtualList(element, (row) => this.#draw(row));
    this.refresh();
  }

  refresh(): void {
    this.#nodes = [];
    this.#depths = [];
    const { search } = this.#options();
    if (search === "") this.#addChildren(0, 0);
    else this.#addMatches(search.toLowerCase());
    this.#list.setLength(this.#nodes.length);
  }

  /** Opens what is above the node, and chooses it. */
  show(node: number): void {
    for (let at = this.#tree.message.parents[node]!; at > 0; at = this.#tree.message.parents[at]!) {
      this.#open.add(at);
    }
    this.refresh();
    this.#choose(this.#nodes.indexOf(node));
  }

  onKey(event: KeyboardEvent): boolean {
    const row = this.#nodes.indexOf(this.#chosen);
    switch (event.key) {
      case "ArrowDown":
        return this.#choose(row + 1);
      case "ArrowUp":
        return this.#choose(Math.max(0, row - 1));
      case "PageDown":
        return this.#choose(Math.min(row + this.#list.pageRows, this.#nodes.length - 1));
      case "PageUp":
        return this.#choose(Math.max(0, row - this.#list.pageRows));
      case "Home":
        return this.#choose(0);
      case "End":
        return this.#choose(this.#nodes.length - 1);
      case "ArrowRight":
        return this.#set(this.#chosen, true);
      case "ArrowLeft":
        if (this.#open.has(this.#chosen)) return this.#set(this.#chosen, false);
        return this.#choose(this.#nodes.indexOf(this.#tree.message.parents[this.#chosen]!));
      case "Enter":
      case " ":
        return this.#set(this.#chosen, !this.#open.has(this.#chosen));
      default:
        return false;
    }
  }

  close(): void {
    this.#list.close();
  }

  #isListed(node: number): boolean {
    if (!this.#tree.isShown(node)) return false;
    return !this.#options().onlyChanges || this.#tree.touched[node] === 1;
  }

  #addChildren(node: number, depth: number): void {
    for (const child of this.#sorted(this.#tree.children[node]!)) {
      if (!this.#isListed(child)) continue;
      this.#nodes.push(child);
      this.#depths.push(depth);
      if (this.#open.has(child)) this.#addChildren(child, depth + 1);
    }
  }

  #addMatches(search: string): void {
    const { names } = this.#tree.message;
    const isPath = search.includes("/");
    for (let node = 1; node < names.length; node++) {
      const text = isPath ? this.#tree.path(node) : names[node]!;
      if (!text.toLowerCase().includes(search) || !this.#isListed(node)) continue;
      this.#nodes.push(node);
      this.#depths.push(-1);
    }
    this.#nodes = this.#options().bySize ? this.#sorted(this.#nodes) : this.#nodes;
  }

  #sorted(nodes: readonly number[]): number[] {
    const { names } = this.#tree.message;
    if (this.#options().bySize) {
      return nodes.toSorted((a, b) => this.#tree.sizes[b]! - this.#tree.sizes[a]!);
    }
    return nodes.toSorted((a, b) => (names[a]! < names[b]! ? -1 : 1));
  }

  #draw(row: number): HTMLElement {
    const node = this.#nodes[row]!;
    const depth = this.#depths[row]!;
    const tree = this.#tree;
    const mark = tree.marks[node]! < 0 ? "" : LETTERS[tree.marks[node]!]!;
    const inner = mark === "" && tree.touched[node] === 1 ? "·" : mark;
    const isOpen = this.#open.has(node);
    const arrow = depth < 0 || !tree.hasChildren(node) ? "" : isOpen ? "▾" : "▸";
    const isDirectory = tree.kinds[node] === DIRECTORY;
    const name = depth < 0 ? tree.path(node) : tree.message.names[node]!;
    const element = make(
      "div",
      { className: mark },
      make("span", { className: "mark", textContent: inner }),
      make("span", {
        className: "size",
        textContent: tree.kinds[node] === ABSENT ? "" : humanSize(tree.sizes[node]!),
      }),
      make("span", { textContent: "  ".repeat(Math.max(0, depth)) }),
      make("span", { className: "arrow", textContent: arrow }),
      make("span", { className: "name", textContent: isDirectory ? `${name}/` : name }),
      make("span", {
        className: "aside",
        textContent: isDirectory ? count(tree.files[node]!) : `layer ${tree.origins[node]! + 1}`,
      }),
    );
    if (node === this.#chosen) element.classList.add("chosen");
    element.onclick = () => {
      this.#choose(row);
      if (isDirectory) this.#set(node, !isOpen);
    };
    return element;
  }

  #choose(row: number): true {
    const node = this.#nodes[row];
    if (node === undefined) return true;
    this.#chosen = node;
    this.#list.reveal(row);
    this.#list.render();
    this.#onChoose(node);
    return true;
  }

  #set(node: number, isOpen: boolean): true {
    if (isOpen) this.#open.add(node);
    else this.#open.delete(node);
    this.refresh();
    return true;
  }
}
