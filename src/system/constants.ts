/**
 * Constants of the Linux ABI, under their own names. The few O_* flags that differ between x86-64
 * and arm64 come from node, which was compiled for this machine.
 */

import { constants } from "node:fs";

// File types and mode bits: include/uapi/linux/stat.h.
/** Mask of the file type in a mode. */
export const S_IFMT = 0o170000;
/** Socket. */
export const S_IFSOCK = 0o140000;
/** Symbolic link. */
export const S_IFLNK = 0o120000;
/** Regular file. */
export const S_IFREG = 0o100000;
/** Block device. */
export const S_IFBLK = 0o060000;
/** Directory. */
export const S_IFDIR = 0o040000;
/** Character device. */
export const S_IFCHR = 0o020000;
/** Fifo. */
export const S_IFIFO = 0o010000;
/** Set-user-ID bit. */
export const S_ISUID = 0o4000;
/** Set-group-ID bit. */
export const S_ISGID = 0o2000;
/** Sticky bit. */
export const S_ISVTX = 0o1000;
/** Execute permission of the group; with S_ISGID it tells set-gid from mandatory locking. */
export const S_IXGRP = 0o0010;
/** All permission bits, set-id and sticky included. */
export const S_IALLUGO = 0o7777;

// Open flags: include/uapi/asm-generic/fcntl.h. The addon adds O_CLOEXEC to every open.
/** Open for reading. */
export const O_RDONLY = 0o0;
/** Open for writing. */
export const O_WRONLY = 0o1;
/** Open for both. */
export const O_RDWR = 0o2;
/** Mask of the three above. */
export const O_ACCMODE = 0o3;
/** Create the file if there is none. */
export const O_CREAT = 0o100;
/** With O_CREAT: fail with EEXIST if there is one. */
export const O_EXCL = 0o200;
/** Do not become its controlling terminal. */
export const O_NOCTTY = 0o400;
/** Cut to no bytes. */
export const O_TRUNC = 0o1000;
/** Each write goes to the end. */
export const O_APPEND = 0o2000;
/** Do not wait, in open or later. */
export const O_NONBLOCK = 0o4000;
/** Writes return when the data is on disk. */
export const O_DSYNC = 0o10000;
/** Bypass the page cache. */
export const O_DIRECT = constants.O_DIRECT;
/** Fail with ENOTDIR unless it is a directory. */
export const O_DIRECTORY = constants.O_DIRECTORY;
/** Fail with ELOOP if the last component is a symlink (with O_PATH: open the symlink itself). */
export const O_NOFOLLOW = constants.O_NOFOLLOW;
/** Do not update the access time; for the owner and root only (EPERM). */
export const O_NOATIME = 0o1000000;
/** Close on exec. */
export const O_CLOEXEC = 0o2000000;
/** Writes return when data and metadata are on disk. */
export const O_SYNC = 0o4010000;
/** A reference to the place only: no read, no write, no permission on the file needed. */
export const O_PATH = 0o10000000;
/** A regular file without a name, in the directory given. */
export const O_TMPFILE = 0o20000000 | O_DIRECTORY;

// Flags of the *at calls: include/uapi/linux/fcntl.h.
/** Instead of a directory descriptor: the working directory. */
export const AT_FDCWD = -100;
/** Act on a symlink itself. */
export const AT_SYMLINK_NOFOLLOW = 0x100;
/** unlinkat: remove a directory. */
export const AT_REMOVEDIR = 0x200;
/** linkat: follow a symlink. */
export const AT_SYMLINK_FOLLOW = 0x400;
/** Do not trigger automounts. */
export const AT_NO_AUTOMOUNT = 0x800;
/** With name "": the descriptor itself. */
export const AT_EMPTY_PATH = 0x1000;
/** statx: ask a network file system's server. */
export const AT_STATX_FORCE_SYNC = 0x2000;
/** statx: what is cached will do. */
export const AT_STATX_DONT_SYNC = 0x4000;

// openat2: include/uapi/linux/openat2.h.
/** Cross no mount point (EXDEV). */
export const RESOLVE_NO_XDEV = 0x01;
/** Follow no magic link of /proc (ELOOP). */
export const RESOLVE_NO_MAGICLINKS = 0x02;
/** Follow no symlink at all (ELOOP). */
export const RESOLVE_NO_SYMLINKS = 0x04;
/** Do not leave the directory, by ".." or an absolute path or symlink (EXDEV). */
export const RESOLVE_BENEATH = 0x08;
/** Treat the directory as the root, as chroot would. */
export const RESOLVE_IN_ROOT = 0x10;
/** Only from the cache (EAGAIN). */
export const RESOLVE_CACHED = 0x20;

// renameat2: include/uapi/linux/fcntl.h.
/** Fail with EEXIST if the new name is taken. */
export const RENAME_NOREPLACE = 1 << 0;
/** Swap two names that both exist. */
export const RENAME_EXCHANGE = 1 << 1;
/** Leave a whiteout (character device 0:0) at the old name. */
export const RENAME_WHITEOUT = 1 << 2;

