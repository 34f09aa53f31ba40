/**
 * New objects: MKNOD, MKDIR, SYMLINK, TMPFILE, LINK.
 *
 * Where one system call makes the object right (root's own, nothing hidden under the name), it is
 * made in place. Otherwise it is made in the temporary area, given its owner, mode and marks, and
 * renamed in, so that no kill leaves an object with a wrong owner. Where the parent has a default
 * ACL, a carrier directory with the same default ACL stands in for the parent there: the disk's file
 * system computes the inherited ACL and mode itself.
 */

import type { Caller, Entry, NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBuffer } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  NAME_MAX,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDWR,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IALLUGO,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
} from "../system/constants.js";
import { EEXIST, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS, ESTALE } from "../system/errno.js";
import { faultPoint } from "../system/fault-points.js";
import { STAT_GID, STAT_INO, STAT_MODE } from "../system/native.js";
import { fillFromStat, getAttributes } from "./attributes.js";
import { ensureMetadata, ensureUpperDirectory } from "./copy-up.js";
import { DirectoryState, type Heritage } from "./directory-state.js";
import { isWhiteout } from "./format.js";
import { markRedirect } from "./marks.js";
import { ORPHAN_AREA, OverlayNode, UPPER_BORN } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";
import { markVisibleDevice } from "./visible-device.js";

const DEFAULT_ACL = "system.posix_acl_default" as ByteString;
const CARRIED = "o" as ByteString;
const SELF = "." as ByteString;

/** What to make. */
interface NewObject {
  /** Type and permission bits, set-group-ID inheritance and umask applied. */
  mode: number;
  rdev: number;
  /** Target of a symlink. */
  target: ByteString;
  uid: number;
  gid: number;
  /** The parent has a default ACL. */
  inheritsAcl: boolean;
  /** The parent has set-group-ID. */
  inheritsGroup: boolean;
  /** Put the opaque mark on a directory. */
  opaque: boolean;
}

/** Where a staged object waits. */
interface Stage {
  fd: number;
  name: ByteString;
  /** Name of the carrier directory, which `fd` is then. */
  carrier: ByteString | undefined;
}

/** MKNOD, MKDIR and SYMLINK: makes `name` in `parent` and fills `out` with a counted lookup. */
export function create(
  tree: OverlayTree,
  caller: Caller,
  parent: NodeId,
  name: ByteString,
  mode: number,
  rdev: number,
  target: ByteString,
  umask: number,
  out: Entry,
): Result {
  // The mark that tells a user's device 0:0 from a whiteout needs root.
  if (isWhiteout(mode, rdev) && !tree.backing.privileged) return -EPERM;
  const state = prepareParent(tree, parent, name);
  if (typeof state === "number") return state;
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const object = describe(tree, caller, dirfd, state, mode, rdev, target, umask);
  if (typeof object === "number") return object;
  const isDirectory = (object.mode & S_IFMT) === S_IFDIR;
  object.opaque = isDirectory && state.lowerInode(name) !== 0;
  const isFresh = !state.get(name)?.isWhiteout;
  const opened = isFresh ? createOpen(tree, dirfd, name, object) : -1;
  const makeNamed = isFresh ? createFresh : createOverWhiteout;
  const made = opened < 0 ? makeNamed(tree, dirfd, name, object) : 0;
  if (made === -EEXIST) tree.reload(parent);
  if (made < 0) return made;
  faultPoint("create.placed");
  const result = describeMade(tree, dirfd, name, opened);
  if (result < 0) return result;
  const id = UPPER_BORN + tree.stat[STAT_INO]!;
  const node = tree.nodes.add(new OverlayNode(id, object.mode & S_IFMT));
  const acl = object.inheritsAcl;
  if (opened >= 0) {
    // Whoever made a file mostly writes to it next.
    tree.backing.files.put(id, opened);
    node.isBare = !acl && tree.leavesFilesBare(opened);
  }
  // A new directory is empty, whatever it hides: nothing to list in it, nothing to ask for.
  if (isDirectory) node.directory = new DirectoryState(tree.index, 0, heritageOf(tree, acl));
  tree.nodes.countFromZero(id);
  tree.nodes.addPlace(node, parent, name);
  state.setObject(name, node.type, id);
  fillFromStat(tree, node, isDirectory ? 2 : 1, out.attributes);
  return handOut(tree, id, out);
}

