/**
 * The typed face of the addon in `native/`: system calls that Node lacks, without policy.
 *
 * Conventions. A call returns 0, a descriptor or a count on success and a NEGATIVE errno on failure;
 * calls with another result return that or a negative errno. Nothing throws but a wrong argument
 * type, or a range outside its Buffer. A name of PATH_MAX bytes or more is -ENAMETOOLONG, one with a
 * NUL -EINVAL. Every descriptor made here is close-on-exec. `dirfd` is a directory descriptor (O_PATH will do) or AT_FDCWD. A `name` is used exactly as
 * given: callers that must not follow symlinks pass one component, or go through `openat2` with
 * RESOLVE_* flags. Offsets and sizes are numbers, exact up to 2^53.
 */

import type { ByteString } from "./bytes.js";
import type { Codecs } from "./native-codecs.js";

/** Slots of the Float64Array that `statx` fills. */
export const STAT_INO = 0;
export const STAT_MODE = 1;
export const STAT_NLINK = 2;
export const STAT_UID = 3;
export const STAT_GID = 4;
/** new_encode_dev form, as struct fuse_attr's rdev. */
export const STAT_RDEV = 5;
export const STAT_SIZE = 6;
/** 512-byte units. */
export const STAT_BLOCKS = 7;
export const STAT_BLKSIZE = 8;
export const STAT_ATIME_SEC = 9;
export const STAT_ATIME_NSEC = 10;
export const STAT_MTIME_SEC = 11;
export const STAT_MTIME_NSEC = 12;
export const STAT_CTIME_SEC = 13;
export const STAT_CTIME_NSEC = 14;
/** new_encode_dev form of the device that holds the file. */
export const STAT_DEV = 15;
export const STAT_BTIME_SEC = 16;
export const STAT_BTIME_NSEC = 17;
/** Mount ID (STATX_MNT_ID), to tell mount points apart. */
export const STAT_MNT_ID = 18;
/** Length of a stat record. */
export const STAT_SLOTS = 20;

/** Positions in what `readFilesAsync` says of a file. */
export const READ_SLOTS = 3;
/** Bytes read, fewer than wanted only at the end of the file; or a negative errno. */
export const READ_COUNT = 0;
export const READ_INO = 1;
/** The file's size just before. */
export const READ_SIZE = 2;

/** What `readDirectory` returns: parallel arrays, "." and ".." left out, in the disk's order. */
export interface DirectoryListing {
  readonly names: ByteString[];
  /** DT_* of each name (DT_UNKNOWN already resolved). */
  readonly types: Uint8Array;
}

/** What `scanDirectory` returns: a listing with everything an index or a diff needs of each entry. */
export interface DirectoryScan {
  readonly names: ByteString[];
  /** STAT_SLOTS numbers per entry. */
  readonly stats: Float64Array;
  /** Symlink targets; undefined for other types. */
  readonly targets: (ByteString | undefined)[];
  /** Extended attributes as [name, value] pairs; undefined when there are none. */
  readonly xattrs: ([ByteString, Buffer][] | undefined)[];
}

/** statfs(2): blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, f_type. */
export type StatfsResult = readonly number[];

