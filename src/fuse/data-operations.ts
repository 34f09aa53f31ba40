/**
 * Handlers of requests about content, extended attributes and the file system as a whole. Field
 * offsets as in name-operations.ts.
 */

import { sys } from "../system/addon.js";
import { EFBIG, EINVAL, EIO, ENOSYS, ENXIO, EOPNOTSUPP, ERANGE } from "../system/errno.js";
import {
  FOPEN_CACHE_DIR,
  FOPEN_KEEP_CACHE,
  FUSE_FSYNC_FDATASYNC,
  FUSE_OPEN_KILL_SUIDGID,
  FUSE_SETXATTR_ACL_KILL_SGID,
  MAX_TRANSFER_BYTES,
} from "./constants.js";
import type { Exchange, Outcome } from "./exchange.js";
import type { Caller, Result } from "./file-system.js";
import { ARG, emptyOpen, plainOutcome, syncOutcome } from "./outcome.js";
import { isSafe } from "./request.js";

/** Longest xattr value and list that Linux allows (XATTR_SIZE_MAX, XATTR_LIST_MAX). */
const XATTR_MAX = 65536;
/** From here on to have the kernel take pages from a file costs less than to copy them. */
const STAGED_BYTES = 65536;
/** What the 32-bit reply of COPY_FILE_RANGE can say (the kernel's MAX_RW_COUNT). */
const COPY_32_MAX = 0x7ffff000;

/** struct fuse_open_in: flags 0, open_flags 4 */
export function open(x: Exchange): Outcome {
  const { reply, request } = x.work;
  if (x.fileSystem.open === undefined) return -ENOSYS;
  const opened = emptyOpen(x, FOPEN_KEEP_CACHE);
  const killSetId = (request.u32(ARG + 4) & FUSE_OPEN_KILL_SUIDGID) !== 0;
  const { incarnation, node } = request;
  const result = x.fileSystem.open(node, incarnation, request.u32(ARG), killSetId, opened);
  return result < 0 ? result : reply.open(opened);
}

/** struct fuse_open_in as for OPEN */
export function opendir(x: Exchange): Outcome {
  const { reply, request } = x.work;
  if (x.fileSystem.opendir === undefined) return -ENOSYS;
  const opened = emptyOpen(x, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR);
  const result = x.fileSystem.opendir(request.node, request.u32(ARG), opened);
  return result < 0 ? result : reply.open(opened);
}

/** struct fuse_release_in: fh 0 */
export function release(x: Exchange): Outcome {
  const { request } = x.work;
  x.fileSystem.release?.(request.node, request.u64(ARG));
  return 0;
}

/** struct fuse_release_in as for RELEASE */
export function releasedir(x: Exchange): Outcome {
  const { request } = x.work;
  x.fileSystem.releasedir?.(request.node, request.u64(ARG));
  return 0;
}

/** struct fuse_read_in: fh 0, offset 8, size 16 */
export function read(x: Exchange): Outcome {
  const { reply, request } = x.work;
  const size = request.u32(ARG + 16);
  if (size > MAX_TRANSFER_BYTES) return -EINVAL;
  const offset = request.u64(ARG + 8);
  // No file here ends that late.
  if (!isSafe(offset)) return 0;
  const stage = size >= STAGED_BYTES ? sys.stage : undefined;
  const body = reply.body(size);
  const result = x.fileSystem.read(request.node, request.u64(ARG), offset, body, stage);
  return result > size ? -EIO : result;
}

/** struct fuse_write_in: fh 0, offset 8, size 16, write_flags 20; then the data */
export function write(x: Exchange): Outcome {
  const { reply, request } = x.work;
  const size = request.u32(ARG + 16);
  const data = request.payload(ARG + 40, size);
  const offset = request.u64(ARG + 8);
  if (!isSafe(offset + size)) return -EFBIG;
  const flags = request.u32(ARG + 20);
  const result = x.fileSystem.write(request.node, request.u64(ARG), offset, data, flags);
  if (result > size) return -EIO;
  return result < 0 ? result : reply.u32(result);
}

/** No arguments. */
export function statfs(x: Exchange): Outcome {
  const { reply, statistics } = x.work;
  const result = x.fileSystem.statfs(statistics);
  return result < 0 ? result : reply.statistics(statistics);
}

/** struct fuse_fsync_in: fh 0, fsync_flags 8 */
export function fsync(x: Exchange): Outcome {
  const { request } = x.work;
  const dataOnly = (request.u32(ARG + 8) & FUSE_FSYNC_FDATASYNC) !== 0;
  return syncOutcome(x.fileSystem.fsync(request.node, dataOnly));
}

