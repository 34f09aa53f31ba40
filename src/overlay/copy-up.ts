/**
 * Copy-up: giving a lower-born node its object in the upper directory.
 *
 * The new object is made in the temporary area with owner, mode, attributes and times complete, and
 * then renamed into place: at any kill the upper directory is as before or as after. A copy-up is
 * invisible in the view (but for ctime, which cannot be set): the parent's times are put back too.
 *
 * A regular file above `COPY_AT_ONCE` gets its metadata only (metacopy) until its data is to
 * change. Then the data is copied into the upper file in place; the metacopy mark goes last, so
 * that until then a reader after a crash takes the data from the lower file. More than `COPY_IN_TURN`
 * is copied in the background (background-copy.ts), and whoever needs it is answered LATER.
 *
 * Not synced to disk here: after a power failure (not a crash of the daemon) a file copied up in the last
 * seconds may have lost its data, as with overlayfs mounted `volatile`. A disk flush would stop every
 * other request of the worker.
 */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBuffer } from "../system/bytes.js";
import {
  AT_SYMLINK_NOFOLLOW,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDWR,
  RENAME_NOREPLACE,
  S_IALLUGO,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "../system/constants.js";
import { EIO, EOPNOTSUPP, EPERM, EROFS, ESTALE } from "../system/errno.js";
import { faultPoint } from "../system/fault-points.js";
import { STAT_SLOTS } from "../system/native.js";
import { TALLIED } from "../system/tally.js";
import { asWritable } from "./as-writable.js";
import type { InodeAttributes } from "./chain-index.js";
import { DirectoryState } from "./directory-state.js";
import { keepingDirectoryTimes, restoreTimes } from "./directory-times.js";
import { copyData, copyDataAsync } from "./file-copy.js";
import { linkLowerNames } from "./lower-names.js";
import { INDEX_AREA, ORPHAN_AREA, OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";
import { encodeInode } from "./upper-object.js";

/** Bytes up to which a file's data comes along with a change of its metadata: cheaper than two steps. */
const COPY_AT_ONCE = 16 << 10;
/** Bytes up to which data is copied while everybody else waits: a few milliseconds. */
const COPY_IN_TURN = 4 << 20;
const EMPTY = Buffer.alloc(0);
const CAPABILITY = "security.capability" as ByteString;

/** Gives a directory its upper part, and its ancestors theirs. */
export function ensureUpperDirectory(tree: OverlayTree, id: NodeId): Result {
  if (tree.nodes.get(id)?.hasUpper) return 0;
  return ensureMetadata(tree, id);
}

/** Makes sure that a node's metadata can be changed in the upper. */
export function ensureMetadata(tree: OverlayTree, id: NodeId): Result {
  const copying = tree.copies.check(id);
  return copying < 0 ? copying : ensureUpper(tree, id, false, 0);
}

/**
 * Makes sure that a regular file's data can be changed in the upper.
 *
 * @param keepBytes how much of the old data is still needed (0 before a truncation to nothing)
 */
export function ensureData(tree: OverlayTree, id: NodeId, keepBytes = Infinity): Result {
  const copying = tree.copies.check(id);
  if (copying < 0) return copying;
  let node = tree.node(id);
  if (!node?.hasUpper && keepBytes > COPY_IN_TURN && lowerSize(tree, id) > COPY_IN_TURN) {
    const copied = ensureUpper(tree, id, false, 0);
    if (copied < 0) return copied;
    node = tree.node(id);
  }
  if (node?.hasUpper) return node.dataInode === 0 ? 0 : copyDataInPlace(tree, node, keepBytes);
  return ensureUpper(tree, id, true, keepBytes);
}

/**
 * Makes sure that the upper directory has an object under this very name of a node (of a hard-linked
 * file, another name may be the one that was copied up).
 */
export function ensureUpperName(
  tree: OverlayTree,
  id: NodeId,
  parent: NodeId,
  name: ByteString,
): Result {
  const copied = ensureMetadata(tree, id);
  if (copied < 0) return copied;
  const node = tree.node(id)!;
  if (!node.indexed) return 0;
  const ready = ensureUpperDirectory(tree, parent);
  return ready < 0 ? ready : tree.hardLinks.linkName(node, parent, name);
}

function lowerSize(tree: OverlayTree, id: NodeId): number {
  return tree.exists(id) ? tree.index.attributes(id, tree.lowerAttributes).size : 0;
}

function ensureUpper(tree: OverlayTree, id: NodeId, withData: boolean, keepBytes: number): Result {
  if (!tree.writable) return -EROFS;
  const node = tree.node(id);
  if (node?.hasUpper) return 0;
  if (!tree.exists(id)) return -ESTALE;
  const { index } = tree;
  // Removed while the kernel still references it: it lives on among the orphans, nameless.
  if (node?.removed) return copyUp(tree, id, ORPHAN_AREA, tree.orphanName(id), withData, keepBytes);
  if (tree.hardLinks.isShared(id)) {
    const name = tree.hardLinks.indexName(id);
    const result = copyUp(tree, id, INDEX_AREA, name, withData, keepBytes);
    if (result < 0) return result;
    // The file itself is in order now: a name that cannot be linked follows when it is visited.
    linkLowerNames(tree, id, ensureUpperDirectory);
    return 0;
  }
  const parent = index.parent(id);
  const ready = ensureUpperDirectory(tree, parent);
  if (ready < 0) return ready;
  if (isUpperAlready(tree, id, parent)) {
    return withData ? ensureData(tree, id, keepBytes) : 0;
  }
  return copyUp(tree, id, parent, index.name(id), withData, keepBytes);
}

/** True when the disk has the copy and only memory forgot it (a FORGET that overtook a child's). */
function isUpperAlready(tree: OverlayTree, id: NodeId, parent: NodeId): boolean {
  const directory = tree.nodes.get(parent);
  const state = directory === undefined ? 0 : tree.directory(directory);
  if (typeof state === "number") return false;
  const entry = state.get(tree.index.name(id));
  return entry !== undefined && !entry.isWhiteout && tree.attach(directory!, state, entry) === id;
}

function copyUp(
  tree: OverlayTree,
  id: NodeId,
  parent: NodeId,
  name: ByteString,
  withData: boolean,
  keepBytes: number,
): Result {
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const { temporaryFd } = tree.backing;
  const stage = tree.backing.temporaryName();
  const attributes = tree.index.attributes(id, tree.lowerAttributes);
  const isFile = (attributes.mode & S_IFMT) === S_IFREG;
  const metadataOnly =
    isFile && !withData && attributes.size > COPY_AT_ONCE && tree.backing.usesMetacopy;
  let result = makeCopy(tree, id, stage, attributes, metadataOnly ? -1 : keepBytes, withData);
  if (result >= 0) {
    faultPoint("copy-up.staged");
    // Nothing is to be replaced: the upper directory has no entry of this name (the state says so).
    result = keepingDirectoryTimes(dirfd, () =>
      sys.renameat2(temporaryFd, stage, dirfd, name, RENAME_NOREPLACE),
    );
  }
  if (result < 0) {
    tree.backing.purge(temporaryFd, stage);
    return result;
  }
  faultPoint("copy-up.placed");
  tree.backing.tally?.add(TALLIED.copyUps, 1);
  settleCopy(tree, id, parent, name, metadataOnly);
  return 0;
}

/** Tells the tree of a finished copy. */
function settleCopy(
  tree: OverlayTree,
  id: NodeId,
  parent: NodeId,
  name: ByteString,
  metadataOnly: boolean,
): void {
  if (!metadataOnly) tree.backing.files.drop(id);
  if (parent === INDEX_AREA) {
    tree.hardLinks.add(id);
    tree.hardLinks.node(id);
    return;
  }
  const type = tree.index.mode(id) & S_IFMT;
  const node = tree.nodes.get(id) ?? tree.nodes.add(new OverlayNode(id, type));
  node.dataInode = metadataOnly ? id : 0;
  node.lower = type === S_IFDIR && !node.removed ? id : 0;
  // Its upper part is empty: nothing to list.
  if (node.lower !== 0) node.directory = new DirectoryState(tree.index, id);
  tree.nodes.addPlace(node, parent, name);
  const state = tree.nodes.get(parent)?.directory;
  state?.setObject(name, type, id);
}

/** Makes the whole copy in the temporary area. `keepBytes` -1: no data, marked as metacopy. */
function makeCopy(
  tree: OverlayTree,
  id: NodeId,
  stage: ByteString,
  attributes: InodeAttributes,
  keepBytes: number,
  withData: boolean,
): Result {
  const type = attributes.mode & S_IFMT;
  const dirfd = tree.backing.temporaryFd;
  const mode = attributes.mode & S_IALLUGO;
  let result: Result;
  if (type === S_IFREG) {
    result = makeFile(tree, id, stage, attributes, keepBytes, withData);
  } else if (type === S_IFDIR) {
    result = sys.mkdirat(dirfd, stage, mode);
  } else if (type === S_IFLNK) {
    result = sys.symlinkat(tree.index.symlinkTarget(id), dirfd, stage);
  } else {
    result = sys.mknodat(dirfd, stage, type | mode, attributes.rdev);
  }
  if (result >= 0) result = applyMetadata(tree, id, stage, attributes);
  if (result >= 0 && tree.hardLinks.isShared(id))
    result = markShared(tree, id, stage, keepBytes < 0);
  return result;
}

/** Says of the upper object of a hard-linked file how its links count, and where the lower file is. */
function markShared(tree: OverlayTree, id: NodeId, stage: ByteString, isMetacopy: boolean): Result {
  const { attributes, privileged, temporaryFd } = tree.backing;
  let result = sys.setxattrat(temporaryFd, stage, attributes.nlink, Buffer.from("L+0"), 0);
  // For other readers of the format, and for ourselves at the next mount, its place in the index area
  // does not tell where the lower file is.
  if (result >= 0 && (isMetacopy || tree.index.isLive)) {
    const path = toBuffer(`/${tree.index.path(id)}` as ByteString);
    result = sys.setxattrat(temporaryFd, stage, attributes.redirect, path, 0);
  }
  return privileged ? result : 0;
}

function makeFile(
  tree: OverlayTree,
  id: NodeId,
  stage: ByteString,
  attributes: InodeAttributes,
  keepBytes: number,
  withData: boolean,
): Result {
  const { temporaryFd } = tree.backing;
  const flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW;
  const fd = sys.openat(temporaryFd, stage, flags, attributes.mode & S_IALLUGO);
  if (fd < 0) return fd;
  let result: Result;
  if (keepBytes < 0) {
    result = sys.setxattrat(fd, "" as ByteString, tree.backing.attributes.metacopy, EMPTY, 0);
    // The upper file says the right size; reads below it never reach its hole.
    if (result >= 0) result = sys.ftruncate(fd, attributes.size);
  } else {
    // What is not kept is about to be cut off. After a crash before that the file is short already, never
    // full of zeros.
    const size = withData ? Math.min(keepBytes, attributes.size) : attributes.size;
    result = copyFromLower(tree, id, fd, size, attributes.blocks);
  }
  sys.close(fd);
  return result;
}

function copyFromLower(
  tree: OverlayTree,
  inode: number,
  to: number,
  size: number,
  blocks: number,
): Result {
  if (size === 0) return 0;
  tree.backing.tally?.add(TALLIED.copiedBytes, size);
  const from = tree.backing.openLower(tree.index.layer(inode), tree.index.contentPath(inode));
  if (from < 0) return from === -ESTALE ? -EIO : from;
  const result = copyData(tree.backing, from, to, size, blocks);
  sys.close(from);
  return result;
}

/**
 * Owner, then mode and attributes (a change of owner clears set-id bits and capabilities), then times.
 * What the object was made with, in an area that only we can reach, is right in most cases.
 */
function applyMetadata(
  tree: OverlayTree,
  id: NodeId,
  stage: ByteString,
  attributes: InodeAttributes,
): Result {
  const { temporaryFd, privileged, umask } = tree.backing;
  const { uid, gid } = attributes;
  const mode = attributes.mode & S_IALLUGO;
  let result: Result = 0;
  const isOwned = uid === tree.backing.uid && gid === tree.backing.gid;
  if (!isOwned) {
    result = sys.fchownat(temporaryFd, stage, uid, gid, AT_SYMLINK_NOFOLLOW);
    if (result < 0 && privileged) return result;
  }
  const isSymlink = (attributes.mode & S_IFMT) === S_IFLNK;
  // Writing clears set-id bits, too.
  if (!isSymlink && (!isOwned || (mode & (umask | ~0o777)) !== 0)) {
    result = sys.fchmodat(temporaryFd, stage, mode);
    if (result < 0) return result;
  }
  result = applyXattrs(tree, id, stage);
  if (result < 0) return result;
  return sys.utimensat(
    temporaryFd,
    stage,
    attributes.atimeSec,
    attributes.atimeNsec,
    attributes.mtimeSec,
    attributes.mtimeNsec,
    AT_SYMLINK_NOFOLLOW,
  );
}

function applyXattrs(tree: OverlayTree, id: NodeId, stage: ByteString): Result {
  const { temporaryFd, privileged, attributes } = tree.backing;
  for (const { name, value } of tree.index.xattrs(id)) {
    const result = asWritable(temporaryFd, stage, tree.index.mode(id) & S_IALLUGO, () =>
      sys.setxattrat(temporaryFd, stage, name, value, 0),
    );
    // Without root neither trusted nor security attributes can be written; the file still can.
    if (result < 0 && (privileged || (result !== -EPERM && result !== -EOPNOTSUPP))) return result;
  }
  const result = sys.setxattrat(temporaryFd, stage, attributes.varve, encodeInode(id), 0);
  // user.* attributes exist on files and directories only: without root, symlinks and devices lose
  // their lower inode number at the next mount.
  return result < 0 && privileged ? result : 0;
}

const times = new Float64Array(STAT_SLOTS);

/** Completes a metacopy file. */
function copyDataInPlace(tree: OverlayTree, node: OverlayNode, keepBytes: number): Result {
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const { name } = node.places[0]!;
  const statted = sys.statx(dirfd, name, AT_SYMLINK_NOFOLLOW, times);
  if (statted < 0) return statted;
  const capability = sys.getxattrat(dirfd, name, CAPABILITY);
  const fd = sys.openat(dirfd, name, O_RDWR | O_NOFOLLOW, 0);
  if (fd < 0) return fd;
  // 1. Data. 2. Times and capabilities, which writing changed. 3. The mark: from here the data counts.
  const lower = tree.index.attributes(node.dataInode, tree.lowerAttributes);
  const size = Math.min(lower.size, keepBytes);
  if (size > COPY_IN_TURN) return copyInBackground(tree, node, fd, size);
  let result = copyFromLower(tree, node.dataInode, fd, size, lower.blocks);
  if (result >= 0 && size < lower.size) result = sys.ftruncate(fd, size);
  if (typeof capability !== "number") sys.setxattrat(dirfd, name, CAPABILITY, capability, 0);
  restoreTimes(dirfd, name, times);
  if (result >= 0) result = markComplete(tree, node.id, fd);
  sys.close(fd);
  return result;
}

/** From here on a metacopy file's data is its own. */
function markComplete(tree: OverlayTree, id: NodeId, fd: number): Result {
  const { metacopy, redirect } = tree.backing.attributes;
  faultPoint("copy-up.data");
  const result = sys.removexattrat(fd, "" as ByteString, metacopy);
  if (result < 0) return result;
  faultPoint("copy-up.completed");
  // Over live lower directories the path goes on vouching for the file's number.
  if (!tree.index.isLive) sys.removexattrat(fd, "" as ByteString, redirect);
  // Not the object from before a copy in the background: that one may have been forgotten meanwhile.
  const node = tree.node(id);
  if (node !== undefined) node.dataInode = 0;
  tree.backing.files.drop(id);
  return result;
}

/** Completes a large metacopy file while others are served; `fd` is open for writing and given away. */
function copyInBackground(tree: OverlayTree, node: OverlayNode, fd: number, size: number): Result {
  const { id, dataInode } = node;
  const { index, backing } = tree;
  const from = backing.openLower(index.layer(dataInode), index.contentPath(dataInode));
  if (from < 0) {
    sys.close(fd);
    return from === -ESTALE ? -EIO : from;
  }
  const whole = index.attributes(dataInode, tree.lowerAttributes).size;
  const copy = async (): Promise<Result> => {
    backing.tally?.add(TALLIED.copiedBytes, size);
    const copied = await copyDataAsync(backing, from, fd, size);
    sys.close(from);
    if (copied >= 0) return size < whole ? sys.ftruncate(fd, size) : 0;
    // A full disk: what came is of no use to anybody.
    sys.ftruncate(fd, 0);
    sys.ftruncate(fd, whole);
    return copied;
  };
  return tree.copies.begin(id, fd, copy, () => markComplete(tree, id, fd));
}
