/**
 * Extended attributes. The overlay's own are not there for users; those that users give with such
 * names, for an overlay inside the view, have others on disk.
 */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, fromBuffer, toBuffer } from "../system/bytes.js";
import { S_IALLUGO, S_ISGID, XATTR_CREATE, XATTR_REPLACE } from "../system/constants.js";
import { EEXIST, ENODATA, EOPNOTSUPP, EROFS, ESTALE } from "../system/errno.js";
import { STAT_MODE } from "../system/native.js";
import type { Xattr } from "./chain-index.js";
import { ensureMetadata } from "./copy-up.js";
import { isForeignAttribute, shownName, storedName } from "./format.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

function lowerXattr(tree: OverlayTree, id: NodeId, name: ByteString): Xattr | undefined {
  return tree.index.xattrs(id).find((xattr) => xattr.name === name);
}

function upperXattr(tree: OverlayTree, node: OverlayNode, name: ByteString): Buffer | Result {
  const dirfd = tree.holderFd(node);
  return dirfd < 0 ? dirfd : sys.getxattrat(dirfd, node.places[0]!.name, storedName(name));
}

/** The value, or a negative errno (ENODATA when there is none). */
export function getXattr(tree: OverlayTree, id: NodeId, name: ByteString): Buffer | Result {
  if (isForeignAttribute(name)) return -EOPNOTSUPP;
  const node = tree.node(id);
  // The kernel asks for security.capability before the first write to every new file.
  if (node?.isBare && name.startsWith("security.")) return -ENODATA;
  if (node?.hasUpper) return upperXattr(tree, node, name);
  if (!tree.exists(id)) return -ESTALE;
  return lowerXattr(tree, id, name)?.value ?? -ENODATA;
}

/** All names, each followed by NUL. */
export function listXattrs(tree: OverlayTree, id: NodeId): Buffer | Result {
  const node = tree.node(id);
  if (!node?.hasUpper) {
    if (!tree.exists(id)) return -ESTALE;
    const names = tree.index.xattrs(id).map((xattr) => `${xattr.name}\0`);
    return toBuffer(names.join("") as ByteString);
  }
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const list = sys.listxattrat(dirfd, node.places[0]!.name);
  if (typeof list === "number" || list.length === 0) return list;
  const names = fromBuffer(list).split("\0").slice(0, -1) as ByteString[];
  const shown = names.map(shownName).filter((name) => name !== undefined);
  return toBuffer(shown.map((name) => `${name}\0`).join("") as ByteString);
}

/** setxattr(2). `killSgid`: an ACL change by somebody outside the group clears set-group-ID. */
export function setXattr(
  tree: OverlayTree,
  id: NodeId,
  name: ByteString,
  value: Buffer,
  flags: number,
  killSgid: boolean,
): Result {
  if (!tree.writable) return -EROFS;
  if (isForeignAttribute(name)) return -EOPNOTSUPP;
  const lower = !tree.node(id)?.hasUpper && tree.exists(id);
  if (lower && flags !== 0) {
    const exists = lowerXattr(tree, id, name) !== undefined;
    if (exists && (flags & XATTR_CREATE) !== 0) return -EEXIST;
    if (!exists && (flags & XATTR_REPLACE) !== 0) return -ENODATA;
  }
  const ready = ensureMetadata(tree, id);
  if (ready < 0) return ready;
  const node = tree.node(id)!;
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const result = sys.setxattrat(dirfd, node.places[0]!.name, storedName(name), value, flags);
  if (result < 0) return result;
  noteChange(node);
  return killSgid ? dropSetGroupId(tree, node) : 0;
}

/** removexattr(2). */
export function removeXattr(tree: OverlayTree, id: NodeId, name: ByteString): Result {
  if (!tree.writable) return -EROFS;
  if (isForeignAttribute(name)) return -EOPNOTSUPP;
  const present = getXattr(tree, id, name);
  if (typeof present === "number") return present;
  const ready = ensureMetadata(tree, id);
  if (ready < 0) return ready;
  const node = tree.node(id)!;
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const result = sys.removexattrat(dirfd, node.places[0]!.name, storedName(name));
  if (result >= 0) noteChange(node);
  return result;
}

function noteChange(node: OverlayNode): void {
  node.isBare = false;
  if (node.directory !== undefined) node.directory.heritage = undefined;
}

function dropSetGroupId(tree: OverlayTree, node: OverlayNode): Result {
  const result = tree.statUpper(node);
  if (result < 0) return result;
  const mode = tree.stat[STAT_MODE]!;
  if ((mode & S_ISGID) === 0) return 0;
  const kept = mode & S_IALLUGO & ~S_ISGID;
  return sys.fchmodat(tree.holderFd(node), node.places[0]!.name, kept);
}
