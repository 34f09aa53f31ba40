/**
 * UNLINK and RMDIR, and what becomes of a node that loses its last name.
 *
 * One rename does a whole removal: it takes the object out of the upper directory and, where a lower
 * name would show again, leaves a whiteout in its place. The object goes to the orphans area while
 * the kernel references it, and to the temporary area otherwise, where it is deleted. A merged
 * directory goes with the whiteouts inside it.
 */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { RENAME_EXCHANGE, RENAME_WHITEOUT, S_IFDIR } from "../system/constants.js";
import { EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EROFS } from "../system/errno.js";
import { faultPoint } from "../system/fault-points.js";
import { ensureUpperDirectory, ensureUpperName } from "./copy-up.js";
import type { DirectoryState } from "./directory-state.js";
import { INDEX_AREA, ORPHAN_AREA, OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

/** Removes a file's name. */
export function unlink(tree: OverlayTree, parent: NodeId, name: ByteString): Result {
  if (!tree.writable) return -EROFS;
  const id = tree.find(parent, name);
  if (id <= 0) return id === 0 ? -ENOENT : id;
  if (tree.typeOf(id) === S_IFDIR) return -EISDIR;
  let result = ensureUpperDirectory(tree, parent);
  if (result < 0) return result;
  // The other names of a hard-linked file must learn of the loss: it is copied up first.
  if (tree.hardLinks.isShared(id)) {
    result = ensureUpperName(tree, id, parent, name);
    if (result < 0) return result;
  }
  const state = tree.directory(tree.nodes.get(parent)!);
  if (typeof state === "number") return state;
  if (state.get(name) === undefined) result = hideLower(tree, parent, state, name);
  else result = removeUpperFile(tree, tree.node(id)!, parent, state, name);
  if (result < 0) return result;
  settleRemoved(tree, id);
  return 0;
}

/** Removes an empty directory. */
export function rmdir(tree: OverlayTree, parent: NodeId, name: ByteString): Result {
  if (!tree.writable) return -EROFS;
  const id = tree.find(parent, name);
  if (id <= 0) return id === 0 ? -ENOENT : id;
  if (tree.typeOf(id) !== S_IFDIR) return -ENOTDIR;
  const empty = isEmptyDirectory(tree, id);
  if (empty <= 0) return empty === 0 ? -ENOTEMPTY : empty;
  const ready = ensureUpperDirectory(tree, parent);
  if (ready < 0) return ready;
  const state = tree.directory(tree.nodes.get(parent)!);
  if (typeof state === "number") return state;
  const node = tree.nodes.get(id);
  const result = node?.hasUpper
    ? takeAway(tree, node, parent, state, name)
    : hideLower(tree, parent, state, name);
  if (result < 0) return result;
  settleRemoved(tree, id);
  return 0;
}

/** 1 when nothing is visible in a directory, 0 when something is, or a negative errno. */
export function isEmptyDirectory(tree: OverlayTree, id: NodeId): number | Result {
  const node = tree.nodes.get(id);
  if (node === undefined || !node.hasUpper) {
    return tree.index.firstEntry(id) === tree.index.endEntry(id) ? 1 : 0;
  }
  const state = tree.directory(node);
  if (typeof state === "number") return state;
  return state.isEmpty() ? 1 : 0;
}

/** Puts a whiteout over a name that only the lower has. */
function hideLower(
  tree: OverlayTree,
  parent: NodeId,
  state: DirectoryState,
  name: ByteString,
): Result {
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const result = tree.backing.makeWhiteout(dirfd, name);
  if (result === -EEXIST) tree.reload(parent);
  if (result >= 0) state.setWhiteout(name);
  return result;
}

function removeUpperFile(
  tree: OverlayTree,
  node: OverlayNode,
  parent: NodeId,
  state: DirectoryState,
  name: ByteString,
): Result {
  if (!node.indexed && !hasOtherPlace(node, parent, name) && tree.isKnown(node.id)) {
    return takeAway(tree, node, parent, state, name);
  }
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const result =
    state.lowerInode(name) === 0
      ? sys.unlinkat(dirfd, name, 0)
      : discardLeavingWhiteout(tree, dirfd, name);
  if (result < 0) return result;
  leaveState(state, name);
  if (node.indexed) dropIndexedWithoutLinks(tree, node);
  else tree.nodes.removePlace(node, parent, name);
  return 0;
}

/** True when a node is reachable without this name. */
export function hasOtherPlace(node: OverlayNode, parent: NodeId, name: ByteString): boolean {
  return node.places.length > (node.indexOfPlace(parent, name) < 0 ? 0 : 1);
}

/** Moves a node's last known name to the orphans, or out of existence when the kernel does not know it. */
function takeAway(
  tree: OverlayTree,
  node: OverlayNode,
  parent: NodeId,
  state: DirectoryState,
  name: ByteString,
): Result {
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const known = tree.isKnown(node.id);
  const toFd = known ? tree.backing.orphanFd : tree.backing.temporaryFd;
  const toName = known ? tree.orphanName(node.id) : tree.backing.temporaryName();
  const result =
    state.lowerInode(name) === 0
      ? sys.renameat2(dirfd, name, toFd, toName, 0)
      : swapWithWhiteout(tree, dirfd, name, toFd, toName);
  if (result < 0) return result;
  leaveState(state, name);
  if (known) tree.nodes.addPlace(node, ORPHAN_AREA, toName);
  tree.nodes.removePlace(node, parent, name);
  if (!known) tree.backing.purge(toFd, toName);
  return 0;
}

function leaveState(state: DirectoryState, name: ByteString): void {
  if (state.lowerInode(name) === 0) state.delete(name);
  else state.setWhiteout(name);
}

function discardLeavingWhiteout(tree: OverlayTree, dirfd: number, name: ByteString): Result {
  const stage = tree.backing.temporaryName();
  const result = swapWithWhiteout(tree, dirfd, name, tree.backing.temporaryFd, stage);
  if (result >= 0) sys.unlinkat(tree.backing.temporaryFd, stage, 0);
  return result;
}

/**
 * Moves an upper object to a free name of an area and leaves a whiteout in its place: a link to the
 * one whiteout waits in the area and the two change places, which spares RENAME_WHITEOUT's new inode.
 */
function swapWithWhiteout(
  tree: OverlayTree,
  fromFd: number,
  from: ByteString,
  areaFd: number,
  to: ByteString,
): Result {
  const made = tree.backing.makeWhiteout(areaFd, to);
  if (made < 0) return made;
  const result = sys.renameat2(fromFd, from, areaFd, to, RENAME_EXCHANGE);
  faultPoint("remove.swapped");
  if (result >= 0) return result;
  sys.unlinkat(areaFd, to, 0);
  // Disks without RENAME_EXCHANGE.
  return result === -EINVAL ? moveLeavingWhiteout(tree, fromFd, from, areaFd, to) : result;
}

/** Renames an upper object, over what the new name has, and leaves a whiteout under its old name. */
export function moveLeavingWhiteout(
  tree: OverlayTree,
  fromFd: number,
  from: ByteString,
  toFd: number,
  to: ByteString,
): Result {
  const result = sys.renameat2(fromFd, from, toFd, to, RENAME_WHITEOUT);
  if (result !== -EINVAL) return result;
  // Disks without RENAME_WHITEOUT (an overlay under us): two steps, with the lower name visible in
  // between after a crash.
  const { temporaryFd } = tree.backing;
  const stage = tree.backing.temporaryName();
  const made = tree.backing.makeWhiteout(temporaryFd, stage);
  if (made < 0) return made;
  const moved = sys.renameat2(fromFd, from, toFd, to, 0);
  if (moved < 0) {
    sys.unlinkat(temporaryFd, stage, 0);
    return moved;
  }
  return sys.renameat2(temporaryFd, stage, fromFd, from, 0);
}

/** After a name of an indexed file went: without any link left in the view, it is an orphan or gone. */
export function dropIndexedWithoutLinks(tree: OverlayTree, node: OverlayNode): void {
  const links = tree.hardLinks.count(node);
  if (links !== 0) return;
  const name = tree.hardLinks.indexName(node.id);
  const { indexFd, orphanFd } = tree.backing;
  const known = tree.isKnown(node.id);
  const result = known
    ? sys.renameat2(indexFd, name, orphanFd, tree.orphanName(node.id), 0)
    : sys.unlinkat(indexFd, name, 0);
  if (result < 0) return;
  tree.hardLinks.delete(node.id);
  node.indexed = false;
  node.nlinkDelta = 0;
  if (known) tree.nodes.addPlace(node, ORPHAN_AREA, tree.orphanName(node.id));
  tree.nodes.removePlace(node, INDEX_AREA, name);
}

/** Notes that a node may have lost its last name. */
export function settleRemoved(tree: OverlayTree, id: NodeId): void {
  let node = tree.nodes.get(id);
  if (node?.indexed) return;
  if (node === undefined) {
    if (!tree.isKnown(id)) return;
    node = tree.nodes.add(new OverlayNode(id, tree.typeOf(id)));
  }
  if (!node.hasUpper || node.isDirectory) {
    node.removed = true;
    node.lower = 0;
    node.directory = undefined;
  }
  tree.nodes.dropUnused(id);
}