/** statx of a new object into `tree.stat`; `fd` is its descriptor, if there is one. */
function describeMade(tree: OverlayTree, dirfd: number, name: ByteString, fd: number): Result {
  if (fd < 0) return sys.statx(dirfd, name, AT_SYMLINK_NOFOLLOW, tree.stat);
  return sys.statx(fd, "" as ByteString, AT_EMPTY_PATH, tree.stat);
}

/** Fills `out` for a node that the kernel now holds one reference more of. */
function reply(tree: OverlayTree, id: NodeId, out: Entry): Result {
  const result = getAttributes(tree, id, out.attributes);
  return result < 0 ? result : handOut(tree, id, out);
}

function handOut(tree: OverlayTree, id: NodeId, out: Entry): Result {
  out.node = id;
  out.generation = 0;
  tree.nodes.retain(id);
  return 0;
}

/** Checks that `name` is free in `parent` and that `parent` has an upper part: its state, or a negative errno. */
function prepareParent(
  tree: OverlayTree,
  parent: NodeId,
  name: ByteString,
): DirectoryState | Result {
  if (!tree.writable) return -EROFS;
  if (name.length > NAME_MAX) return -ENAMETOOLONG;
  if (tree.nodes.get(parent)?.removed) return -ENOENT;
  const existing = tree.find(parent, name);
  if (existing !== 0) return existing < 0 ? existing : -EEXIST;
  const ready = ensureUpperDirectory(tree, parent);
  if (ready < 0) return ready;
  const node = tree.nodes.get(parent);
  if (node === undefined) return -ESTALE;
  return node.isDirectory ? tree.directory(node) : -ENOTDIR;
}

/** Owner and mode of a new object in the directory `dirfd`. */
function describe(
  tree: OverlayTree,
  caller: Caller,
  dirfd: number,
  state: DirectoryState,
  mode: number,
  rdev: number,
  target: ByteString,
  umask: number,
): NewObject | Result {
  state.heritage ??= readHeritage(tree, dirfd);
  const { heritage } = state;
  if (heritage === undefined) return -ESTALE;
  const type = mode & S_IFMT;
  const inheritsAcl = heritage.acl && type !== S_IFLNK;
  const inheritsGroup = heritage.gid !== undefined;
  let bits = mode & S_IALLUGO;
  // A default ACL takes the umask's place.
  if (!inheritsAcl && type !== S_IFLNK) bits &= ~umask;
  if (inheritsGroup && type === S_IFDIR) bits |= S_ISGID;
  return {
    mode: type | bits,
    rdev,
    target,
    uid: caller.uid,
    gid: heritage.gid ?? caller.gid,
    inheritsAcl,
    inheritsGroup,
    opaque: false,
  };
}

/** What a directory hands down to new objects; undefined when it cannot be read. */
function readHeritage(tree: OverlayTree, dirfd: number): Heritage | undefined {
  if (sys.statx(dirfd, SELF, 0, tree.stat) < 0) return undefined;
  return heritageOf(tree, typeof sys.getxattrat(dirfd, SELF, DEFAULT_ACL) !== "number");
}

/** What a directory hands down whose statx is in `tree.stat`. */
function heritageOf({ stat }: OverlayTree, acl: boolean): Heritage {
  return { gid: (stat[STAT_MODE]! & S_ISGID) !== 0 ? stat[STAT_GID]! : undefined, acl };
}

/** True when a plain system call in the parent gives the object its right owner and mode. */
function isRightAtOnce(tree: OverlayTree, object: NewObject): boolean {
  if (object.opaque || isWhiteout(object.mode, object.rdev)) return false;
  const { uid, gid, umask } = tree.backing;
  if (object.uid !== uid || (object.gid !== gid && !object.inheritsGroup)) return false;
  const isSymlink = (object.mode & S_IFMT) === S_IFLNK;
  return isSymlink || object.inheritsAcl || (object.mode & umask) === 0;
}

