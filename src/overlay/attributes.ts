/** GETATTR and SETATTR. */

import {
  type Attributes,
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  type NodeId,
  type Result,
  type SetAttributes,
} from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  AT_SYMLINK_NOFOLLOW,
  S_IALLUGO,
  S_IFDIR,
  S_IFREG,
  UTIME_NOW,
  UTIME_OMIT,
} from "../system/constants.js";
import { EINVAL, EISDIR, EROFS, ESTALE } from "../system/errno.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_BLOCKS,
  STAT_CTIME_NSEC,
  STAT_CTIME_SEC,
  STAT_GID,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_NLINK,
  STAT_RDEV,
  STAT_SIZE,
  STAT_UID,
} from "../system/native.js";
import { ensureData, ensureMetadata } from "./copy-up.js";
import { truncateTo } from "./data.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

const BLOCK_SIZE = 4096;
const TIMES = FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW;

/**
 * Fills `out` for a node; -ESTALE when it is unknown.
 *
 * @param described `tree.stat` is of its upper object already
 */
export function getAttributes(
  tree: OverlayTree,
  id: NodeId,
  out: Attributes,
  described = false,
): Result {
  const node = tree.node(id);
  if (node?.hasUpper) {
    if (!described) return upperAttributes(tree, node, out);
    fillFromStat(tree, node, fileLinks(node, tree.stat[STAT_NLINK]!), out);
    return 0;
  }
  if (!tree.exists(id)) return -ESTALE;
  tree.index.attributes(id, out);
  out.ino = id;
  out.blksize = BLOCK_SIZE;
  out.isVolatile = false;
  out.incarnation = 0;
  if (node?.removed) out.nlink = 0;
  return 0;
}

function upperAttributes(tree: OverlayTree, node: OverlayNode, out: Attributes): Result {
  const links = node.isDirectory ? directoryLinks(tree, node) : 0;
  if (links < 0) return links;
  const result = tree.statUpper(node);
  if (result < 0) return result;
  fillFromStat(tree, node, node.isDirectory ? links : fileLinks(node, tree.stat[STAT_NLINK]!), out);
  return 0;
}

/** Fills `out` for a node whose upper object's statx is in `tree.stat`, and that shows `nlink` links. */
export function fillFromStat(
  tree: OverlayTree,
  node: OverlayNode,
  nlink: number,
  out: Attributes,
): void {
  const { stat } = tree;
  out.ino = node.id;
  out.mode = stat[STAT_MODE]!;
  out.nlink = nlink;
  out.uid = stat[STAT_UID]!;
  out.gid = stat[STAT_GID]!;
  out.rdev = stat[STAT_RDEV]!;
  out.size = stat[STAT_SIZE]!;
  out.blocks =
    node.dataInode === 0
      ? stat[STAT_BLOCKS]!
      : tree.index.attributes(node.dataInode, tree.lowerAttributes).blocks;
  out.blksize = BLOCK_SIZE;
  const times = node.dataInode === 0 ? stat : (tree.copies.before(node.id) ?? stat);
  out.atimeSec = times[STAT_ATIME_SEC]!;
  out.atimeNsec = times[STAT_ATIME_NSEC]!;
  out.mtimeSec = times[STAT_MTIME_SEC]!;
  out.mtimeNsec = times[STAT_MTIME_NSEC]!;
  out.ctimeSec = stat[STAT_CTIME_SEC]!;
  out.ctimeNsec = stat[STAT_CTIME_NSEC]!;
  out.isVolatile = node.isVolatile;
  out.incarnation = node.incarnation;
}

/** 2 plus the subdirectories of the merged view; 0 for a removed directory; or a negative errno. */
function directoryLinks(tree: OverlayTree, node: OverlayNode): number | Result {
  if (node.removed) return 0;
  const state = tree.directory(node);
  return typeof state === "number" ? state : 2 + state.subdirectories;
}

/** The links that the view shows: not the orphan's, and with lower names of a hard-linked file. */
function fileLinks(node: OverlayNode, upperLinks: number): number {
  if (node.indexed) return Math.max(0, upperLinks + node.nlinkDelta);
  return node.isOrphan ? upperLinks - 1 : upperLinks;
}

/** Applies what `set.valid` names, then fills `out`. */
export function setAttributes(
  tree: OverlayTree,
  id: NodeId,
  set: SetAttributes,
  out: Attributes,
): Result {
  if (!tree.writable) return -EROFS;
  let result = (set.valid & FATTR_SIZE) !== 0 ? truncate(tree, id, set) : ensureMetadata(tree, id);
  if (result < 0) return result;
  const node = tree.node(id)!;
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const { name } = node.places[0]!;
  if (node.directory !== undefined) node.directory.heritage = undefined;
  if ((set.valid & (FATTR_UID | FATTR_GID)) !== 0) {
    const uid = (set.valid & FATTR_UID) !== 0 ? set.uid : -1;
    const gid = (set.valid & FATTR_GID) !== 0 ? set.gid : -1;
    // Clears set-id bits and capabilities of files by itself, as the kernel expects of us.
    result = sys.fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW);
    if (result < 0) return result;
  }
  if ((set.valid & FATTR_MODE) !== 0) {
    result = sys.fchmodat(dirfd, name, set.mode & S_IALLUGO);
    if (result < 0) return result;
  }
  if ((set.valid & TIMES) !== 0) {
    result = setTimes(dirfd, name, set);
    if (result < 0) return result;
  }
  return getAttributes(tree, id, out);
}

function truncate(tree: OverlayTree, id: NodeId, set: SetAttributes): Result {
  const type = tree.typeOf(id);
  if (type !== S_IFREG) return type === S_IFDIR ? -EISDIR : -EINVAL;
  const ready = ensureData(tree, id, set.size);
  if (ready < 0) return ready;
  return truncateTo(tree, id, set.size, (set.valid & FATTR_KILL_SUIDGID) !== 0);
}

function setTimes(dirfd: number, name: ByteString, set: SetAttributes): Result {
  const { valid } = set;
  let atimeNsec = UTIME_OMIT;
  if ((valid & FATTR_ATIME) !== 0) atimeNsec = set.atimeNsec;
  if ((valid & FATTR_ATIME_NOW) !== 0) atimeNsec = UTIME_NOW;
  let mtimeNsec = UTIME_OMIT;
  if ((valid & FATTR_MTIME) !== 0) mtimeNsec = set.mtimeNsec;
  if ((valid & FATTR_MTIME_NOW) !== 0) mtimeNsec = UTIME_NOW;
  return sys.utimensat(
    dirfd,
    name,
    set.atimeSec,
    atimeNsec,
    set.mtimeSec,
    mtimeNsec,
    AT_SYMLINK_NOFOLLOW,
  );
}
