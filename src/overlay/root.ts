/** The root of a fresh upper directory: it starts as the image's root, not as a bare new directory. */

import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { AT_SYMLINK_NOFOLLOW, S_IALLUGO, S_IFDIR } from "../system/constants.js";
import { must } from "../system/errno.js";
import { ROOT_INODE } from "./chain-index.js";
import type { OverlayTree } from "./overlay-tree.js";
import { encodeInode } from "./upper-object.js";

const SELF = "." as ByteString;

/**
 * Gives the upper root the attributes of the lower one, once. Does nothing when it was done before,
 * when the view is read-only, or over live lower directories: there the upper one is the user's own.
 *
 * @throws SyscallError the upper directory cannot be changed
 */
export function prepareRoot(tree: OverlayTree): void {
  if (!tree.writable || tree.index.isLive) return;
  const { upperFd, privileged, attributes } = tree.backing;
  if (tree.reader.readOrigin(upperFd, SELF, S_IFDIR) === ROOT_INODE) return;
  const root = tree.index.attributes(ROOT_INODE, tree.lowerAttributes);
  const owned = sys.fchownat(upperFd, SELF, root.uid, root.gid, AT_SYMLINK_NOFOLLOW);
  if (privileged) must(owned, "fchownat", "upper root");
  must(sys.fchmodat(upperFd, SELF, root.mode & S_IALLUGO), "fchmodat", "upper root");
  for (const { name, value } of tree.index.xattrs(ROOT_INODE)) {
    const result = sys.setxattrat(upperFd, SELF, name, value, 0);
    if (privileged) must(result, "setxattr", "upper root");
  }
  // The mark comes before the times, which it does not change, and after all else: a kill before it
  // only means doing this again.
  must(
    sys.setxattrat(upperFd, SELF, attributes.varve, encodeInode(ROOT_INODE), 0),
    "setxattr",
    "upper root",
  );
  must(
    sys.utimensat(
      upperFd,
      SELF,
      root.atimeSec,
      root.atimeNsec,
      root.mtimeSec,
      root.mtimeNsec,
      AT_SYMLINK_NOFOLLOW,
    ),
    "utimensat",
    "upper root",
  );
}
