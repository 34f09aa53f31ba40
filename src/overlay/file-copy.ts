/** Copies file data between descriptors: shared extents where the disk can, holes kept, in the kernel. */

import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { SEEK_DATA, SEEK_HOLE } from "../system/constants.js";
import { EINVAL, EIO, ENOSYS, ENXIO, EOPNOTSUPP, EXDEV } from "../system/errno.js";
import type { Backing } from "./backing.js";

const CHUNK = 1 << 20;
/** Below this, one read and one write beat asking about extents. */
const SMALL = 64 << 10;
let scratch: Buffer | undefined;

/**
 * Copies the first `size` bytes of `from` to the empty file `to`, which is `size` bytes long afterwards.
 *
 * @param blocks 512-byte units that `from` occupies, to tell whether it has holes
 */
export function copyData(
  backing: Backing,
  from: number,
  to: number,
  size: number,
  blocks: number,
): Result {
  if (size === 0) return 0;
  const sparse = blocks * 512 < size;
  if (size <= SMALL && !sparse) return copyThroughMemory(from, to, 0, size);
  if (backing.canClone) {
    const cloned = sys.ficlone(to, from);
    if (cloned >= 0) return sys.ftruncate(to, size);
    if (cloned === -EOPNOTSUPP || cloned === -EXDEV) backing.canClone = false;
  }
  const copied = sparse ? copyExtents(from, to, size) : copyRange(from, to, 0, size);
  return copied < 0 ? copied : sys.ftruncate(to, size);
}

/** `copyData` for much data: only the bytes themselves are copied on the thread pool. */
export async function copyDataAsync(
  backing: Pick<Backing, "canClone">,
  from: number,
  to: number,
  size: number,
): Promise<Result> {
  if (backing.canClone) {
    const cloned = sys.ficlone(to, from);
    if (cloned >= 0) return sys.ftruncate(to, size);
    if (cloned === -EOPNOTSUPP || cloned === -EXDEV) backing.canClone = false;
  }
  for (let at = 0; at < size; ) {
    const start = sys.lseek(from, at, SEEK_DATA);
    if (start === -ENXIO) break;
    if (start === -EINVAL) return sys.copyRangeAsync(from, to, at, size);
    if (start < 0) return start;
    if (start >= size) break;
    const hole = sys.lseek(from, start, SEEK_HOLE);
    if (hole < 0) return hole;
    const copied = await sys.copyRangeAsync(from, to, start, Math.min(hole, size));
    if (copied < 0) return copied;
    at = hole;
  }
  return 0;
}

function copyExtents(from: number, to: number, size: number): Result {
  for (let at = 0; at < size; ) {
    const start = sys.lseek(from, at, SEEK_DATA);
    if (start === -ENXIO) return 0;
    if (start === -EINVAL) return copyRange(from, to, at, size);
    if (start < 0) return start;
    if (start >= size) return 0;
    const hole = sys.lseek(from, start, SEEK_HOLE);
    if (hole < 0) return hole;
    const copied = copyRange(from, to, start, Math.min(hole, size));
    if (copied < 0) return copied;
    at = hole;
  }
  return 0;
}

function copyRange(from: number, to: number, start: number, end: number): Result {
  for (let at = start; at < end; ) {
    const count = sys.copyFileRange(from, at, to, at, end - at);
    if (count === -EXDEV || count === -EOPNOTSUPP || count === -EINVAL || count === -ENOSYS) {
      return copyThroughMemory(from, to, at, end);
    }
    if (count < 0) return count;
    if (count === 0) return -EIO;
    at += count;
  }
  return 0;
}

function copyThroughMemory(from: number, to: number, start: number, end: number): Result {
  scratch ??= Buffer.allocUnsafeSlow(CHUNK);
  for (let at = start; at < end; ) {
    const count = sys.pread(from, scratch, 0, Math.min(CHUNK, end - at), at);
    if (count < 0) return count;
    if (count === 0) return -EIO;
    const written = writeFully(to, scratch, count, at);
    if (written < 0) return written;
    at += count;
  }
  return 0;
}

/** Writes all `length` bytes of `data` at `offset`: the count, or a negative errno when nothing was written. */
export function writeFully(fd: number, data: Buffer, length: number, offset: number): Result {
  let done = 0;
  while (done < length) {
    const count = sys.pwrite(fd, data, done, length - done, offset + done);
    if (count < 0) return done > 0 ? done : count;
    if (count === 0) return done > 0 ? done : -EIO;
    done += count;
  }
  return done;
}
