/** What a directory tree occupies on disk. */

import { type DiskUsage, UsageCounter } from "../layers/usage-counter.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  DT_DIR,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
} from "../system/constants.js";
import { ENOENT, must } from "../system/errno.js";
import { STAT_SLOTS } from "../system/native.js";

/**
 * The usage of the tree at `path`, its root included; entries that vanish meanwhile do not count.
 * Blocks: for worker threads.
 *
 * @throws SyscallError
 */
export function diskUsage(path: ByteString): DiskUsage {
  const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const fd = must(sys.openat(AT_FDCWD, path, flags, 0), "open", path);
  const walk = new UsageWalk();
  try {
    walk.count(fd, "" as ByteString, path);
    walk.directory(fd, path);
  } finally {
    sys.close(fd);
  }
  return walk.counter.usage;
}

class UsageWalk {
  readonly counter = new UsageCounter();
  readonly #stat = new Float64Array(STAT_SLOTS);

  directory(fd: number, path: ByteString): void {
    const listing = sys.readDirectory(fd);
    if (typeof listing === "number") {
      must(listing, "getdents", path);
      return;
    }
    listing.names.forEach((name, position) => {
      const child = `${path}/${name}` as ByteString;
      if (this.count(fd, name, child) && listing.types[position] === DT_DIR) {
        this.#descend(fd, name, child);
      }
    });
  }

  /** Adds one inode. False when it has vanished. */
  count(dirfd: number, name: ByteString, path: ByteString): boolean {
    const flags = name === "" ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
    const result = sys.statx(dirfd, name, flags, this.#stat);
    if (result === -ENOENT) return false;
    must(result, "statx", path);
    this.counter.add(this.#stat);
    return true;
  }

  #descend(parent: number, name: ByteString, path: ByteString): void {
    const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const fd = sys.openat(parent, name, flags, 0);
    if (fd === -ENOENT) return;
    must(fd, "open", path);
    try {
      this.directory(fd, path);
    } finally {
      sys.close(fd);
    }
  }
}
