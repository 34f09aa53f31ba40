/**
 * Files that callers name, opened with the caller's rights. Nothing here waits for them on the thread that answers
 * everybody: they may lie on a file system that is slow, or of the caller's making.
 */

import { createReadStream, fstat, ftruncate, write } from "node:fs";
import { promisify } from "node:util";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_WRONLY } from "../system/constants.js";
import { EACCES, EEXIST, EIO, ELOOP, EOPNOTSUPP, EPERM, syscallError } from "../system/errno.js";
import {
  InvalidArgumentError,
  PermissionDeniedError,
  ResourceExhaustedError,
} from "../system/errors.js";
import type { Caller } from "./caller.js";

/** Calls of one guest that may wait for a file system at a time: each takes a thread, and may wait for ever. */
const MAX_WAITING = 16;
const READ_CHUNK_BYTES = 1024 * 1024;
const writeAt = promisify(write);

/** As the native calls want it: an owner is the daemon itself. */
function identity({ isOwner, uid, gid, groups }: Caller): [number, number, Float64Array] {
  return isOwner ? [-1, -1, new Float64Array()] : [uid, gid, Float64Array.from(groups)];
}

/**
 * Opens a file as the caller.
 *
 * @returns a descriptor, the caller's to close
 * @throws PermissionDeniedError the caller may not, or, as a guest, names a file of /proc or of a FUSE mount
 * @throws ResourceExhaustedError too many of the caller's files are waited for
 * @throws SyscallError anything else
 */
export async function openAs(
  caller: Caller,
  what: string,
  file: string,
  flags: number,
  mode = 0,
): Promise<number> {
  const open = () => sys.openAs(...identity(caller), toBytes(file), flags, mode);
  const result = await waiting(caller, what, open);
  if (result < 0) throw refusal(caller, what, syscallError(result, "open", file));
  return result;
}

/** Calls that wait, by user. */
const waitingCalls = new Map<number, number>();

/** Runs a call that may take its time. @throws ResourceExhaustedError too many of this guest's do */
async function waiting(
  { isOwner, uid }: Caller,
  what: string,
  call: () => Promise<number>,
): Promise<number> {
  if (isOwner) return call();
  const others = waitingCalls.get(uid) ?? 0;
  if (others >= MAX_WAITING) {
    throw new ResourceExhaustedError(
      `${what}: ${others} files of user ${uid} are being opened and do not answer; see to their file systems`,
    );
  }
  waitingCalls.set(uid, others + 1);
  try {
    return await call();
  } finally {
    const left = (waitingCalls.get(uid) ?? 1) - 1;
    if (left > 0) waitingCalls.set(uid, left);
    else waitingCalls.delete(uid);
  }
}

/** Makes a directory as the caller. @returns false when something has that name already @throws as `openAs` */
export async function makeDirectoryAs(
  caller: Caller,
  what: string,
  directory: string,
  mode: number,
): Promise<boolean> {
  const make = () => sys.mkdirAs(...identity(caller), toBytes(directory), mode);
  const result = await waiting(caller, what, make);
  if (result === -EEXIST) return false;
  if (result < 0) throw refusal(caller, what, syscallError(result, "mkdir", directory));
  return true;
}

/**
 * The content of a regular file, read as a guest.
 *
 * @throws as `openAs`; InvalidArgumentError it is no regular file
 */
export async function readAsGuest(
  caller: Caller,
  what: string,
  file: string,
): Promise<AsyncIterable<Uint8Array>> {
  const fd = await openAs(caller, what, file, O_RDONLY | O_NONBLOCK);
  try {
    await checkRegular(fd, what, "of a directory send an archive: tar -C DIR -c . | varve load");
  } catch (error) {
    sys.close(fd);
    throw error;
  }
  return createReadStream(file, { fd, highWaterMark: READ_CHUNK_BYTES });
}

/**
 * Writes a regular file as a guest. After a failure a file that was not there before is gone again.
 *
 * @throws as `openAs`; InvalidArgumentError it is no regular file; what `content` throws
 */
export async function writeAsGuest(
  caller: Caller,
  what: string,
  file: string,
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  const { fd, isNew } = await openForWriting(caller, what, file);
  try {
    await checkRegular(fd, what, "name a file");
    await promisify(ftruncate)(fd, 0).catch(named("ftruncate", file));
    let offset = 0;
    for await (const chunk of content) {
      offset += await writeFully(fd, chunk, offset).catch(named("write", file));
    }
    const synced = await sys.syncAsync("fsync", fd);
    if (synced < 0) throw syscallError(synced, "fsync", file);
  } catch (error) {
    if (isNew) await sys.unlinkAs(...identity(caller), toBytes(file));
    throw error;
  } finally {
    sys.close(fd);
  }
}

async function openForWriting(caller: Caller, what: string, file: string) {
  const [bytes, flags, mode] = [toBytes(file), O_WRONLY | O_NONBLOCK, 0o644];
  const create = () => sys.openAs(...identity(caller), bytes, flags | O_CREAT | O_EXCL, mode);
  const fd = await waiting(caller, what, create);
  if (fd >= 0) return { fd, isNew: true };
  if (fd !== -EEXIST) throw refusal(caller, what, syscallError(fd, "open", file));
  return { fd: await openAs(caller, what, file, flags), isNew: false };
}

async function writeFully(fd: number, data: Uint8Array, at: number): Promise<number> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await writeAt(fd, data, done, data.length - done, at + done);
    done += bytesWritten;
  }
  return data.length;
}

/** Node.js says of a descriptor's error neither which file it was nor the class that the API translates. */
function named(call: string, file: string): (cause: NodeJS.ErrnoException) => never {
  return ({ errno = -EIO }) => {
    throw syscallError(errno, call, file);
  };
}

async function checkRegular(fd: number, what: string, remedy: string): Promise<void> {
  if ((await promisify(fstat)(fd)).isFile()) return;
  throw new InvalidArgumentError(`${what}: no regular file; ${remedy}`);
}

function refusal(caller: Caller, what: string, cause: Error & { errno?: number }): Error {
  if (caller.isOwner) return cause;
  if (cause.errno === EOPNOTSUPP) {
    return new PermissionDeniedError(
      `${what}: files of FUSE mounts and of /proc are opened for root only; use a pipe (varve load < FILE, varve save > FILE)`,
    );
  }
  if (![EACCES, EPERM, ELOOP].includes(cause.errno ?? 0)) return cause;
  return new PermissionDeniedError(
    `${what}: user ${caller.uid}, who asks for it, may not: ${cause.message}`,
    { cause },
  );
}
