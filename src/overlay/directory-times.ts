/** Copy-up changes a directory on disk but not in the view: its times must not tell. */

import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { AT_SYMLINK_NOFOLLOW } from "../system/constants.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SLOTS,
} from "../system/native.js";

const SELF = "." as ByteString;
const before = new Float64Array(STAT_SLOTS);

/** Runs `change` in the directory `dirfd` and puts the directory's times back. Returns what `change` did. */
export function keepingDirectoryTimes(dirfd: number, change: () => Result): Result {
  const known = sys.statx(dirfd, SELF, 0, before);
  const result = change();
  if (known >= 0 && result >= 0) restoreTimes(dirfd, SELF, before);
  return result;
}

/** Sets atime and mtime of (dirfd, name) to those of a stat record; ctime cannot be set. */
export function restoreTimes(dirfd: number, name: ByteString, stat: Float64Array): Result {
  return sys.utimensat(
    dirfd,
    name,
    stat[STAT_ATIME_SEC]!,
    stat[STAT_ATIME_NSEC]!,
    stat[STAT_MTIME_SEC]!,
    stat[STAT_MTIME_NSEC]!,
    AT_SYMLINK_NOFOLLOW,
  );
}
