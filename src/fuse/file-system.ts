/**
 * What a file system must answer to be served by a FUSE session.
 *
 * The session decodes requests and encodes replies; the file system decides. Every method is
 * synchronous and returns 0 (or a count) on success and a NEGATIVE errno on failure, because an
 * exception costs more than a request. Methods that may block on the disk (fsync) may return a
 * promise of the same; the session then replies later and goes on with other requests. A method
 * that throws is a bug: the session answers EIO and logs the stack.
 *
 * Output objects are owned by the session and reused: fill every field, keep no reference. Buffers
 * passed in are borrowed until the method returns.
 */

import type { ByteString } from "../system/bytes.js";

/** A node: 1 is the root. Lower-born nodes carry their chain index inode. Never reused while known. */
export type NodeId = number;

/** 0 or a count on success, a negative errno otherwise. */
export type Result = number;

/**
 * The answer of a method that has changed nothing yet and waits for `FileSystem.ready`: the session
 * keeps the request and calls the method again then. Below every errno.
 */
export const LATER: Result = -(1 << 30);

/** Who asked. Valid during the call. */
export interface Caller {
  uid: number;
  gid: number;
  pid: number;
}

/** stat, as FUSE carries it. */
export interface Attributes {
  ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** new_encode_dev form, as struct fuse_attr. */
  rdev: number;
  size: number;
  /** 512-byte units. */
  blocks: number;
  blksize: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  /** They change without a request (writes through a mapping of a backing file): the kernel must not keep them. */
  isVolatile: boolean;
  /**
   * Which of the kernel's inodes is to stand for the node from now on, usually 0. After a file
   * system has answered OPEN with ESTALE, a higher number makes the kernel take a new inode; the old
   * one lives on for its open files, and requests about it name the same node.
   */
  incarnation: number;
}

/** Attributes with every field 0, in the shape that all others share. */
export function emptyAttributes(): Attributes {
  return {
    ino: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 0,
    blocks: 0,
    blksize: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    isVolatile: false,
    incarnation: 0,
  };
}

/** A looked-up or created name. `node` 0 is a negative entry (the kernel caches the absence). */
export interface Entry {
  node: NodeId;
  generation: number;
  readonly attributes: Attributes;
}

/** Bits of SetAttributes.valid (FATTR_* of linux/fuse.h). */
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;
export const FATTR_LOCKOWNER = 1 << 9;
export const FATTR_CTIME = 1 << 10;
export const FATTR_KILL_SUIDGID = 1 << 11;