/** struct fuse_fsync_in as for FSYNC */
export function fsyncdir(x: Exchange): Outcome {
  const { request } = x.work;
  const dataOnly = (request.u32(ARG + 8) & FUSE_FSYNC_FDATASYNC) !== 0;
  return syncOutcome(x.fileSystem.fsyncdir(request.node, dataOnly));
}

/** struct fuse_syncfs_in, which is empty. */
export function syncfs(x: Exchange): Outcome {
  return x.fileSystem.syncfs === undefined ? -ENOSYS : syncOutcome(x.fileSystem.syncfs());
}

/** struct fuse_setxattr_in: size 0, flags 4, and with FUSE_SETXATTR_EXT setxattr_flags 8; name, value */
export function setxattr(x: Exchange): Outcome {
  const { request } = x.work;
  const names = ARG + (x.hasExtendedSetxattr ? 16 : 8);
  const name = request.firstName(names);
  const value = request.payload(request.afterName, request.u32(ARG));
  const killSgid =
    x.hasExtendedSetxattr && (request.u32(ARG + 8) & FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
  const flags = request.u32(ARG + 4);
  return plainOutcome(
    x.fileSystem.setxattr(request.caller, request.node, name, value, flags, killSgid),
  );
}

/** The reply to a question for bytes: their number when `size` is 0, else the bytes if they fit. */
function bytesOutcome(x: Exchange, value: Buffer | Result, size: number): Outcome {
  if (typeof value === "number") return value < 0 ? value : -EIO;
  if (value.length > XATTR_MAX) return -EOPNOTSUPP;
  if (size === 0) return x.work.reply.u32(value.length);
  return value.length > size ? -ERANGE : x.work.reply.bytes(value);
}

/** struct fuse_getxattr_in: size 0; name */
export function getxattr(x: Exchange): Outcome {
  const { request } = x.work;
  const value = x.fileSystem.getxattr(request.node, request.lastName(ARG + 8));
  return bytesOutcome(x, value, request.u32(ARG));
}

/** struct fuse_getxattr_in: size 0 */
export function listxattr(x: Exchange): Outcome {
  const { request } = x.work;
  return bytesOutcome(x, x.fileSystem.listxattr(request.node), request.u32(ARG));
}

/** name */
export function removexattr(x: Exchange): Outcome {
  const { request } = x.work;
  const name = request.lastName(ARG);
  return plainOutcome(x.fileSystem.removexattr(request.caller, request.node, name));
}

/** struct fuse_fallocate_in: fh 0, offset 8, length 16, mode 24 */
export function fallocate(x: Exchange): Outcome {
  const { request } = x.work;
  const offset = request.u64(ARG + 8);
  const length = request.u64(ARG + 16);
  if (!isSafe(offset + length)) return -EFBIG;
  const handle = request.u64(ARG);
  const mode = request.u32(ARG + 24);
  const { caller, node } = request;
  return plainOutcome(
    x.fileSystem.fallocate(node, handle, mode, offset, length, killsSetId(caller)),
  );
}

/** struct fuse_lseek_in: fh 0, offset 8, whence 16 */
export function lseek(x: Exchange): Outcome {
  const { reply, request } = x.work;
  const offset = request.u64(ARG + 8);
  if (!isSafe(offset)) return -ENXIO;
  const handle = request.u64(ARG);
  const result = x.fileSystem.lseek(request.node, handle, offset, request.u32(ARG + 16));
  return result < 0 ? result : reply.u64(result);
}

/** struct fuse_copy_file_range_in: fh_in 0, off_in 8, nodeid_out 16, fh_out 24, off_out 32, len 40 */
function copyRange(x: Exchange, longest: number): Result {
  const { request } = x.work;
  const offset = request.u64(ARG + 8);
  const toOffset = request.u64(ARG + 32);
  if (!isSafe(offset) || !isSafe(toOffset)) return -EFBIG;
  const room = Number.MAX_SAFE_INTEGER - Math.max(offset, toOffset);
  const length = Math.min(request.u64(ARG + 40), longest, room);
  return x.fileSystem.copyFileRange(
    request.node,
    offset,
    request.nodeAt(ARG + 16),
    toOffset,
    length,
    killsSetId(request.caller),
  );
}

/** For requests with which the kernel does not say whether the caller has CAP_FSETID: root is taken to. */
function killsSetId(caller: Caller): boolean {
  return caller.uid !== 0;
}

/** Replies struct fuse_write_out: 32 bits. */
export function copyFileRange(x: Exchange): Outcome {
  const result = copyRange(x, COPY_32_MAX);
  return result < 0 ? result : x.work.reply.u32(result);
}

/** Replies struct fuse_copy_file_range_out: 64 bits. */
export function copyFileRange64(x: Exchange): Outcome {
  const result = copyRange(x, Number.MAX_SAFE_INTEGER);
  return result < 0 ? result : x.work.reply.u64(result);
}
