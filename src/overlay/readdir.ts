/**
 * READDIR and READDIRPLUS of merged directories.
 *
 * Cookies: 1 ".", 2 "..", then 3 + position in the index for every name that the lower directory
 * has, and far above those what name-cookie.ts makes of each other name (directory-state.ts says why).
 */

import {
  type DirectorySink,
  type Entry,
  emptyAttributes,
  type NodeId,
  type Result,
} from "../fuse/file-system.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR } from "../system/constants.js";
import { ENOENT, ENOTDIR, ESTALE } from "../system/errno.js";
import { getAttributes } from "./attributes.js";
import type { DirectoryState, UpperName } from "./directory-state.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

const DOT = "." as ByteString;
const DOT_DOT = ".." as ByteString;
const DOTS = 2;

function emptyEntry(): Entry {
  return { node: 0, generation: 0, attributes: emptyAttributes() };
}

/** Reads directories of one view. Holds the entry that it reuses. */
export class DirectoryReader {
  readonly #tree: OverlayTree;
  readonly #entry = emptyEntry();
  #plus = false;
  #sink!: DirectorySink;

  constructor(tree: OverlayTree) {
    this.#tree = tree;
  }

  /** Hands out the entries after cookie `offset` until the sink is full. */
  read(id: NodeId, offset: number, plus: boolean, sink: DirectorySink): Result {
    const tree = this.#tree;
    const type = tree.typeOf(id);
    if (type !== S_IFDIR) return type === 0 ? -ESTALE : -ENOTDIR;
    this.#plus = plus;
    this.#sink = sink;
    if (offset < 1 && !this.#dot(DOT, id, 1)) return 0;
    if (offset < 2 && !this.#dot(DOT_DOT, tree.parentOf(id), 2)) return 0;
    const node = tree.nodes.get(id);
    if (node === undefined || !node.hasUpper) {
      return node?.removed ? 0 : this.#lowerOnly(id, offset);
    }
    if (node.removed) return 0;
    const state = tree.directory(node);
    if (typeof state === "number") return state;
    return this.#merged(node, state, offset);
  }

  #dot(name: ByteString, id: NodeId, cookie: number): boolean {
    if (!this.#plus) return this.#sink.add(name, id, S_IFDIR, cookie);
    const { attributes } = this.#entry;
    this.#entry.node = 0;
    attributes.ino = id;
    attributes.mode = S_IFDIR;
    return this.#sink.addPlus(name, cookie, this.#entry);
  }

  #lowerOnly(id: NodeId, offset: number): Result {
    const { index } = this.#tree;
    const first = index.firstEntry(id);
    const end = index.endEntry(id);
    for (let entry = first + Math.max(0, offset - DOTS); entry < end; entry++) {
      const cookie = entry - first + DOTS + 1;
      const inode = index.entryInode(entry);
      const more = this.#give(index.entryName(entry), inode, index.mode(inode), cookie);
      if (more <= 0) return more;
    }
    return 0;
  }

  #merged(node: OverlayNode, state: DirectoryState, offset: number): Result {
    const { index } = this.#tree;
    const { lower } = state;
    const first = lower === 0 ? 0 : index.firstEntry(lower);
    const end = lower === 0 ? 0 : index.endEntry(lower);
    for (let entry = first + Math.max(0, offset - DOTS); entry < end; entry++) {
      const cookie = entry - first + DOTS + 1;
      const name = index.entryName(entry);
      const upper = state.get(name);
      if (upper?.isWhiteout) continue;
      const inode = index.entryInode(entry);
      const more =
        upper === undefined
          ? this.#give(name, inode, index.mode(inode), cookie)
          : this.#giveUpper(node, state, upper, cookie);
      if (more <= 0) return more;
    }
    for (const upper of state.upperOnlyAfter(offset)) {
      const more = this.#giveUpper(node, state, upper, upper.cookie);
      if (more <= 0) return more;
    }
    return 0;
  }

  #giveUpper(
    directory: OverlayNode,
    state: DirectoryState,
    upper: UpperName,
    cookie: number,
  ): number {
    const tree = this.#tree;
    if (this.#plus) {
      tree.described = 0;
      const id = tree.attach(directory, state, upper);
      // Gone behind our back: the listing goes on without it.
      if (id < 0) return id === -ENOENT ? 1 : id;
      return this.#give(upper.name, id, 0, cookie, tree.described === id);
    }
    if (upper.id === 0) {
      const identified = tree.identify(directory, state, upper);
      if (identified < 0) return identified === -ENOENT ? 1 : identified;
    }
    return this.#sink.add(upper.name, upper.id, upper.type, cookie) ? 1 : 0;
  }

  /** 1 to go on, 0 when the sink is full, or a negative errno. */
  #give(name: ByteString, id: NodeId, mode: number, cookie: number, described = false): number {
    if (!this.#plus) return this.#sink.add(name, id, mode, cookie) ? 1 : 0;
    const tree = this.#tree;
    const entry = this.#entry;
    const result = getAttributes(tree, id, entry.attributes, described);
    if (result < 0) return result;
    entry.node = id;
    const taken = this.#sink.addPlus(name, cookie, entry);
    if (taken) tree.nodes.retain(id);
    else tree.nodes.dropUnused(id);
    return taken ? 1 : 0;
  }
}
