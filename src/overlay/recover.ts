/**
 * Finding the nodes again that the kernel knows from a process that died.
 *
 * The kernel names nodes by ID and may ask about any that it ever got. Those without an upper part
 * are in the index as ever. Every other one is found by walking the upper directory and the orphans,
 * where IDs are in the objects or are the objects' inode numbers. What is left are lower nodes that
 * lost their name while somebody had them open: they are what upper names hide.
 */

import type { NodeId } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { AT_SYMLINK_NOFOLLOW, S_IFDIR, S_IFMT } from "../system/constants.js";
import { must } from "../system/errno.js";
import { STAT_MODE, STAT_RDEV } from "../system/native.js";
import { ROOT_INODE } from "./chain-index.js";
import { DirectoryState } from "./directory-state.js";
import { isWhiteout } from "./format.js";
import { ORPHAN_AREA, OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

/**
 * Makes a fresh tree know what its predecessor on the same directories knew.
 *
 * @throws SyscallError the upper directory cannot be read
 */
export function recoverNodes(tree: OverlayTree): void {
  tree.nodes.inherit();
  if (!tree.writable) return;
  const hidden = walkUpper(tree);
  recoverOrphans(tree);
  markRemoved(tree, hidden);
}

/** What only open descriptors hold, and leftovers of a removal that was cut short. */
function recoverOrphans(tree: OverlayTree): void {
  const { orphanFd } = tree.backing;
  const nowhere = new DirectoryState(tree.index, 0);
  for (const name of tree.backing.list(orphanFd)) {
    const id = Number(name);
    if (sys.statx(orphanFd, name, AT_SYMLINK_NOFOLLOW, tree.stat) < 0) continue;
    const mode = tree.stat[STAT_MODE]!;
    const known = tree.nodes.get(id);
    // A stand-in for an object that is still in its place.
    if (isWhiteout(mode, tree.stat[STAT_RDEV]!) || (known?.hasUpper && known.isDirectory)) {
      tree.backing.purge(orphanFd, name);
      continue;
    }
    const node = known ?? tree.nodes.add(new OverlayNode(id, mode & S_IFMT));
    if (node.isDirectory) node.removed = true;
    else if (tree.reader.read(orphanFd, name, nowhere) >= 0) {
      node.dataInode = tree.reader.object.dataInode;
    }
    tree.nodes.addPlace(node, ORPHAN_AREA, name);
  }
}

/** Attaches every object of the upper directory. @returns the lower inodes that their names hide */
function walkUpper(tree: OverlayTree): number[] {
  const hidden: number[] = [];
  const directories: NodeId[] = [ROOT_INODE];
  for (let id = directories.pop(); id !== undefined; id = directories.pop()) {
    const node = tree.nodes.get(id)!;
    const state = tree.directory(node);
    if (typeof state === "number") {
      must(state, "read", "upper directory");
      continue;
    }
    for (const entry of state.names()) {
      const attached = entry.isWhiteout ? 0 : tree.attach(node, state, entry);
      if (entry.type === S_IFDIR && attached > 0) directories.push(attached);
      const lower = state.lowerInode(entry.name);
      if (lower !== 0 && lower !== attached) hidden.push(lower);
    }
  }
  return hidden;
}

/** What is hidden and has not moved elsewhere has no name any more; nor has anything below it. */
function markRemoved(tree: OverlayTree, hidden: number[]): void {
  const { index } = tree;
  for (let id = hidden.pop(); id !== undefined; id = hidden.pop()) {
    const known = tree.node(id);
    // Removing one of several names copies a file up first, so without a copy others are left.
    if (known?.hasUpper || tree.hardLinks.isShared(id)) continue;
    const node = known ?? tree.nodes.add(new OverlayNode(id, index.mode(id) & S_IFMT));
    node.removed = true;
    if (!node.isDirectory) continue;
    const end = index.endEntry(id);
    for (let entry = index.firstEntry(id); entry < end; entry++) {
      hidden.push(index.entryInode(entry));
    }
  }
}
