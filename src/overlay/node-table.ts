/**
 * What is known in memory of nodes.
 *
 * A *lower-born* node comes from the chain index: its ID is its index inode. An *upper-born* node
 * was made in the view: its ID is `UPPER_BORN` plus the inode number of its backing file. Both are
 * also st_ino, and both survive remounts: the first because copy-up records it in the attribute
 * `varve`, the second because a backing file keeps its number for life.
 *
 * A backing inode number is used again once its file is gone, so a file that the kernel still
 * references must not go: its last name moves to the orphans directory and is removed at the last
 * FORGET. An ID is therefore never reused while the kernel knows it, and the generation stays 0.
 *
 * A lower-born node needs no object here until it gets an upper part. Only its lookups are counted,
 * in pages of numbers made on first use.
 */

import type { NodeId } from "../fuse/file-system.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR } from "../system/constants.js";
import type { DirectoryState } from "./directory-state.js";

/** Added to a backing inode number to make an upper-born ID. Index inodes stay below 2^32. */
export const UPPER_BORN = 2 ** 48;

/** Pseudo parents: directories of the work directory, where an upper object may live too. */
export const INDEX_AREA: NodeId = -1;
export const ORPHAN_AREA: NodeId = -2;
export const TEMPORARY_AREA: NodeId = -3;

/** A name of an upper object: in the upper directory of node `parent`, or in an area. */
export interface Place {
  readonly parent: NodeId;
  readonly name: ByteString;
}

/** A node with an upper part, or one that lost its last name while the kernel references it. */
export class OverlayNode {
  readonly id: NodeId;
  /** S_IFMT bits. */
  readonly type: number;
  /** Kernel references; counted here for upper-born nodes only. */
  lookups = 0;
  /** Known names of the upper object, best first; empty while there is no upper object. */
  readonly places: Place[] = [];
  /** The index inode that still holds this file's data (metacopy), or 0. */
  dataInode = 0;
  /** No name in the view any more: a removed directory, or a removed lower file. */
  removed = false;
  /** The upper object lives in the index area; its names there are not tracked. */
  indexed = false;
  /** Added to the upper object's st_nlink to give the view's (indexed nodes only). */
  nlinkDelta = 0;
  /** A file made in this session without extended attributes, and not given any since. */
  isBare = false;
  /** Its file may be mapped for writing in passthrough: its times change without a request. */
  isVolatile = false;
  /** How often the kernel was made to take a new inode for it; see `Attributes.incarnation`. */
  incarnation = 0;
  /** How many nodes have a place in this directory. */
  children = 0;
  /** Of a directory: the index inode whose entries show through, or 0. */
  lower = 0;
  /** Of a directory: its state once loaded. */
  directory: DirectoryState | undefined = undefined;

  constructor(id: NodeId, type: number) {
    this.id = id;
    this.type = type;
  }

  get isDirectory(): boolean {
    return this.type === S_IFDIR;
  }

  get hasUpper(): boolean {
    return this.places.length > 0;
  }

  /** Its last name waits in the orphans directory. */
  get isOrphan(): boolean {
    return this.places.length > 0 && this.places[this.places.length - 1]!.parent === ORPHAN_AREA;
  }

  /** The place with this name, or -1. */
  indexOfPlace(parent: NodeId, name: ByteString): number {
    return this.places.findIndex((place) => place.parent === parent && place.name === name);
  }
}

const PAGE = 1024;
/** Longer than a process that has an answer of the last daemon takes to give a reference back. */
const SETTLING_MS = 5000;

/** Nodes by ID, and the kernel's references. */
export class NodeTable {
  readonly #nodes = new Map<NodeId, OverlayNode>();
  readonly #pages: (Uint32Array | undefined)[] = [];
  /** After `inherit`: the nodes whose references are all counted here. */
  #counted: Set<NodeId> | undefined;
  #settledMs = 0;

  /** How many node objects there are (for tests and metrics). */
  get size(): number {
    return this.#nodes.size;
  }

  get(id: NodeId): OverlayNode | undefined {
    return this.#nodes.get(id);
  }