// Directory entry types: dirent.h. DT_X is S_IFX >> 12.
/** The disk does not say. */
export const DT_UNKNOWN = 0;
/** Fifo. */
export const DT_FIFO = 1;
/** Character device. */
export const DT_CHR = 2;
/** Directory. */
export const DT_DIR = 4;
/** Block device. */
export const DT_BLK = 6;
/** Regular file. */
export const DT_REG = 8;
/** Symbolic link. */
export const DT_LNK = 10;
/** Socket. */
export const DT_SOCK = 12;
/** Whiteout (BSD; no Linux disk says so). */
export const DT_WHT = 14;

// utimensat, as nanoseconds: include/uapi/linux/stat.h.
/** Set this time to now. */
export const UTIME_NOW = 0x3fffffff;
/** Leave this time alone. */
export const UTIME_OMIT = 0x3ffffffe;

// Extended attributes: include/uapi/linux/xattr.h and limits.h.
/** setxattr: fail with EEXIST if there is one. */
export const XATTR_CREATE = 1;
/** setxattr: fail with ENODATA if there is none. */
export const XATTR_REPLACE = 2;
/** Longest attribute name, in bytes. */
export const XATTR_NAME_MAX = 255;
/** Longest value, in bytes. */
export const XATTR_SIZE_MAX = 65536;
/** Longest list of names, in bytes. */
export const XATTR_LIST_MAX = 65536;

// fallocate: include/uapi/linux/falloc.h.
/** Leave the size alone. */
export const FALLOC_FL_KEEP_SIZE = 0x01;
/** Free the range (with KEEP_SIZE). */
export const FALLOC_FL_PUNCH_HOLE = 0x02;
/** Remove the range and close the gap. */
export const FALLOC_FL_COLLAPSE_RANGE = 0x08;
/** Zero the range without writing. */
export const FALLOC_FL_ZERO_RANGE = 0x10;
/** Make room by moving what follows. */
export const FALLOC_FL_INSERT_RANGE = 0x20;
/** Unshare reflinked blocks. */
export const FALLOC_FL_UNSHARE_RANGE = 0x40;

// lseek.
/** From the start. */
export const SEEK_SET = 0;
/** From the position. */
export const SEEK_CUR = 1;
/** From the end. */
export const SEEK_END = 2;
/** The next data at or after the offset (ENXIO: none). */
export const SEEK_DATA = 3;
/** The next hole at or after the offset; the end of the file is one. */
export const SEEK_HOLE = 4;

// mount: include/uapi/linux/mount.h.
/** Read-only. */
export const MS_RDONLY = 1;
/** Ignore set-id bits. */
export const MS_NOSUID = 2;
/** No access to device nodes. */
export const MS_NODEV = 4;
/** No execution. */
export const MS_NOEXEC = 8;
/** Writes are synchronous. */
export const MS_SYNCHRONOUS = 16;
/** Change the flags of a mount that exists. */
export const MS_REMOUNT = 32;
/** Directory changes reach the disk before the call returns. */
export const MS_DIRSYNC = 128;
/** Never update access times. */
export const MS_NOATIME = 1024;
/** Never update access times of directories. */
export const MS_NODIRATIME = 2048;
/** Show a directory at a second place. */
export const MS_BIND = 4096;
/** Move a mount. */
export const MS_MOVE = 8192;
/** With BIND and others: the whole tree of mounts. */
export const MS_REC = 16384;
/** No chatter in the kernel log. */
export const MS_SILENT = 32768;
/** POSIX ACLs. */
export const MS_POSIXACL = 1 << 16;
/** Propagation: may not be bound. */
export const MS_UNBINDABLE = 1 << 17;
/** Propagation: to and from nobody. */
export const MS_PRIVATE = 1 << 18;
/** Propagation: from its peers only. */
export const MS_SLAVE = 1 << 19;
/** Propagation: both ways. */
export const MS_SHARED = 1 << 20;
/** Update access times when older than the modification. */
export const MS_RELATIME = 1 << 21;
/** Update access times always. */
export const MS_STRICTATIME = 1 << 24;

// umount2: include/linux/fs.h.
/** Abort what waits first. */
export const MNT_FORCE = 1;
/** Out of sight now, gone when no longer used. */
export const MNT_DETACH = 2;
/** Only if unused since the last try. */
export const MNT_EXPIRE = 4;
/** Do not follow the target if it is a symlink. */
export const UMOUNT_NOFOLLOW = 8;

// flock.
/** Shared lock. */
export const LOCK_SH = 1;
/** Exclusive lock. */
export const LOCK_EX = 2;
/** Fail with EAGAIN instead of waiting. */
export const LOCK_NB = 4;
/** Unlock. */
export const LOCK_UN = 8;

// Access modes of access(2) and FUSE_ACCESS.
/** It exists. */
export const F_OK = 0;
/** It may be executed or searched. */
export const X_OK = 1;
/** It may be written. */
export const W_OK = 2;
/** It may be read. */
export const R_OK = 4;

// File system types of statfs: include/uapi/linux/magic.h.
/** overlayfs. */
export const OVERLAYFS_SUPER_MAGIC = 0x794c7630;
/** FUSE. */
export const FUSE_SUPER_MAGIC = 0x65735546;
/** tmpfs. */
export const TMPFS_MAGIC = 0x01021994;

/** Longest name, in bytes. */
export const NAME_MAX = 255;
/** Longest path, in bytes, its final NUL included. */
export const PATH_MAX = 4096;
