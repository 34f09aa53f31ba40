/**
 * Error numbers of Linux (include/uapi/asm-generic/errno*.h, the same on x86-64 and arm64), positive,
 * and the step from a failed call to an exception.
 */

import { sys } from "./addon.js";
import { SyscallError } from "./errors.js";

/** Not permitted, or the kind of object does not take the operation. */
export const EPERM = 1;
/** No such name. */
export const ENOENT = 2;
/** No such process. */
export const ESRCH = 3;
/** Interrupted by a signal. */
export const EINTR = 4;
/** The disk, or the daemon, failed. */
export const EIO = 5;
/** No such device; lseek: no data or hole beyond the offset. */
export const ENXIO = 6;
/** Value too long. */
export const E2BIG = 7;
/** Exec format error. */
export const ENOEXEC = 8;
/** Not an open descriptor, or not for this operation (O_PATH). */
export const EBADF = 9;
/** Nothing now; try again. Also EWOULDBLOCK. */
export const EAGAIN = 11;
/** Cannot allocate memory. */
export const ENOMEM = 12;
/** Permission denied. */
export const EACCES = 13;
/** Bad address. */
export const EFAULT = 14;
/** Mounted, or in use. */
export const EBUSY = 16;
/** The name is taken. */
export const EEXIST = 17;
/** Two file systems or mounts; openat2: the path would leave its start. */
export const EXDEV = 18;
/** No such device; /dev/fuse: unmounted. */
export const ENODEV = 19;
/** Not a directory. */
export const ENOTDIR = 20;
/** Is a directory. */
export const EISDIR = 21;
/** Invalid argument. */
export const EINVAL = 22;
/** Too many open files in system. */
export const ENFILE = 23;
/** Too many open files. */
export const EMFILE = 24;
/** Not an ioctl of this object. */
export const ENOTTY = 25;
/** Text file busy. */
export const ETXTBSY = 26;
/** File too large. */
export const EFBIG = 27;
/** No space left on device. */
export const ENOSPC = 28;
/** Illegal seek. */
export const ESPIPE = 29;
/** Read-only file system. */
export const EROFS = 30;
/** Too many links. */
export const EMLINK = 31;
/** Broken pipe. */
export const EPIPE = 32;
/** The buffer is too small for the answer. */
export const ERANGE = 34;
/** Resource deadlock avoided. */
export const EDEADLK = 35;
/** File name too long. */
export const ENAMETOOLONG = 36;
/** No locks available. */
export const ENOLCK = 37;
/** The kernel, or the file system, has no such call. */
export const ENOSYS = 38;
/** Directory not empty. */
export const ENOTEMPTY = 39;
/** Too many symlinks, or one where none may be followed. */
export const ELOOP = 40;
/** No such extended attribute. */
export const ENODATA = 61;
/** Bad message: data that are not in their format. */
export const EBADMSG = 74;
/** Value too large for defined data type. */
export const EOVERFLOW = 75;
/** Illegal byte sequence. */
export const EILSEQ = 84;
/** The file system does not do this. */
export const EOPNOTSUPP = 95;
/** Address already in use. */
export const EADDRINUSE = 98;
/** FUSE: the connection was aborted. */
export const ECONNABORTED = 103;
/** Connection reset by peer. */
export const ECONNRESET = 104;
/** No buffer space available. */
export const ENOBUFS = 105;
/** FUSE: the daemon is gone. */
export const ENOTCONN = 107;
/** Connection timed out. */
export const ETIMEDOUT = 110;
/** Connection refused. */
export const ECONNREFUSED = 111;
/** The handle names no file any more; the kernel looks the path up again. */
export const ESTALE = 116;
/** The structure on disk needs cleaning (EFSCORRUPTED). */
export const EUCLEAN = 117;
/** The quota is used up. */
export const EDQUOT = 122;
/** Operation canceled. */
export const ECANCELED = 125;
/** Another name of EOPNOTSUPP. */
export const ENOTSUP = EOPNOTSUPP;
/** Another name of EAGAIN. */
export const EWOULDBLOCK = EAGAIN;
/** Another name of ENODATA, as the attr tools spell it. */
export const ENOATTR = ENODATA;

/**
 * The exception for a failed call.
 *
 * @param result the negative errno
 * @param syscall its name, as the manual spells it
 * @param subject what it was about: a path, shown to a person
 */
export function syscallError(result: number, syscall: string, subject: string): SyscallError {
  const errno = Math.abs(result);
  return new SyscallError(errno, sys.errnoName(errno), syscall, subject, sys.errnoText(errno));
}

/**
 * Passes the result of a call through, unless it is a negative errno.
 *
 * @param result what a method of `sys` returned
 * @param syscall its name, as the manual spells it
 * @param subject what it was about: a path, shown to a person
 * @throws SyscallError when `result` is a negative number
 */
export function must<T>(result: T | number, syscall: string, subject: string): T;
export function must<T>(result: T, syscall: string, subject: string): T {
  if (typeof result === "number" && result < 0) throw syscallError(result, syscall, subject);
  return result;
}

/**
 * The name of what made a file operation of Node fail: its `code`, and the right name where libuv knows none
 * (EDQUOT among them); undefined when `error` is no such failure.
 */
export function codeOfNode(error: unknown): string | undefined {
  const { code, errno } = (error ?? {}) as NodeJS.ErrnoException;
  if (!(error instanceof Error) || typeof errno !== "number") return undefined;
  return code?.startsWith("Unknown system error") ? sys.errnoName(Math.abs(errno)) : code;
}
