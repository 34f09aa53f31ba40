/**
 * RENAME: within and between directories, replacing, not replacing, exchanging.
 *
 * Everything that the new place needs (copy-up, redirect or opaque marks, a second link for a
 * replaced file that is still referenced) is prepared first and changes nothing in the view; then one
 * rename system call moves the object, replaces the target and leaves the whiteout.
 */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBuffer } from "../system/bytes.js";
import {
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  NAME_MAX,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  S_IALLUGO,
  S_IFCHR,
  S_IFDIR,
} from "../system/constants.js";
import {
  EEXIST,
  EINVAL,
  EISDIR,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EROFS,
} from "../system/errno.js";
import { faultPoint } from "../system/fault-points.js";
import { STAT_GID, STAT_MODE, STAT_UID } from "../system/native.js";
import { ensureUpperDirectory, ensureUpperName } from "./copy-up.js";
import type { DirectoryState } from "./directory-state.js";
import { markForPlace } from "./marks.js";
import { ORPHAN_AREA, type OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";
import {
  dropIndexedWithoutLinks,
  hasOtherPlace,
  isEmptyDirectory,
  moveLeavingWhiteout,
  settleRemoved,
} from "./remove.js";
import { markVisibleDevice } from "./visible-device.js";

/** One end of a rename. */
interface End {
  readonly parent: NodeId;
  readonly name: ByteString;
  readonly state: DirectoryState;
  /** The node at this name; 0 when there is none. */
  readonly id: NodeId;
}

/** rename(2) with RENAME_* `flags`. */
export function rename(
  tree: OverlayTree,
  parent: NodeId,
  name: ByteString,
  newParent: NodeId,
  newName: ByteString,
  flags: number,
): Result {
  if (!tree.writable) return -EROFS;
  if (newName.length > NAME_MAX) return -ENAMETOOLONG;
  const leavesDevice = (flags & RENAME_WHITEOUT) !== 0;
  if (leavesDevice && (!tree.backing.privileged || (flags & RENAME_EXCHANGE) !== 0)) return -EINVAL;
  const source = tree.find(parent, name);
  if (source <= 0) return source === 0 ? -ENOENT : source;
  const target = tree.find(newParent, newName);
  if (target < 0) return target;
  const allowed = check(tree, source, target, newParent, flags);
  if (allowed < 0) return allowed;
  if (source === target) return 0;
  let result = ensureUpperName(tree, source, parent, name);
  if (result < 0) return result;
  result = ensureUpperDirectory(tree, newParent);
  if (result < 0) return result;
  if (tree.nodes.get(newParent)?.removed) return -ENOENT;
  const from = end(tree, parent, name, source);
  if (typeof from === "number") return from;
  const to = end(tree, newParent, newName, target);
  if (typeof to === "number") return to;
  if ((flags & RENAME_EXCHANGE) !== 0) return exchange(tree, from, to);
  result = move(tree, from, to);
  return result >= 0 && leavesDevice ? leaveDevice(tree, from) : result;
}

function end(tree: OverlayTree, parent: NodeId, name: ByteString, id: NodeId): End | Result {
  const state = tree.directory(tree.nodes.get(parent)!);
  return typeof state === "number" ? state : { parent, name, state, id };
}

function check(
  tree: OverlayTree,
  source: NodeId,
  target: NodeId,
  newParent: NodeId,
  flags: number,
): Result {
  if ((flags & RENAME_EXCHANGE) !== 0) {
    if ((flags & RENAME_NOREPLACE) !== 0) return -EINVAL;
    return target === 0 ? -ENOENT : 0;
  }
  const sourceIsDirectory = tree.typeOf(source) === S_IFDIR;
  if (sourceIsDirectory && isWithin(tree, newParent, source)) return -EINVAL;
  if (target === 0) return 0;
  if ((flags & RENAME_NOREPLACE) !== 0) return -EEXIST;
  if (source === target) return 0;
  const targetIsDirectory = tree.typeOf(target) === S_IFDIR;
  if (sourceIsDirectory && !targetIsDirectory) return -ENOTDIR;
  if (!sourceIsDirectory && targetIsDirectory) return -EISDIR;
  if (!targetIsDirectory) return 0;
  const empty = isEmptyDirectory(tree, target);
  return empty === 0 ? -ENOTEMPTY : Math.min(empty, 0);
}

/** True when `directory` is `ancestor` or lies below it. */
function isWithin(tree: OverlayTree, directory: NodeId, ancestor: NodeId): boolean {
  for (let at = directory; ; ) {
    if (at === ancestor) return true;
    const parent = tree.parentOf(at);
    if (parent === at) return false;
    at = parent;
  }
}

function exchange(tree: OverlayTree, from: End, to: End): Result {
  let result = ensureUpperName(tree, to.id, to.parent, to.name);
  if (result < 0) return result;
  const first = tree.node(from.id)!;
  const second = tree.node(to.id)!;
  result = markForPlace(tree, first, to.state, to.name);
  if (result >= 0) result = markForPlace(tree, second, from.state, from.name);
  if (result < 0) return result;
  const fromFd = tree.directoryFd(from.parent);
  if (fromFd < 0) return fromFd;
  const toFd = tree.directoryFd(to.parent);
  if (toFd < 0) return toFd;
  result = sys.renameat2(fromFd, from.name, toFd, to.name, RENAME_EXCHANGE);
  if (result < 0) return result;
  to.state.setObject(to.name, first.type, first.id);
  from.state.setObject(from.name, second.type, second.id);
  movePlace(tree, first, from, to);
  movePlace(tree, second, to, from);
  return 0;
}

function movePlace(tree: OverlayTree, node: OverlayNode, from: End, to: End): void {
  if (node.indexed) return;
  tree.nodes.addPlace(node, to.parent, to.name);
  tree.nodes.removePlace(node, from.parent, from.name);
}

function move(tree: OverlayTree, from: End, to: End): Result {
  const node = tree.node(from.id)!;
  let result = markForPlace(tree, node, to.state, to.name);
  if (result < 0) return result;
  faultPoint("rename.marked");
  result = prepareTarget(tree, to);
  if (result < 0) return result;
  faultPoint("rename.prepared");
  result = moveUpper(tree, node, from, to);
  if (result < 0) {
    restoreTarget(tree, to);
    tree.reload(from.parent);
    tree.reload(to.parent);
    return result;
  }
  faultPoint("rename.moved");
  const replaced = to.state.get(to.name);
  const replacedUpper = replaced !== undefined && !replaced.isWhiteout;
  if (from.state.lowerInode(from.name) === 0) from.state.delete(from.name);
  else from.state.setWhiteout(from.name);
  to.state.setObject(to.name, node.type, node.id);
  movePlace(tree, node, from, to);
  if (to.id !== 0) forgetTarget(tree, to, replacedUpper);
  return 0;
}

/** RENAME_WHITEOUT: a device 0:0 that users see, under the old name. The move itself is done. */
function leaveDevice(tree: OverlayTree, from: End): Result {
  const { temporaryFd, attributes } = tree.backing;
  const dirfd = tree.directoryFd(from.parent);
  if (dirfd < 0) return dirfd;
  const stage = tree.backing.temporaryName();
  let result = sys.mknodat(temporaryFd, stage, S_IFCHR, 0);
  if (result >= 0) result = markVisibleDevice(temporaryFd, stage, attributes);
  // Replaces the hiding whiteout where there is one.
  if (result >= 0) result = sys.renameat2(temporaryFd, stage, dirfd, from.name, 0);
  if (result < 0) sys.unlinkat(temporaryFd, stage, 0);
  else from.state.setObject(from.name, S_IFCHR, 0);
  return result;
}

function moveUpper(tree: OverlayTree, node: OverlayNode, from: End, to: End): Result {
  const fromFd = tree.directoryFd(from.parent);
  if (fromFd < 0) return fromFd;
  const toFd = tree.directoryFd(to.parent);
  if (toFd < 0) return toFd;
  const leavesWhiteout = from.state.lowerInode(from.name) !== 0;
  if (node.isDirectory && to.state.get(to.name)?.isWhiteout) {
    // A directory cannot replace a whiteout by rename. Exchanged, the whiteout is where one is needed.
    const result = sys.renameat2(fromFd, from.name, toFd, to.name, RENAME_EXCHANGE);
    if (result >= 0 && !leavesWhiteout) sys.unlinkat(fromFd, from.name, 0);
    return result;
  }
  if (leavesWhiteout) return moveLeavingWhiteout(tree, fromFd, from.name, toFd, to.name);
  return sys.renameat2(fromFd, from.name, toFd, to.name, 0);
}

/** Makes the target ready to be replaced without being lost to those who still use it. */
function prepareTarget(tree: OverlayTree, to: End): Result {
  if (to.id === 0) return 0;
  const node = tree.node(to.id);
  const isUpper = to.state.get(to.name) !== undefined;
  if (tree.typeOf(to.id) === S_IFDIR) {
    return isUpper ? setAside(tree, node!, to) : 0;
  }
  if (tree.hardLinks.isShared(to.id)) return ensureUpperName(tree, to.id, to.parent, to.name);
  if (!isUpper || !tree.isKnown(to.id)) return 0;
  if (hasOtherPlace(node!, to.parent, to.name)) return 0;
  const dirfd = tree.directoryFd(to.parent);
  if (dirfd < 0) return dirfd;
  const name = tree.orphanName(to.id);
  const result = sys.linkat(dirfd, to.name, tree.backing.orphanFd, name, 0);
  if (result < 0) return result;
  tree.nodes.addPlace(node!, ORPHAN_AREA, name);
  return 0;
}

/**
 * Puts an empty opaque directory in the place of an empty merged one: rename(2) replaces empty
 * directories only, and the old one may hold whiteouts and be somebody's working directory.
 */
function setAside(tree: OverlayTree, node: OverlayNode, to: End): Result {
  const { orphanFd, attributes } = tree.backing;
  const dirfd = tree.directoryFd(to.parent);
  if (dirfd < 0) return dirfd;
  let result = sys.statx(dirfd, to.name, AT_SYMLINK_NOFOLLOW, tree.stat);
  if (result < 0) return result;
  const { stat } = tree;
  const stage = tree.orphanName(node.id);
  result = sys.mkdirat(orphanFd, stage, 0o700);
  if (result < 0) return result;
  sys.fchownat(orphanFd, stage, stat[STAT_UID]!, stat[STAT_GID]!, AT_SYMLINK_NOFOLLOW);
  sys.fchmodat(orphanFd, stage, stat[STAT_MODE]! & S_IALLUGO);
  result = sys.setxattrat(orphanFd, stage, attributes.opaque, toBuffer("y" as ByteString), 0);
  if (result >= 0) result = sys.renameat2(orphanFd, stage, dirfd, to.name, RENAME_EXCHANGE);
  if (result < 0) {
    sys.unlinkat(orphanFd, stage, AT_REMOVEDIR);
    return result;
  }
  return 0;
}

/** Undoes `prepareTarget` after a failed rename. */
function restoreTarget(tree: OverlayTree, to: End): void {
  if (to.id === 0 || to.state.get(to.name) === undefined) return;
  const node = tree.node(to.id)!;
  const { orphanFd } = tree.backing;
  const name = tree.orphanName(to.id);
  if (node.isDirectory) {
    const dirfd = tree.directoryFd(to.parent);
    if (dirfd >= 0) sys.renameat2(orphanFd, name, dirfd, to.name, RENAME_EXCHANGE);
    tree.backing.purge(orphanFd, name);
  } else if (node.isOrphan) {
    sys.unlinkat(orphanFd, name, 0);
    tree.nodes.removePlace(node, ORPHAN_AREA, name);
  }
}

/** Takes the replaced node's place from it. */
function forgetTarget(tree: OverlayTree, to: End, replacedUpper: boolean): void {
  const node = tree.node(to.id);
  if (node?.indexed) {
    dropIndexedWithoutLinks(tree, node);
  } else if (node !== undefined && replacedUpper) {
    if (node.isDirectory) {
      if (tree.isKnown(to.id)) tree.nodes.addPlace(node, ORPHAN_AREA, tree.orphanName(to.id));
      else tree.backing.purge(tree.backing.orphanFd, tree.orphanName(to.id));
    }
    tree.nodes.removePlace(node, to.parent, to.name);
  }
  settleRemoved(tree, to.id);
}