/** Makes and opens a regular file, where that is all it takes: a descriptor, or -1 to make it otherwise. */
function createOpen(tree: OverlayTree, dirfd: number, name: ByteString, object: NewObject): number {
  if ((object.mode & S_IFMT) !== S_IFREG || !isRightAtOnce(tree, object)) return -1;
  const flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW;
  return sys.openat(dirfd, name, flags, object.mode & S_IALLUGO);
}

function createFresh(
  tree: OverlayTree,
  dirfd: number,
  name: ByteString,
  object: NewObject,
): Result {
  if (isRightAtOnce(tree, object)) return make(dirfd, name, object);
  return withStage(tree, dirfd, object, (stage) =>
    sys.renameat2(stage.fd, stage.name, dirfd, name, RENAME_NOREPLACE),
  );
}

function createOverWhiteout(
  tree: OverlayTree,
  dirfd: number,
  name: ByteString,
  object: NewObject,
): Result {
  return withStage(tree, dirfd, object, (stage) => {
    if ((object.mode & S_IFMT) !== S_IFDIR) {
      return sys.renameat2(stage.fd, stage.name, dirfd, name, 0);
    }
    // A directory cannot replace a device by rename; an exchange is as atomic.
    const result = sys.renameat2(stage.fd, stage.name, dirfd, name, RENAME_EXCHANGE);
    if (result >= 0) sys.unlinkat(stage.fd, stage.name, 0);
    return result;
  });
}

function make(dirfd: number, name: ByteString, object: NewObject): Result {
  const type = object.mode & S_IFMT;
  if (type === S_IFLNK) return sys.symlinkat(object.target, dirfd, name);
  if (type === S_IFDIR) return sys.mkdirat(dirfd, name, object.mode & S_IALLUGO);
  return sys.mknodat(dirfd, name, object.mode, object.rdev);
}

/** Makes the object complete in the temporary area and lets `commit` move it; cleans up either way. */
function withStage(
  tree: OverlayTree,
  parentFd: number,
  object: NewObject,
  commit: (stage: Stage) => Result,
): Result {
  const stage = openStage(tree, parentFd, object.inheritsAcl);
  if (typeof stage === "number") return stage;
  let result = make(stage.fd, stage.name, object);
  if (result >= 0) result = finish(tree, stage, object);
  if (result >= 0) result = commit(stage);
  if (result < 0) tree.backing.purge(stage.fd, stage.name);
  if (stage.carrier !== undefined) {
    sys.close(stage.fd);
    sys.unlinkat(tree.backing.temporaryFd, stage.carrier, AT_REMOVEDIR);
  }
  return result;
}

