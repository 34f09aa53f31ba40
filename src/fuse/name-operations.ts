/**
 * Handlers of requests about nodes and names. Field offsets are those of the structures in
 * linux/fuse.h behind the 40-byte header; the structure and its fields stand above each handler.
 */

import { EFBIG, EIO, ENAMETOOLONG, ENOSYS } from "../system/errno.js";
import { FOPEN_KEEP_CACHE, MAX_TRANSFER_BYTES, NAME_MAX, SYMLINK_MAX } from "./constants.js";
import { type Exchange, NO_REPLY, type Outcome } from "./exchange.js";
import type { SetAttributes } from "./file-system.js";
import { ARG, emptyEntry, emptyOpen, entryOutcome, plainOutcome } from "./outcome.js";
import { isSafe, MalformedRequest, type RequestBuffer } from "./request.js";

/** name */
export function lookup(x: Exchange): Outcome {
  const { request } = x.work;
  const entry = emptyEntry(x);
  return entryOutcome(x, x.fileSystem.lookup(request.node, request.entryName(ARG), entry), entry);
}

/** struct fuse_forget_in: nlookup 0 */
export function forget(x: Exchange): Outcome {
  const { request } = x.work;
  x.fileSystem.forget(request.node, request.u64(ARG));
  return NO_REPLY;
}

/** struct fuse_batch_forget_in: count 0; then struct fuse_forget_one: nodeid 0, nlookup 8 */
export function batchForget(x: Exchange): Outcome {
  const { request } = x.work;
  const count = request.u32(ARG);
  if (ARG + 8 + count * 16 !== request.length) {
    throw new MalformedRequest(`BATCH_FORGET of ${request.length} bytes says it has ${count}`);
  }
  for (let i = 0, at = ARG + 8; i < count; i++, at += 16) {
    x.fileSystem.forget(request.nodeAt(at), request.u64(at + 8));
  }
  return NO_REPLY;
}

/** struct fuse_getattr_in, which names a handle that we do not need. */
export function getattr(x: Exchange): Outcome {
  const { attributes, reply, request } = x.work;
  const result = x.fileSystem.getattr(request.node, attributes);
  return result < 0 ? result : reply.attributes(attributes);
}

/**
 * struct fuse_setattr_in: valid 0, size 16, atime 32, mtime 40, ctime 48, atimensec 56, mtimensec
 * 60, ctimensec 64, mode 68, uid 76, gid 80
 */
function decodeSetAttributes(request: RequestBuffer, set: SetAttributes): void {
  set.valid = request.u32(ARG);
  set.size = request.u64(ARG + 16);
  set.atimeSec = request.s64(ARG + 32);
  set.mtimeSec = request.s64(ARG + 40);
  set.ctimeSec = request.s64(ARG + 48);
  set.atimeNsec = request.u32(ARG + 56);
  set.mtimeNsec = request.u32(ARG + 60);
  set.ctimeNsec = request.u32(ARG + 64);
  set.mode = request.u32(ARG + 68);
  set.uid = request.u32(ARG + 76);
  set.gid = request.u32(ARG + 80);
}

/** struct fuse_setattr_in */
export function setattr(x: Exchange): Outcome {
  const { attributes, reply, request, set } = x.work;
  decodeSetAttributes(request, set);
  if (!isSafe(set.size)) return -EFBIG;
  const result = x.fileSystem.setattr(request.caller, request.node, set, attributes);
  return result < 0 ? result : reply.attributes(attributes);
}

/** No arguments. */
export function readlink(x: Exchange): Outcome {
  const target = x.fileSystem.readlink(x.work.request.node);
  if (typeof target === "number") return target < 0 ? target : -EIO;
  return target.length > SYMLINK_MAX ? -ENAMETOOLONG : x.work.reply.text(target);
}

/** name, then target */
export function symlink(x: Exchange): Outcome {
  const { request } = x.work;
  const name = request.firstName(ARG);
  if (name.length > NAME_MAX) return -ENAMETOOLONG;
  const target = request.lastName(request.afterName);
  const entry = emptyEntry(x);
  const result = x.fileSystem.symlink(request.caller, request.node, name, target, entry);
  return entryOutcome(x, result, entry);
}