/** What SETATTR asks for; only the fields named in `valid` count. */
export interface SetAttributes {
  valid: number;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

/** Bit of the write flags: the kernel asks to clear set-id bits and capabilities. */
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2;

/**
 * Takes directory entries of one READDIR or READDIRPLUS request.
 * Each `add*` returns false when the reply is full; that entry was not taken.
 */
export interface DirectorySink {
  /** `cookie` is what the next READDIR passes as `offset` to continue after this entry. */
  add(name: ByteString, ino: number, mode: number, cookie: number): boolean;
  /** READDIRPLUS only: `entry.node` 0 hands out the name without a lookup. */
  addPlus(name: ByteString, cookie: number, entry: Entry): boolean;
}

/** statfs(2). Sizes in units of `frsize`. */
export interface FileSystemStatistics {
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  bsize: number;
  namelen: number;
  frsize: number;
}

/** Output of open-like calls. `openFlags` are FOPEN_* bits. */
export interface OpenResult {
  handle: number;
  openFlags: number;
  /** Backing id for FOPEN_PASSTHROUGH, else 0. */
  backingId: number;
}

/** What a file system may ask of the kernel, from INIT to `destroy`. Every call is synchronous and does not wait. */
export interface Kernel {
  /** Open-like calls come, and may answer FOPEN_PASSTHROUGH with a backing ID. */
  readonly hasPassthrough: boolean;
  /** Identifies the request that is being served, also when a session that took over gets it again. */
  readonly request: number;
  /**
   * Registers a file (an O_PATH descriptor will do) as a backing file: its ID, or a negative errno.
   * The kernel keeps the file open until the ID is closed and nobody uses it. Set-id bits go with the
   * first write through it, whoever writes.
   */
  openBacking(fd: number): Result;
  closeBacking(id: number): void;
  /** The attributes that the kernel has of one inode of a node are out of date. */
  expireAttributes(node: NodeId, incarnation: number): void;
}

/**
 * Answers a read with up to `length` bytes of a file from `offset` on, fewer at its end only, without copying them: the
 * read's result is what this returns. Negative: that cannot be; read into the target.
 */
export type Stage = (fd: number, offset: number, length: number) => Result;

/** The file system behind one session. Optional methods answer ENOSYS when absent. */
export interface FileSystem {
  /** The connection stands; called once, before any other method. */
  begin?(kernel: Kernel): void;
  /** Asked for at once after a method answered LATER: resolves when it is to be called again. Never rejects. */
  ready?(): Promise<void>;
  lookup(parent: NodeId, name: ByteString, out: Entry): Result;
  /** The kernel dropped `count` references to a node. No reply. */
  forget(node: NodeId, count: number): void;
  getattr(node: NodeId, out: Attributes): Result;
  setattr(caller: Caller, node: NodeId, set: SetAttributes, out: Attributes): Result;
  /** The target, or a negative errno. */
  readlink(node: NodeId): ByteString | Result;
  symlink(caller: Caller, parent: NodeId, name: ByteString, target: ByteString, out: Entry): Result;
  /** `mode` has the umask applied already unless FUSE_DONT_MASK was negotiated, then `umask` applies. */
  mknod(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: Entry,
  ): Result;
  mkdir(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: Entry,
  ): Result;
  unlink(parent: NodeId, name: ByteString): Result;
  rmdir(parent: NodeId, name: ByteString): Result;
  /** `flags`: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4. */
  rename(
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Result;
  link(node: NodeId, newParent: NodeId, newName: ByteString, out: Entry): Result;
  /**
   * Reads into `target`, or has `stage` take what is wanted from a file, where it is given and does so;
   * returns the bytes read, short only at end of file.
   */
  read(node: NodeId, handle: number, offset: number, target: Buffer, stage?: Stage): Result;
  /** Returns the bytes written. `flags` are FUSE_WRITE_*. */
  write(node: NodeId, handle: number, offset: number, data: Buffer, flags: number): Result;
  statfs(out: FileSystemStatistics): Result;
  fsync(node: NodeId, dataOnly: boolean): Result | Promise<Result>;
  fsyncdir(node: NodeId, dataOnly: boolean): Result | Promise<Result>;
  /** Entries after `offset` (0: from the start), "." and ".." included. `plus`: addPlus counts a lookup per entry. */
  readdir(node: NodeId, handle: number, offset: number, plus: boolean, sink: DirectorySink): Result;
  setxattr(
    caller: Caller,
    node: NodeId,
    name: ByteString,
    value: Buffer,
    flags: number,
    killSgid: boolean,
  ): Result;
  /** The value, or a negative errno (ENODATA). */
  getxattr(node: NodeId, name: ByteString): Buffer | Result;
  /** Names, each followed by a NUL byte, or a negative errno. */
  listxattr(node: NodeId): Buffer | Result;
  removexattr(caller: Caller, node: NodeId, name: ByteString): Result;
  /** `killSetId`: the caller may not leave set-id bits on what it changes. */
  fallocate(
    node: NodeId,
    handle: number,
    mode: number,
    offset: number,
    length: number,
    killSetId: boolean,
  ): Result;
  /** SEEK_DATA 3 or SEEK_HOLE 4: the new offset. */
  lseek(node: NodeId, handle: number, offset: number, whence: number): Result;
  copyFileRange(
    node: NodeId,
    offset: number,
    toNode: NodeId,
    toOffset: number,
    length: number,
    killSetId: boolean,
  ): Result;
  /** O_TMPFILE: an unnamed regular file in `parent`'s file system. */
  tmpfile?(
    caller: Caller,
    parent: NodeId,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result;
  /**
   * Absent, or -ENOSYS the first time: OPEN never comes again (cached mode). `flags` has O_TRUNC in
   * it only if the kernel has passthrough, and then this call is to truncate. -ESTALE makes the
   * kernel look the name up again, and then open what it finds.
   */
  open?(
    node: NodeId,
    incarnation: number,
    flags: number,
    killSetId: boolean,
    out: OpenResult,
  ): Result;
  create?(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result;
  release?(node: NodeId, handle: number): void;
  opendir?(node: NodeId, flags: number, out: OpenResult): Result;
  releasedir?(node: NodeId, handle: number): void;
  syncfs?(): Result | Promise<Result>;
  /** The kernel unmounted or the connection was aborted; last call on this object. */
  destroy(): void;
}