  add(node: OverlayNode): OverlayNode {
    this.#nodes.set(node.id, node);
    return node;
  }

  /** Records a name; a place in a directory keeps that directory's node alive. */
  addPlace(node: OverlayNode, parent: NodeId, name: ByteString): void {
    if (node.indexOfPlace(parent, name) >= 0) return;
    // The orphan place stays last: `isOrphan` looks there, and a real name is preferred.
    if (node.isOrphan) node.places.unshift({ parent, name });
    else node.places.push({ parent, name });
    const directory = this.#nodes.get(parent);
    if (directory !== undefined) directory.children++;
  }

  removePlace(node: OverlayNode, parent: NodeId, name: ByteString): void {
    const at = node.indexOfPlace(parent, name);
    if (at < 0) return;
    node.places.splice(at, 1);
    this.#releaseChild(parent);
  }

  /** The kernel got one more reference. */
  retain(id: NodeId): void {
    if (id >= UPPER_BORN) {
      const node = this.#nodes.get(id);
      if (node !== undefined) node.lookups++;
      return;
    }
    const number = Math.floor(id / PAGE);
    let page = this.#pages[number];
    if (page === undefined) {
      page = new Uint32Array(PAGE);
      this.#pages[number] = page;
    }
    page[id % PAGE]!++;
  }

  /**
   * The kernel holds references that another process counted. Of a node it may have known before, it
   * is only learned that it knows it no more: when it drops more than were counted here, since it
   * drops all at once. But for one: a reference that it got for a name that turned out to be
   * another's it gives back by itself, which right after the change of processes looks the same.
   */
  inherit(): void {
    this.#counted = new Set();
    this.#settledMs = performance.now() + SETTLING_MS;
  }

  /** Whether a reference may be one of those. Its node had a name, so it is none that waits to be deleted. */
  #mayBeOneOfMany(id: NodeId, count: number): boolean {
    if (count !== 1 || this.#nodes.get(id)?.isOrphan === true) return false;
    return performance.now() < this.#settledMs;
  }

  /** The kernel cannot have known this node before: it was just made. */
  countFromZero(id: NodeId): void {
    this.#counted?.add(id);
  }

  /** How many references the kernel holds: at least so many, after `inherit`. */
  lookups(id: NodeId): number {
    return this.#lookupsHere(id) + this.#inherited(id);
  }

  /** 1 for a node that the kernel may know from before. */
  #inherited(id: NodeId): number {
    return this.#counted === undefined || this.#counted.has(id) ? 0 : 1;
  }

  #lookupsHere(id: NodeId): number {
    if (id >= UPPER_BORN) return this.#nodes.get(id)?.lookups ?? 0;
    return this.#pages[Math.floor(id / PAGE)]?.[id % PAGE] ?? 0;
  }

  /** The kernel dropped `count` references: how many remain. */
  release(id: NodeId, count: number): number {
    const here = this.#lookupsHere(id);
    const left = Math.max(0, here - count);
    if (count > here && !this.#mayBeOneOfMany(id, count)) this.#counted?.add(id);
    if (id >= UPPER_BORN) {
      const node = this.#nodes.get(id);
      if (node !== undefined) node.lookups = left;
    } else {
      const page = this.#pages[Math.floor(id / PAGE)];
      if (page !== undefined) page[id % PAGE] = left;
    }
    return left + this.#inherited(id);
  }

  /** Forgets a node's object when nothing needs it: no reference, no child, not the root. */
  dropUnused(id: NodeId): void {
    const node = this.#nodes.get(id);
    if (node === undefined || id === 1 || node.children > 0 || this.lookups(id) > 0) return;
    this.#nodes.delete(id);
    for (const place of node.places) this.#releaseChild(place.parent);
    node.places.length = 0;
  }

  #releaseChild(parent: NodeId): void {
    const directory = this.#nodes.get(parent);
    if (directory === undefined) return;
    directory.children--;
    this.dropUnused(parent);
  }

  clear(): void {
    this.#nodes.clear();
    this.#pages.length = 0;
  }
}
