/**
 * Numbers of the FUSE kernel protocol, version 7.
 *
 * @see include/uapi/linux/fuse.h of Linux 6.18 (7.45); the minor version that brought a number is
 * noted where it is newer than 7.23 (Linux 3.15).
 */

/** The protocol we speak; the kernel answers with the smaller minor version. */
export const FUSE_KERNEL_VERSION = 7;
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** Oldest minor version served: PARALLEL_DIROPS, and the 64-byte INIT reply, are older than this. */
export const FUSE_OLDEST_MINOR_VERSION = 31;

/** The node ID of the root directory. */
export const FUSE_ROOT_ID = 1;

// Opcodes.
export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_GETATTR = 3;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RMDIR = 11;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_STATFS = 17;
export const FUSE_RELEASE = 18;
export const FUSE_FSYNC = 20;
export const FUSE_SETXATTR = 21;
export const FUSE_GETXATTR = 22;
export const FUSE_LISTXATTR = 23;
export const FUSE_REMOVEXATTR = 24;
export const FUSE_FLUSH = 25;
export const FUSE_INIT = 26;
export const FUSE_OPENDIR = 27;
export const FUSE_READDIR = 28;
export const FUSE_RELEASEDIR = 29;
export const FUSE_FSYNCDIR = 30;
export const FUSE_ACCESS = 34;
export const FUSE_CREATE = 35;
export const FUSE_INTERRUPT = 36;
export const FUSE_BMAP = 37;
export const FUSE_DESTROY = 38;
export const FUSE_IOCTL = 39;
export const FUSE_POLL = 40;
export const FUSE_NOTIFY_REPLY = 41;
export const FUSE_BATCH_FORGET = 42;
export const FUSE_FALLOCATE = 43;
export const FUSE_READDIRPLUS = 44;
export const FUSE_RENAME2 = 45;
/** 7.24 */
export const FUSE_LSEEK = 46;
/** 7.28 */
export const FUSE_COPY_FILE_RANGE = 47;
/** 7.34 */
export const FUSE_SYNCFS = 50;
/** 7.37 */
export const FUSE_TMPFILE = 51;
/** 7.39 */
export const FUSE_STATX = 52;
/** 7.45: the reply carries 64 bits, so one reflink may cover a file of any size. */
export const FUSE_COPY_FILE_RANGE_64 = 53;

/** Length of an opcode table: one past the highest opcode that we know. */
export const FUSE_OPCODE_LIMIT = 54;

// INIT flags, first word.
export const FUSE_ASYNC_READ = 1 << 0;
export const FUSE_ATOMIC_O_TRUNC = 1 << 3;
export const FUSE_BIG_WRITES = 1 << 5;
export const FUSE_DONT_MASK = 1 << 6;
export const FUSE_DO_READDIRPLUS = 1 << 13;
export const FUSE_READDIRPLUS_AUTO = 1 << 14;
export const FUSE_ASYNC_DIO = 1 << 15;
export const FUSE_WRITEBACK_CACHE = 1 << 16;
export const FUSE_NO_OPEN_SUPPORT = 1 << 17;
/** 7.25 */
export const FUSE_PARALLEL_DIROPS = 1 << 18;
/** 7.26 */
export const FUSE_POSIX_ACL = 1 << 20;
/** 7.27 */
export const FUSE_ABORT_ERROR = 1 << 21;
/** 7.28 */
export const FUSE_MAX_PAGES = 1 << 22;
/** 7.28 */
export const FUSE_CACHE_SYMLINKS = 1 << 23;
/** 7.29 */
export const FUSE_NO_OPENDIR_SUPPORT = 1 << 24;
/** 7.33 */
export const FUSE_HANDLE_KILLPRIV_V2 = 1 << 28;
/** 7.33 */
export const FUSE_SETXATTR_EXT = 1 << 29;
/** 7.36 */
export const FUSE_INIT_EXT = 1 << 30;

// INIT flags, second word (bit 32 of the whole is bit 0 here).
/** 7.38 */
export const FUSE_HAS_EXPIRE_ONLY = 1 << 3;
/** 7.40 (Linux 6.9) */
export const FUSE_PASSTHROUGH = 1 << 5;
export const FUSE_HAS_RESEND = 1 << 7;
/** 7.42 (Linux 6.14) */
export const FUSE_OVER_IO_URING = 1 << 9;

// FOPEN_* bits of open-like replies.
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;
/** 7.35: nothing is to be flushed when a descriptor closes. */
export const FOPEN_NOFLUSH = 1 << 5;
/** 7.40 */
export const FOPEN_PASSTHROUGH = 1 << 7;

/** 7.33, bit of open_flags in OPEN and CREATE: the truncation clears set-id bits and capabilities. */
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0;

/** Bit of fsync_flags: data only. */
export const FUSE_FSYNC_FDATASYNC = 1 << 0;
/** 7.33, bit of setxattr_flags: the ACL being set makes the set-gid bit go. */
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;

// Notifications.
export const FUSE_NOTIFY_INVAL_INODE = 2;
export const FUSE_NOTIFY_INVAL_ENTRY = 3;
export const FUSE_NOTIFY_STORE = 4;
export const FUSE_NOTIFY_RESEND = 7;
/** 7.38, flag of NOTIFY_INVAL_ENTRY: look the name up again, but keep what is open or mounted there. */
export const FUSE_EXPIRE_ONLY = 1 << 0;

// Sizes of structures, in bytes.
export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
export const ATTR_BYTES = 88;
export const ENTRY_OUT_BYTES = 128;
export const ATTR_OUT_BYTES = 104;
export const OPEN_OUT_BYTES = 16;
export const INIT_OUT_BYTES = 64;
export const STATFS_OUT_BYTES = 80;
export const DIRENT_BYTES = 24;
export const WRITE_IN_BYTES = 40;

/** What the kernel counts a request's data in. */
export const PAGE_BYTES = 4096;

/**
 * Pages of any request's data. The kernel allows 256 (fs.fuse.max_pages_limit); one less, and a reply of pages
 * with its header fits into a pipe that needs no privilege (fs.pipe-max-size).
 */
export const MAX_TRANSFER_PAGES = 255;
/** Largest READ and WRITE, in bytes. */
export const MAX_TRANSFER_BYTES = MAX_TRANSFER_PAGES * PAGE_BYTES;

/** Longest name of a directory entry, in bytes (NAME_MAX). */
export const NAME_MAX = 255;
/** Longest symlink target, in bytes: the kernel reads it into one page with a NUL. */
export const SYMLINK_MAX = 4095;