function openStage(tree: OverlayTree, parentFd: number, inheritsAcl: boolean): Stage | Result {
  const { temporaryFd } = tree.backing;
  const name = tree.backing.temporaryName();
  if (!inheritsAcl) return { fd: temporaryFd, name, carrier: undefined };
  const acl = sys.getxattrat(parentFd, SELF, DEFAULT_ACL);
  if (typeof acl === "number") return acl;
  let result = sys.mkdirat(temporaryFd, name, 0o700);
  if (result < 0) return result;
  result = sys.setxattrat(temporaryFd, name, DEFAULT_ACL, acl, 0);
  const fd =
    result < 0 ? result : sys.openat(temporaryFd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
  if (fd < 0) sys.unlinkat(temporaryFd, name, AT_REMOVEDIR);
  return fd < 0 ? fd : { fd, name: CARRIED, carrier: name };
}

/** Owner first: changing it clears set-id bits. */
function finish(tree: OverlayTree, stage: Stage, object: NewObject): Result {
  const { privileged, uid, gid, umask, attributes } = tree.backing;
  const type = object.mode & S_IFMT;
  const bits = object.mode & S_IALLUGO;
  let result: Result = 0;
  if (object.uid !== uid || object.gid !== gid) {
    result = sys.fchownat(stage.fd, stage.name, object.uid, object.gid, AT_SYMLINK_NOFOLLOW);
    if (result < 0 && privileged) return result;
  }
  if (type !== S_IFLNK) {
    if (object.inheritsAcl) {
      // The disk's file system has computed the permission bits; only special ones may be missing.
      result = addSpecialBits(tree, stage, bits);
    } else if ((bits & (umask | ~0o777)) !== 0) {
      result = sys.fchmodat(stage.fd, stage.name, bits);
    }
    if (result < 0) return result;
  }
  if (isWhiteout(object.mode, object.rdev)) {
    return markVisibleDevice(stage.fd, stage.name, attributes);
  }
  if (!object.opaque) return 0;
  return sys.setxattrat(stage.fd, stage.name, attributes.opaque, toBuffer("y" as ByteString), 0);
}

function addSpecialBits(tree: OverlayTree, stage: Stage, bits: number): Result {
  const special = bits & ~0o777;
  if (special === 0) return 0;
  const result = sys.statx(stage.fd, stage.name, AT_SYMLINK_NOFOLLOW, tree.stat);
  if (result < 0) return result;
  const mode = (tree.stat[STAT_MODE]! & 0o777) | special;
  return sys.fchmodat(stage.fd, stage.name, mode);
}

/** O_TMPFILE: a nameless regular file; it waits among the orphans for a LINK or the last FORGET. */
export function createUnnamed(
  tree: OverlayTree,
  caller: Caller,
  parent: NodeId,
  mode: number,
  umask: number,
  out: Entry,
): Result {
  const state = prepareParent(tree, parent, "" as ByteString);
  if (typeof state === "number") return state;
  const dirfd = tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  const type = S_IFREG;
  const bits = mode & S_IALLUGO;
  const object = describe(tree, caller, dirfd, state, type | bits, 0, "" as ByteString, umask);
  if (typeof object === "number") return object;
  let id = 0;
  const result = withStage(tree, dirfd, object, (stage) => {
    const statted = sys.statx(stage.fd, stage.name, AT_SYMLINK_NOFOLLOW, tree.stat);
    if (statted < 0) return statted;
    id = UPPER_BORN + tree.stat[STAT_INO]!;
    return sys.renameat2(stage.fd, stage.name, tree.backing.orphanFd, tree.orphanName(id), 0);
  });
  if (result < 0) return result;
  const node = tree.nodes.add(new OverlayNode(id, type));
  tree.nodes.addPlace(node, ORPHAN_AREA, tree.orphanName(id));
  return reply(tree, id, out);
}

/** LINK: one more name for a file. */
export function link(
  tree: OverlayTree,
  id: NodeId,
  parent: NodeId,
  name: ByteString,
  out: Entry,
): Result {
  const state = prepareParent(tree, parent, name);
  if (typeof state === "number") return state;
  if (tree.typeOf(id) === S_IFDIR) return -EPERM;
  let result = ensureMetadata(tree, id);
  if (result < 0) return result;
  const node = tree.node(id)!;
  // A second name is not where other readers of the format look for the data.
  result = markRedirect(tree, node);
  const dirfd = result < 0 ? result : tree.directoryFd(parent);
  if (dirfd < 0) return dirfd;
  result = linkInto(tree, node, dirfd, name, state.get(name)?.isWhiteout === true);
  if (result < 0) return result;
  if (!node.indexed) tree.nodes.addPlace(node, parent, name);
  state.setObject(name, node.type, id);
  return reply(tree, id, out);
}

function linkInto(
  tree: OverlayTree,
  node: OverlayNode,
  dirfd: number,
  name: ByteString,
  overWhiteout: boolean,
): Result {
  const fromFd = tree.holderFd(node);
  if (fromFd < 0) return fromFd;
  const from = node.places[0]!.name;
  if (!overWhiteout) return sys.linkat(fromFd, from, dirfd, name, 0);
  const { temporaryFd } = tree.backing;
  const stage = tree.backing.temporaryName();
  let result = sys.linkat(fromFd, from, temporaryFd, stage, 0);
  if (result < 0) return result;
  result = sys.renameat2(temporaryFd, stage, dirfd, name, 0);
  if (result < 0) sys.unlinkat(temporaryFd, stage, 0);
  return result;
}
