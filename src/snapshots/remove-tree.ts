/**
 * Removing a directory with everything in it, by descriptors: names of any bytes, paths of any
 * length, no symlink followed.
 */

import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  DT_DIR,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
} from "../system/constants.js";
import { ENOENT, must } from "../system/errno.js";

/**
 * Removes the directory at `path`; one that is not there is fine. Not atomic, not synced. Blocks:
 * for worker threads, and for small trees.
 *
 * @throws SyscallError
 */
export function removeTree(path: ByteString): void {
  const fd = sys.openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
  if (fd === -ENOENT) return;
  must(fd, "open", path);
  try {
    emptyDirectory(fd, path);
  } finally {
    sys.close(fd);
  }
  must(sys.unlinkat(AT_FDCWD, path, AT_REMOVEDIR), "rmdir", path);
}

function emptyDirectory(fd: number, path: ByteString): void {
  const listing = sys.readDirectory(fd);
  if (typeof listing === "number") {
    must(listing, "getdents", path);
    return;
  }
  listing.names.forEach((name, position) => {
    removeEntry(fd, name, listing.types[position] === DT_DIR, `${path}/${name}` as ByteString);
  });
}

function removeEntry(parent: number, name: ByteString, isDirectory: boolean, path: ByteString) {
  if (isDirectory) {
    const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const fd = must(sys.openat(parent, name, flags, 0), "open", path);
    try {
      emptyDirectory(fd, path);
    } finally {
      sys.close(fd);
    }
  }
  must(sys.unlinkat(parent, name, isDirectory ? AT_REMOVEDIR : 0), "unlink", path);
}