/** struct fuse_mknod_in: mode 0, rdev 4, umask 8 */
export function mknod(x: Exchange): Outcome {
  const { request } = x.work;
  const entry = emptyEntry(x);
  const result = x.fileSystem.mknod(
    request.caller,
    request.node,
    request.entryName(ARG + 16),
    request.u32(ARG),
    request.u32(ARG + 4),
    request.u32(ARG + 8),
    entry,
  );
  return entryOutcome(x, result, entry);
}

/** struct fuse_mkdir_in: mode 0, umask 4 */
export function mkdir(x: Exchange): Outcome {
  const { request } = x.work;
  const entry = emptyEntry(x);
  const result = x.fileSystem.mkdir(
    request.caller,
    request.node,
    request.entryName(ARG + 8),
    request.u32(ARG),
    request.u32(ARG + 4),
    entry,
  );
  return entryOutcome(x, result, entry);
}

/** name */
export function unlink(x: Exchange): Outcome {
  const { request } = x.work;
  return plainOutcome(x.fileSystem.unlink(request.node, request.entryName(ARG)));
}

/** name */
export function rmdir(x: Exchange): Outcome {
  const { request } = x.work;
  return plainOutcome(x.fileSystem.rmdir(request.node, request.entryName(ARG)));
}

function renameFrom(x: Exchange, names: number, flags: number): Outcome {
  const { request } = x.work;
  const name = request.firstName(names);
  const newName = request.entryName(request.afterName);
  return plainOutcome(x.fileSystem.rename(request.node, name, request.nodeAt(ARG), newName, flags));
}

/** struct fuse_rename_in: newdir 0 */
export function rename(x: Exchange): Outcome {
  return renameFrom(x, ARG + 8, 0);
}

/** struct fuse_rename2_in: newdir 0, flags 8 */
export function rename2(x: Exchange): Outcome {
  return renameFrom(x, ARG + 16, x.work.request.u32(ARG + 8));
}

/** struct fuse_link_in: oldnodeid 0 */
export function link(x: Exchange): Outcome {
  const { request } = x.work;
  const entry = emptyEntry(x);
  const name = request.entryName(ARG + 8);
  return entryOutcome(x, x.fileSystem.link(request.nodeAt(ARG), request.node, name, entry), entry);
}

/** struct fuse_create_in: flags 0, mode 4, umask 8; name */
export function create(x: Exchange): Outcome {
  const { reply, request } = x.work;
  if (x.fileSystem.create === undefined) return -ENOSYS;
  const entry = emptyEntry(x);
  const opened = emptyOpen(x, FOPEN_KEEP_CACHE);
  const result = x.fileSystem.create(
    request.caller,
    request.node,
    request.entryName(ARG + 16),
    request.u32(ARG + 4),
    request.u32(ARG),
    request.u32(ARG + 8),
    entry,
    opened,
  );
  return result < 0 ? result : reply.entryAndOpen(entry, opened);
}

/** struct fuse_create_in as for CREATE, with a name that means nothing */
export function tmpfile(x: Exchange): Outcome {
  const { reply, request } = x.work;
  if (x.fileSystem.tmpfile === undefined) return -ENOSYS;
  const entry = emptyEntry(x);
  const opened = emptyOpen(x, FOPEN_KEEP_CACHE);
  const result = x.fileSystem.tmpfile(
    request.caller,
    request.node,
    request.u32(ARG + 4),
    request.u32(ARG),
    request.u32(ARG + 8),
    entry,
    opened,
  );
  return result < 0 ? result : reply.entryAndOpen(entry, opened);
}

/** struct fuse_read_in: fh 0, offset 8, size 16 */
function readDirectory(x: Exchange, plus: boolean): Outcome {
  const { directory, request } = x.work;
  directory.begin(Math.min(request.u32(ARG + 16), MAX_TRANSFER_BYTES), plus);
  const handle = request.u64(ARG);
  const result = x.fileSystem.readdir(request.node, handle, request.u64(ARG + 8), plus, directory);
  // What was put counts, lookups included: an error after it waits for the next request.
  return result < 0 && directory.length === 0 ? result : directory.length;
}

/** struct fuse_read_in */
export function readdir(x: Exchange): Outcome {
  return readDirectory(x, false);
}

/** struct fuse_read_in */
export function readdirplus(x: Exchange): Outcome {
  return readDirectory(x, true);
}
