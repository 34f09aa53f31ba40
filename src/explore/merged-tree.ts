/**
 * The merged tree of an image with its history: what each layer added, changed and removed. The layers are
 * applied from the base up; a name that is removed stays, with all that was ever there.
 *
 * Bytes are counted once per file of a layer, however many hard links it has there.
 */

import type { ByteString } from "../system/bytes.js";

/** What a layer did to a name. */
export const CHANGE = { added: 0, changed: 1, removed: 2 } as const;
/** A value of CHANGE. */
export type ChangeKind = (typeof CHANGE)[keyof typeof CHANGE];

/** What a name stands for. */
export const KIND = { directory: 0, file: 1, symlink: 2, other: 3 } as const;
/** A value of KIND. */
export type NodeKind = (typeof KIND)[keyof typeof KIND];

/** What a layer has under a name. */
export interface Entry {
  readonly kind: NodeKind;
  /** Bytes of a file that count; 0 for further links to the same file. */
  readonly size: number;
  /** With the type bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since 1970. */
  readonly mtimeMs: number;
  /** Of a symlink. */
  readonly target?: ByteString;
}

/** One step of a name's history. `entry` is absent where it was removed. */
export interface Step {
  readonly layer: number;
  readonly change: ChangeKind;
  readonly entry?: Entry;
}

/** A name of the merged tree. */
export interface TreeNode {
  /** Its place in `MergedTree.nodes`; parents come before their children. */
  readonly id: number;
  readonly name: ByteString;
  readonly parent: TreeNode | undefined;
  readonly children: Map<ByteString, TreeNode>;
  readonly steps: Step[];
}

/** The last thing that is there under the name, or undefined once it is removed. */
export function presentEntry(node: TreeNode): Entry | undefined {
  return node.steps.at(-1)?.entry;
}

/** The path from the root, without a leading slash; "" for the root itself. */
export function pathOf(node: TreeNode): ByteString {
  const names: string[] = [];
  for (let at: TreeNode | undefined = node; at?.parent !== undefined; at = at.parent) {
    names.push(at.name);
  }
  return names.reverse().join("/") as ByteString;
}

/** Grows layer by layer. */
export class MergedTree {
  readonly nodes: TreeNode[] = [];
  readonly root: TreeNode;

  constructor() {
    this.root = this.#add(undefined, "" as ByteString);
  }

  /** The layer has `entry` as `name` in `parent`; returns its node. */
  put(layer: number, parent: TreeNode, name: ByteString, entry: Entry): TreeNode {
    const node = parent.children.get(name) ?? this.#add(parent, name);
    this.#set(layer, node, entry);
    return node;
  }

  /** The layer has attributes of the root directory. */
  putRoot(layer: number, entry: Entry): void {
    this.#set(layer, this.root, entry);
  }

  /** The layer removes `name` and all below it; nothing happens where nothing is there. */
  remove(layer: number, parent: TreeNode, name: ByteString): void {
    const node = parent.children.get(name);
    if (node !== undefined) removeAll(layer, node);
  }

  /** The layer hides what earlier ones have in the directory. To be called before its own entries are put. */
  removeBelow(layer: number, directory: TreeNode): void {
    for (const child of directory.children.values()) removeAll(layer, child);
  }

  /** The node with that path ("usr/bin/env"), or undefined. */
  find(path: ByteString): TreeNode | undefined {
    let node: TreeNode | undefined = this.root;
    for (const name of path.split("/")) {
      if (name === "") continue;
      node = node?.children.get(name as ByteString);
    }
    return node;
  }

  #add(parent: TreeNode | undefined, name: ByteString): TreeNode {
    const node: TreeNode = {
      id: this.nodes.length,
      name,
      parent,
      children: new Map(),
      steps: [],
    };
    this.nodes.push(node);
    parent?.children.set(name, node);
    return node;
  }

  #set(layer: number, node: TreeNode, entry: Entry): void {
    const before = presentEntry(node);
    if (before === undefined) {
      node.steps.push({ layer, change: CHANGE.added, entry });
      return;
    }
    // Layers repeat the directories above what they change.
    const isDirectory = before.kind === KIND.directory && entry.kind === KIND.directory;
    if (isDirectory && hasSameAttributes(before, entry)) return;
    if (before.kind === KIND.directory && !isDirectory) this.removeBelow(layer, node);
    node.steps.push({ layer, change: CHANGE.changed, entry });
  }
}

function hasSameAttributes(a: Entry, b: Entry): boolean {
  return a.mode === b.mode && a.uid === b.uid && a.gid === b.gid;
}

function removeAll(layer: number, node: TreeNode): void {
  if (presentEntry(node) === undefined) return;
  node.steps.push({ layer, change: CHANGE.removed });
  for (const child of node.children.values()) removeAll(layer, child);
}

/** A file whose bytes are shipped and not seen, because later layers overwrite or remove it. */
export interface Waste {
  readonly node: TreeNode;
  /** Of all its versions that are not seen. */
  readonly bytes: number;
  /** How many those are. */
  readonly versions: number;
}

/** All of them, the largest first. */
export function findWaste(tree: MergedTree): Waste[] {
  const wastes: Waste[] = [];
  for (const node of tree.nodes) {
    const hidden = node.steps.slice(0, -1).filter(({ entry }) => (entry?.size ?? 0) > 0);
    const bytes = hidden.reduce((sum, { entry }) => sum + (entry?.size ?? 0), 0);
    if (bytes > 0) wastes.push({ node, bytes, versions: hidden.length });
  }
  return wastes.sort((a, b) => b.bytes - a.bytes);
}

/** Bytes and names that a layer brings, and what becomes of them. */
export interface LayerTotals {
  readonly bytes: number;
  readonly added: number;
  readonly changed: number;
  readonly removed: number;
}

/** The totals of each of `count` layers. */
export function layerTotals(tree: MergedTree, count: number): LayerTotals[] {
  const totals = Array.from({ length: count }, () => ({
    bytes: 0,
    added: 0,
    changed: 0,
    removed: 0,
  }));
  for (const { steps } of tree.nodes) {
    for (const { layer, change, entry } of steps) {
      const total = totals[layer]!;
      total.bytes += entry?.size ?? 0;
      if (change === CHANGE.added) total.added++;
      else if (change === CHANGE.changed) total.changed++;
      else total.removed++;
    }
  }
  return totals;
}