/** System calls. See the file comment for the conventions. */
export interface Syscalls {
  open(path: ByteString, flags: number, mode: number): number;
  openat(dirfd: number, name: ByteString, flags: number, mode: number): number;
  openat2(dirfd: number, path: ByteString, flags: number, mode: number, resolve: number): number;
  close(fd: number): number;
  /** With name "" and AT_EMPTY_PATH in `flags`, the descriptor itself. Fills STAT_SLOTS numbers. */
  statx(dirfd: number, name: ByteString, flags: number, out: Float64Array): number;
  readlinkat(dirfd: number, name: ByteString): ByteString | number;
  symlinkat(target: ByteString, dirfd: number, name: ByteString): number;
  mkdirat(dirfd: number, name: ByteString, mode: number): number;
  /** `rdev` in new_encode_dev form. */
  mknodat(dirfd: number, name: ByteString, mode: number, rdev: number): number;
  linkat(
    oldDirfd: number,
    oldName: ByteString,
    newDirfd: number,
    newName: ByteString,
    flags: number,
  ): number;
  unlinkat(dirfd: number, name: ByteString, flags: number): number;
  renameat2(
    oldDirfd: number,
    oldName: ByteString,
    newDirfd: number,
    newName: ByteString,
    flags: number,
  ): number;
  fchmod(fd: number, mode: number): number;
  /** Never called on a symlink; follows none (fails ENOTSUP on one). Works on any other type without opening it. */
  fchmodat(dirfd: number, name: ByteString, mode: number): number;
  /** With name "" and AT_EMPTY_PATH, the descriptor itself. uid or gid -1 leaves it alone. */
  fchownat(dirfd: number, name: ByteString, uid: number, gid: number, flags: number): number;
  /** nsec may be UTIME_NOW or UTIME_OMIT. With name "" and AT_EMPTY_PATH, the descriptor itself. */
  utimensat(
    dirfd: number,
    name: ByteString,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
    flags: number,
  ): number;
  ftruncate(fd: number, size: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  lseek(fd: number, offset: number, whence: number): number;
  pread(fd: number, target: Buffer, targetStart: number, length: number, offset: number): number;
  pwrite(fd: number, data: Buffer, start: number, length: number, offset: number): number;
  /** A pipe, [read end, write end], both blocking and closed on exec; or a negative errno. */
  pipe(): [number, number] | number;
  /** Reads from a pipe or socket (blocking as the descriptor is). */
  read(fd: number, target: Buffer, targetStart: number, length: number): number;
  copyFileRange(
    fromFd: number,
    fromOffset: number,
    toFd: number,
    toOffset: number,
    length: number,
  ): number;
  /** FICLONE; -EOPNOTSUPP, -EXDEV or -EINVAL where the disk cannot. */
  ficlone(toFd: number, fromFd: number): number;
  /**
   * Copies the bytes [start, end) to the same place of another file on the thread pool, in the kernel
   * where it can: 0 or a negative errno (-EIO when the file ends before). Never rejects.
   */
  copyRangeAsync(fromFd: number, toFd: number, start: number, end: number): Promise<number>;
  /**
   * Reads small files on the thread pool, opened beneath a directory without following symbolic links. All
   * three buffers must be left alone until the promise settles.
   *
   * @param paths each ended by a NUL
   * @param numbers READ_SLOTS per file: first the bytes wanted; in the end what READ_* say
   * @param out the files' bytes one after the other, each in the room of the bytes wanted
   * @returns 0, or -EINVAL when the buffers do not fit each other
   */
  readFilesAsync(
    dirfd: number,
    paths: Buffer,
    numbers: Float64Array,
    out: Buffer,
  ): Promise<number> | number;
  fsync(fd: number): number;
  fdatasync(fd: number): number;
  syncfs(fd: number): number;
  /** fsync, fdatasync or syncfs on the thread pool, for callers that must not block. */
  syncAsync(kind: "fsync" | "fdatasync" | "syncfs", fd: number): Promise<number>;
  fstatfs(fd: number): StatfsResult | number;
  umask(mask: number): number;
  /** F_SETPIPE_SZ: the size in bytes that the kernel chose, at least `size`. */
  setPipeSize(fd: number, size: number): number;
  /** Takes (exclusive, non-blocking) or drops a flock(2) lock: LOCK_* in `operation`. */
  flock(fd: number, operation: number): number;

  // Extended attributes, never through a symlink. With name "", the descriptor's own (O_PATH works).
  getxattrat(dirfd: number, name: ByteString, attribute: ByteString): Buffer | number;
  setxattrat(
    dirfd: number,
    name: ByteString,
    attribute: ByteString,
    value: Buffer,
    flags: number,
  ): number;
  /** Attribute names, each followed by NUL, as the system call gives them. */
  listxattrat(dirfd: number, name: ByteString): Buffer | number;
  removexattrat(dirfd: number, name: ByteString, attribute: ByteString): number;

  readDirectory(fd: number): DirectoryListing | number;
  /** One call for a whole directory: names, stat, symlink targets and xattrs. */
  scanDirectory(fd: number): DirectoryScan | number;

  /**
   * The first `length` bytes of a file as memory, shared with all who map it. The file must have them
   * on its disk already: a write for which there is no room then ends the process.
   */
  mapShared(fd: number, length: number): ArrayBuffer | number;

  /** A connected SOCK_SEQPACKET socket; its calls give up after five seconds (-EAGAIN). */
  connectPackets(path: ByteString): number;
  /** The same with SOCK_DGRAM. A path that begins with @ is an abstract name. */
  connectDatagrams(path: ByteString): number;
  /** Sends one packet, with a descriptor unless that is -1. */
  sendPacket(socket: number, data: Buffer, descriptor: number): number;
  /** Receives one packet into `target`: its length, 0 at the end. out[0] gets its descriptor (owned by the caller) or -1. */
  receivePacket(socket: number, target: Buffer, out: Float64Array): number;
  /** Another descriptor for the same open file. */
  duplicate(fd: number): number;
  /** Who connected a Unix socket: [pid, uid, gid, ...supplementary groups], or a negative errno. */
  peerCredentials(socket: number): number[] | number;

  /**
   * Opens a file with the rights of another user (as root only; -EPERM otherwise), on a thread of its
   * own: a descriptor or a negative errno. Links of /proc that lead anywhere are not followed (-ELOOP);
   * nothing of /proc or of a FUSE mount is opened or made (-EOPNOTSUPP). With uid -1 it is a plain
   * open(2) that blocks nobody. Never rejects; neither do the two below.
   */
  openAs(
    uid: number,
    gid: number,
    groups: Float64Array,
    path: ByteString,
    flags: number,
    mode: number,
  ): Promise<number>;
  /** mkdir(2) in the same way; the path must have a slash. */
  mkdirAs(
    uid: number,
    gid: number,
    groups: Float64Array,
    path: ByteString,
    mode: number,
  ): Promise<number>;
  /** unlink(2) in the same way. */
  unlinkAs(uid: number, gid: number, groups: Float64Array, path: ByteString): Promise<number>;

  mount(
    source: ByteString,
    target: ByteString,
    type: ByteString,
    flags: number,
    data: ByteString,
  ): number;
  umount2(target: ByteString, flags: number): number;
  /** A file handle that outlives the file's names, unique within its file system. */
  nameToHandleAt(
    dirfd: number,
    name: ByteString,
    flags: number,
  ): { type: number; handle: Buffer; mountId: number } | number;
  /** "ENOENT" for 2 (or -2); "E?17" style for numbers the C library does not name. */
  errnoName(errno: number): string;
  /**
   * Has the next message that this thread sends end with up to `length` bytes of a file, fewer at its end only,
   * which do not come into this process. Counted in the message's length; a message of another length goes without.
   *
   * @returns their number, or a negative errno: -ENOSYS where pipes cannot be that large
   */
  stage(fd: number, offset: number, length: number): number;
  /**
   * Gives the whole pages of what malloc has free back to the system, on the thread pool: 1, or 0 when there were
   * none, or with a C library that knows no malloc_trim(3). Threads that allocate meanwhile wait for some ms.
   */
  trimHeapAsync(): Promise<number>;
  /** strerror(3). */
  errnoText(errno: number): string;
}

/**
 * Sends the first `replyLength` bytes of the reply buffer (0: nothing), then receives into the request
 * buffer: one call for what `send` and `receive` do, and the cheapest way into native code. When no
 * request waits it keeps trying for `patienceUs`, giving up the CPU to others between the tries.
 *
 * @returns as `receive`; or EXCHANGE_UNSENT minus an errno when the reply was refused, and nothing received
 */
export type FuseExchange = (replyLength: number, patienceUs: number) => number;

/** See `FuseExchange`: results below it are those of sending. */
export const EXCHANGE_UNSENT = -4096;

/** One /dev/fuse connection; owns its descriptor. Made by `FuseNative.mount` or `fromDescriptor`. */
export interface FuseChannel {
  readonly fd: number;
  /** Reads one request into `target`: its length, or -EAGAIN (none waits), -ENODEV (unmounted), -EINTR … */
  receive(target: Buffer): number;
  /** Writes the first `length` bytes of a message, a reply or a notification. */
  send(message: Buffer, length: number): number;
  /** The function through which a session takes its turns; it keeps the channel and both buffers alive. */
  exchanger(request: Buffer, reply: Buffer): FuseExchange;
  /**
   * Writes a notification (a whole message, copied) on a thread of its own and resolves with 0 or a
   * negative errno: the kernel may make the writer wait for a lock that a request now waiting for
   * this very session holds.
   */
  notifyAsync(message: Buffer): Promise<number>;
  /** Calls `onReadable` on this thread's event loop whenever requests wait. 0 or a negative errno. */
  start(onReadable: () => void): number;
  /** Stops polling; the connection stays. */
  stop(): void;
  /** FUSE_DEV_IOC_BACKING_OPEN: a backing id, or a negative errno. */
  backingOpen(fd: number): number;
  backingClose(id: number): number;
  /** Stops polling and closes the descriptor; the kernel aborts the connection with the last one. Idempotent. */
  close(): void;
}

/** Making /dev/fuse connections. */
export interface FuseNative {
  /**
   * Mounts a FUSE file system on `target` with mount(2) (root). `options` are added to
   * fd=,rootmode=,user_id=,group_id=. Returns a channel or a negative errno.
   */
  mountDirect(
    target: ByteString,
    source: ByteString,
    flags: number,
    options: ByteString,
  ): FuseChannel | number;
  /** The same through fusermount3 (no root): its options as for -o. Negative errno, or its stderr text. */
  mountThroughHelper(target: ByteString, options: ByteString): FuseChannel | number | string;
  /** Takes over a descriptor (from a supervisor). */
  fromDescriptor(fd: number): FuseChannel;
  /**
   * umount2(2) on a thread of its own: unmounting writes back what is dirty, which needs replies
   * from the thread that serves the mount. Resolves with 0 or a negative errno.
   */
  umountAsync(target: ByteString, flags: number): Promise<number>;
}

/**
 * Reads a file or pipe ahead on a thread of its own, inflates it on demand and hashes what comes out.
 * Not for a thread that must not wait: `next` blocks.
 */
export interface StreamReader {
  /**
   * Waits for the next bytes: how many the ring's next buffer (the first at the first call) now
   * holds, 0 at the end, or a negative errno. They are borrowed until the next call. gzip: -EBADMSG
   * for damaged data, -EILSEQ for a wrong checksum or length, -ENODATA for a missing end.
   */
  next(): number;
  /** Bytes read of the source so far. */
  consumed(): number;
  /** SHA-256 of all that came out; to be asked once, after the end, where `canHash`. */
  digest(): Buffer | undefined;
  /** Ends the thread; waits for a read that is under way. Idempotent. */
  close(): void;
}

/** Makes stream readers. */
export interface StreamReaderClass {
  /** Whether gzip can be inflated (ISA-L is installed). */
  readonly canGunzip: boolean;
  /** Whether `digest` has an answer (Node exports its OpenSSL). */
  readonly canHash: boolean;
  /**
   * @param fd duplicated; gzip files are read from their start, others from the descriptor's position
   * @param ring buffers that are filled in turn, at least two
   */
  new (fd: number, isGzip: boolean, ring: readonly Buffer[]): StreamReader;
}

/** All that the addon exports. */
export interface NativeAddon {
  readonly syscalls: Syscalls;
  readonly codecs: Codecs;
  readonly fuse: FuseNative;
  readonly StreamReader: StreamReaderClass;
}
