/**
 * Lower files with several names.
 *
 * Such a file must stay one file after any of its names is copied up. Its upper object lives in the
 * index area under its index inode number, and that place is its identity: a lower name that has not
 * been linked into the upper yet still leads there, because `has` knows the number. Right after
 * copy-up every lower name that can be found is linked, so that the upper directory alone shows
 * the whole change; names in moved directories that nobody has visited follow when somebody does.
 *
 * The view's link count is upper st_nlink plus the number in attribute `nlink`: "U+n" or "U-n". The
 * number changes only when a lower name is linked, which leaves the view's count alone: around
 * that step the attribute has the form "L+n" or "L-n", relative to the lower link count, so that it is
 * right both before and after, and a crash in between loses nothing.
 */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, fromBuffer, toBuffer } from "../system/bytes.js";
import { AT_SYMLINK_NOFOLLOW, S_IFDIR, S_IFMT } from "../system/constants.js";
import { EEXIST } from "../system/errno.js";
import { STAT_NLINK } from "../system/native.js";
import { keepingDirectoryTimes } from "./directory-times.js";
import { INDEX_AREA, OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

/** Which hard-linked lower files have an upper object. */
export class HardLinks {
  readonly #tree: OverlayTree;
  readonly #inodes = new Set<number>();

  constructor(tree: OverlayTree) {
    this.#tree = tree;
  }

  /** Reads the index area. */
  load(): void {
    const { backing, index, reader } = this.#tree;
    for (const name of backing.list(backing.indexFd)) {
      const inode = Number(name);
      if (index.isLive && reader.redirected(backing.indexFd, name) !== inode) continue;
      if (index.has(inode)) this.#inodes.add(inode);
    }
  }

  has(id: NodeId): boolean {
    return this.#inodes.has(id);
  }

  add(inode: number): void {
    this.#inodes.add(inode);
  }

  delete(inode: number): void {
    this.#inodes.delete(inode);
  }

  /** True for a lower inode that must be copied up into the index area. */
  isShared(inode: number): boolean {
    const { index } = this.#tree;
    return index.has(inode) && (index.mode(inode) & S_IFMT) !== S_IFDIR && index.nlink(inode) > 1;
  }

  indexName(inode: number): ByteString {
    return String(inode) as ByteString;
  }

  /** The node of a copied-up shared inode. */
  node(inode: number): OverlayNode {
    const tree = this.#tree;
    const known = tree.nodes.get(inode);
    if (known?.hasUpper) return known;
    const node = known ?? tree.nodes.add(new OverlayNode(inode, tree.index.mode(inode) & S_IFMT));
    node.indexed = true;
    node.removed = false;
    tree.nodes.addPlace(node, INDEX_AREA, this.indexName(inode));
    const { indexFd } = tree.backing;
    if (tree.reader.hasMetacopy(indexFd, this.indexName(inode))) node.dataInode = inode;
    this.#readCount(node);
    return node;
  }

  #readCount(node: OverlayNode): void {
    const { indexFd, attributes } = this.#tree.backing;
    const name = this.indexName(node.id);
    const value = sys.getxattrat(indexFd, name, attributes.nlink);
    const text = typeof value === "number" ? "L+0" : fromBuffer(value);
    const number = Number.parseInt(text.slice(1), 10) || 0;
    if (text.startsWith("U")) {
      node.nlinkDelta = number;
      return;
    }
    sys.statx(indexFd, name, AT_SYMLINK_NOFOLLOW, this.#tree.stat);
    const union = this.#tree.index.nlink(node.id) + number;
    this.writeCount(node, union - this.#tree.stat[STAT_NLINK]!);
  }

  /** Sets the count's form for normal life: relative to the upper's. */
  writeCount(node: OverlayNode, delta: number): Result {
    node.nlinkDelta = delta;
    return this.#write(node, "U", delta);
  }

  #write(node: OverlayNode, form: "U" | "L", number: number): Result {
    const text = `${form}${number < 0 ? "-" : "+"}${Math.abs(number)}` as ByteString;
    const { indexFd, attributes } = this.#tree.backing;
    return sys.setxattrat(indexFd, this.indexName(node.id), attributes.nlink, toBuffer(text), 0);
  }

  /** The view's link count of an indexed node. */
  count(node: OverlayNode): number | Result {
    const { indexFd } = this.#tree.backing;
    const result = sys.statx(
      indexFd,
      this.indexName(node.id),
      AT_SYMLINK_NOFOLLOW,
      this.#tree.stat,
    );
    return result < 0 ? result : Math.max(0, this.#tree.stat[STAT_NLINK]! + node.nlinkDelta);
  }

  /** Links one lower name of an indexed node into its parent's upper directory, which must exist. */
  linkName(node: OverlayNode, parent: NodeId, name: ByteString): Result {
    const tree = this.#tree;
    const directory = tree.nodes.get(parent)!;
    const state = tree.directory(directory);
    if (typeof state === "number") return state;
    if (state.get(name) !== undefined) return 0;
    const dirfd = tree.directoryFd(parent);
    if (dirfd < 0) return dirfd;
    const union = this.count(node);
    if (union < 0) return union;
    const marked = this.#write(node, "L", union - tree.index.nlink(node.id));
    if (marked < 0) return marked;
    const linked = keepingDirectoryTimes(dirfd, () =>
      sys.linkat(tree.backing.indexFd, this.indexName(node.id), dirfd, name, 0),
    );
    if (linked < 0 && linked !== -EEXIST) {
      this.writeCount(node, node.nlinkDelta);
      return linked;
    }
    state.setObject(name, node.type, node.id);
    return this.writeCount(node, node.nlinkDelta - 1);
  }
}
