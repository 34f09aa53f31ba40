/** Owner, mode, times and extended attributes of one directory of a tree on disk. */

import { isOverlayAttribute } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, fromBuffer } from "../system/bytes.js";
import { AT_EMPTY_PATH, O_DIRECTORY, O_RDONLY } from "../system/constants.js";
import { EPERM, must } from "../system/errno.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_GID,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SLOTS,
  STAT_UID,
} from "../system/native.js";
import type { DiskTree } from "./layer-scan.js";

const NOTHING = "" as ByteString;

/** What a directory carries besides its entries. */
export interface DirectoryAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly atimeSec: number;
  readonly atimeNsec: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: readonly { readonly name: ByteString; readonly value: Buffer }[];
}

/**
 * Reads them from disk.
 *
 * @throws SyscallError
 */
export function readAttributes(disk: DiskTree, path: ByteString): DirectoryAttributes {
  const fd = disk.open(path, O_RDONLY | O_DIRECTORY);
  try {
    const stats = new Float64Array(STAT_SLOTS);
    must(sys.statx(fd, NOTHING, AT_EMPTY_PATH, stats), "statx", disk.describe(path));
    const names = listAttributes(fd).filter((name) => !isOverlayAttribute(name));
    return {
      mode: stats[STAT_MODE]!,
      uid: stats[STAT_UID]!,
      gid: stats[STAT_GID]!,
      atimeSec: stats[STAT_ATIME_SEC]!,
      atimeNsec: stats[STAT_ATIME_NSEC]!,
      mtimeSec: stats[STAT_MTIME_SEC]!,
      mtimeNsec: stats[STAT_MTIME_NSEC]!,
      xattrs: names.map((name) => {
        const value = sys.getxattrat(fd, NOTHING, name);
        return { name, value: typeof value === "number" ? Buffer.alloc(0) : value };
      }),
    };
  } finally {
    sys.close(fd);
  }
}

/**
 * Gives a directory exactly these attributes, the overlay's own aside.
 *
 * @param privileged false: what the kernel refuses to a user is left out
 * @throws SyscallError
 */
export function writeAttributes(
  disk: DiskTree,
  path: ByteString,
  want: DirectoryAttributes,
  privileged: boolean,
): void {
  const subject = disk.describe(path);
  const fd = disk.open(path, O_RDONLY | O_DIRECTORY);
  // Without privileges, owners and some attributes cannot be set; the index has them anyway.
  const attempt = (result: number, syscall: string) => {
    if (result === -EPERM && !privileged) return;
    must(result, syscall, subject);
  };
  try {
    for (const name of listAttributes(fd))
      if (!isOverlayAttribute(name) && !want.xattrs.some((xattr) => xattr.name === name))
        attempt(sys.removexattrat(fd, NOTHING, name), "removexattr");
    // Owner before mode and attributes: chown clears set-id bits and capabilities.
    attempt(sys.fchownat(fd, NOTHING, want.uid, want.gid, AT_EMPTY_PATH), "fchown");
    attempt(sys.fchmod(fd, want.mode & 0o7777), "fchmod");
    for (const { name, value } of want.xattrs)
      attempt(sys.setxattrat(fd, NOTHING, name, value, 0), "setxattr");
    const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = want;
    attempt(
      sys.utimensat(fd, NOTHING, atimeSec, atimeNsec, mtimeSec, mtimeNsec, AT_EMPTY_PATH),
      "utimensat",
    );
  } finally {
    sys.close(fd);
  }
}

function listAttributes(fd: number): ByteString[] {
  const list = sys.listxattrat(fd, NOTHING);
  return typeof list === "number"
    ? []
    : (fromBuffer(list).split("\0").slice(0, -1) as ByteString[]);
}
