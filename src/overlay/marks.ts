/** The overlay format's marks on upper objects that change their place. */

import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBuffer } from "../system/bytes.js";
import { E2BIG, ENOSPC, ERANGE, EXDEV } from "../system/errno.js";
import type { DirectoryState } from "./directory-state.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

/**
 * Says on an object where its lower part is, by absolute path: on a merged directory, or on a file
 * whose data is still the lower one's. Nothing to do for others.
 *
 * @returns -EXDEV when the disk cannot hold the path, so that mv(1) copies instead
 */
export function markRedirect(tree: OverlayTree, node: OverlayNode): Result {
  const inode = node.isDirectory ? node.lower : node.dataInode;
  if (inode === 0) return markOrigin(tree, node);
  if (node.isDirectory && !tree.backing.redirectsDirectories) return -EXDEV;
  const path = toBuffer(`/${tree.index.path(inode)}` as ByteString);
  const result = setMark(tree, node, tree.backing.attributes.redirect, path);
  return result === -ENOSPC || result === -ERANGE || result === -E2BIG ? -EXDEV : result;
}

/** Over live lower directories a file's number is believed only with the path that leads to it. */
function markOrigin(tree: OverlayTree, node: OverlayNode): Result {
  if (tree.index.isLive && !node.indexed && tree.index.has(node.id)) {
    const path = toBuffer(`/${tree.index.path(node.id)}` as ByteString);
    // Without it the file has another number after the next mount, which is no reason to fail.
    setMark(tree, node, tree.backing.attributes.redirect, path);
  }
  return 0;
}

/** Prepares an object for the place `name` in the directory of `state`. */
export function markForPlace(
  tree: OverlayTree,
  node: OverlayNode,
  state: DirectoryState,
  name: ByteString,
): Result {
  const redirected = markRedirect(tree, node);
  if (redirected < 0) return redirected;
  // Without the mark, a new directory would merge with what the name hides.
  if (!node.isDirectory || node.lower !== 0 || state.lowerInode(name) === 0) return 0;
  return setMark(tree, node, tree.backing.attributes.opaque, toBuffer("y" as ByteString));
}

function setMark(
  tree: OverlayTree,
  node: OverlayNode,
  attribute: ByteString,
  value: Buffer,
): Result {
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  return sys.setxattrat(dirfd, node.places[0]!.name, attribute, value, 0);
}
