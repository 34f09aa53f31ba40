/** The merged tree in the page: what is there after a layer, how large it is, and what that layer did. */

import type { TreeMessage } from "../../src/explore/messages.js";

/** Of `TreeMessage.steps`. */
const STEP_COLUMNS = 6;
/** As src/explore/merged-tree.ts has them. */
export const DIRECTORY = 0;
/** Nothing is there. */
export const ABSENT = -1;
/** The letters of changes, by their numbers. */
export const LETTERS = ["A", "C", "D"] as const;

/** Columns by node. */
export class Tree {
  readonly message: TreeMessage;
  readonly children: readonly (readonly number[])[];
  /** Kind after the chosen layer; ABSENT where nothing is there. */
  readonly kinds: Int8Array;
  /** Bytes, of directories with all below. */
  readonly sizes: Float64Array;
  /** Files below. */
  readonly files: Uint32Array;
  /** What the chosen layer did to the node itself: a place in LETTERS, or -1. */
  readonly marks: Int8Array;
  /** 1 where it did something to the node or to anything below. */
  readonly touched: Uint8Array;
  /** The layer that the node's present state comes from. */
  readonly origins: Int32Array;
  /** The chosen layer. */
  layer = 0;

  constructor(message: TreeMessage) {
    this.message = message;
    const size = message.names.length;
    const children: number[][] = Array.from({ length: size }, () => []);
    message.parents.forEach((parent, node) => {
      if (parent >= 0) children[parent]!.push(node);
    });
    this.children = children;
    this.kinds = new Int8Array(size);
    this.sizes = new Float64Array(size);
    this.files = new Uint32Array(size);
    this.marks = new Int8Array(size);
    this.touched = new Uint8Array(size);
    this.origins = new Int32Array(size);
    this.choose(message.layers.length - 1);
  }

  /** Shows the tree as it is after `layer`. */
  choose(layer: number): void {
    this.layer = layer;
    this.kinds.fill(ABSENT);
    this.marks.fill(-1);
    this.sizes.fill(0);
    this.files.fill(0);
    this.touched.fill(0);
    this.#applySteps(layer);
    this.#sumUp();
  }

  #applySteps(layer: number): void {
    const { steps } = this.message;
    for (let at = 0; at < steps.length; at += STEP_COLUMNS) {
      const node = steps[at]!;
      const from = steps[at + 1]!;
      if (from > layer) continue;
      const kind = steps[at + 3]!;
      this.kinds[node] = kind;
      this.sizes[node] = steps[at + 4]!;
      this.origins[node] = from;
      this.files[node] = kind > DIRECTORY ? 1 : 0;
      if (from === layer) {
        this.marks[node] = steps[at + 2]!;
        this.touched[node] = 1;
      }
    }
  }

  /** Parents come before their children: backwards, every node is complete when its parent gets it. */
  #sumUp(): void {
    const { parents } = this.message;
    for (let node = parents.length - 1; node > 0; node--) {
      const parent = parents[node]!;
      this.sizes[parent]! += this.sizes[node]!;
      this.files[parent]! += this.files[node]!;
      this.touched[parent]! |= this.touched[node]!;
    }
  }

  /** Whether the node is to be seen: it is there, or the chosen layer has removed it. */
  isShown(node: number): boolean {
    return this.kinds[node] !== ABSENT || this.marks[node] === 2;
  }

  /** Whether it can be opened. */
  hasChildren(node: number): boolean {
    return this.children[node]!.some((child) => this.isShown(child));
  }

  /** "/usr/bin/env" */
  path(node: number): string {
    const names: string[] = [];
    for (let at = node; at > 0; at = this.message.parents[at]!) names.push(this.message.names[at]!);
    return `/${names.reverse().join("/")}`;
  }

  /** The node with that path, or undefined. */
  find(path: string): number | undefined {
    let node: number | undefined = 0;
    for (const name of path.split("/")) {
      if (name === "") continue;
      const at: number | undefined = node;
      node =
        at === undefined
          ? undefined
          : this.children[at]!.find((child) => this.message.names[child] === name);
    }
    return node;
  }
}
