/** The root of an upper directory that nobody has mounted yet. */

import { type ChainIndex, type InodeAttributes, ROOT_INODE } from "../overlay/chain-index.js";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW } from "../system/constants.js";
import { must } from "../system/errno.js";
import type { UpperTask } from "./layer-tasks.js";

/**
 * Gives an upper directory the attributes of the chain's root, as its first mount would do: in an
 * overlay the upper's root is the one that programs see.
 *
 * @throws SyscallError
 */
export function prepareUpper({ upperDir, privileged }: UpperTask, index: ChainIndex): void {
  const root = index.attributes(ROOT_INODE, {} as InodeAttributes);
  const upper = toBytes(upperDir);
  // The owner first: chown clears mode bits, and the times last: everything else moves them.
  if (privileged) {
    const { uid, gid } = root;
    must(sys.fchownat(AT_FDCWD, upper, uid, gid, AT_SYMLINK_NOFOLLOW), "chown", upperDir);
  }
  must(sys.fchmodat(AT_FDCWD, upper, root.mode & 0o7777), "chmod", upperDir);
  for (const { name, value } of index.xattrs(ROOT_INODE)) {
    must(sys.setxattrat(AT_FDCWD, upper, name, value, 0), "setxattr", upperDir);
  }
  const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = root;
  const flags = AT_SYMLINK_NOFOLLOW;
  must(
    sys.utimensat(AT_FDCWD, upper, atimeSec, atimeNsec, mtimeSec, mtimeNsec, flags),
    "utimensat",
    upperDir,
  );
}
