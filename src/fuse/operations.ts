/** One row per opcode: how long its message is at least, and the function that serves it. */

import { ENOSYS, ENOTTY } from "../system/errno.js";
import {
  FUSE_ACCESS,
  FUSE_BATCH_FORGET,
  FUSE_BMAP,
  FUSE_COPY_FILE_RANGE,
  FUSE_COPY_FILE_RANGE_64,
  FUSE_CREATE,
  FUSE_DESTROY,
  FUSE_FALLOCATE,
  FUSE_FLUSH,
  FUSE_FORGET,
  FUSE_FSYNC,
  FUSE_FSYNCDIR,
  FUSE_GETATTR,
  FUSE_GETXATTR,
  FUSE_INIT,
  FUSE_INTERRUPT,
  FUSE_IOCTL,
  FUSE_LINK,
  FUSE_LISTXATTR,
  FUSE_LOOKUP,
  FUSE_LSEEK,
  FUSE_MKDIR,
  FUSE_MKNOD,
  FUSE_NOTIFY_REPLY,
  FUSE_OPCODE_LIMIT,
  FUSE_OPEN,
  FUSE_OPENDIR,
  FUSE_POLL,
  FUSE_READ,
  FUSE_READDIR,
  FUSE_READDIRPLUS,
  FUSE_READLINK,
  FUSE_RELEASE,
  FUSE_RELEASEDIR,
  FUSE_REMOVEXATTR,
  FUSE_RENAME,
  FUSE_RENAME2,
  FUSE_RMDIR,
  FUSE_SETATTR,
  FUSE_SETXATTR,
  FUSE_STATFS,
  FUSE_STATX,
  FUSE_SYMLINK,
  FUSE_SYNCFS,
  FUSE_TMPFILE,
  FUSE_UNLINK,
  FUSE_WRITE,
  IN_HEADER_BYTES,
} from "./constants.js";
import {
  copyFileRange,
  copyFileRange64,
  fallocate,
  fsync,
  fsyncdir,
  getxattr,
  listxattr,
  lseek,
  open,
  opendir,
  read,
  release,
  releasedir,
  removexattr,
  setxattr,
  statfs,
  syncfs,
  write,
} from "./data-operations.js";
import { type Exchange, NO_REPLY, type Outcome } from "./exchange.js";
import {
  batchForget,
  create,
  forget,
  getattr,
  link,
  lookup,
  mkdir,
  mknod,
  readdir,
  readdirplus,
  readlink,
  rename,
  rename2,
  rmdir,
  setattr,
  symlink,
  tmpfile,
  unlink,
} from "./name-operations.js";
import { ARG } from "./outcome.js";

/** How one opcode is served. */
export interface Operation {
  /** As in linux/fuse.h without its prefix, for the log. */
  readonly name: string;
  /** Length of the shortest valid message: header, structure, and one byte per name with its NUL. */
  readonly minimumBytes: number;
  readonly handle: (exchange: Exchange) => Outcome;
  /** A successful reply hands out an entry, so the kernel must get it or the lookup be undone. */
  readonly givesEntry: boolean;
}

const initialise = (x: Exchange): Outcome => x.negotiate();
/** The kernel stops asking after one such answer (ACCESS, FLUSH, BMAP, POLL, STATX). */
const unknown = (): Outcome => -ENOSYS;
const noIoctl = (): Outcome => -ENOTTY;
/** struct fuse_interrupt_in: unique 0 */
const interrupt = (x: Exchange): Outcome => {
  x.interrupt(x.work.request.u64(ARG));
  return NO_REPLY;
};
const ignored = (): Outcome => NO_REPLY;
/** DESTROY: the file system hears of the end when the device reports it. */
const acknowledged = (): Outcome => 0;

type Row = readonly [
  opcode: number,
  name: string,
  argumentBytes: number,
  handle: (exchange: Exchange) => Outcome,
  givesEntry?: "entry",
];

const ROWS: readonly Row[] = [
  [FUSE_LOOKUP, "LOOKUP", 2, lookup, "entry"],
  [FUSE_FORGET, "FORGET", 8, forget],
  [FUSE_GETATTR, "GETATTR", 16, getattr],
  [FUSE_SETATTR, "SETATTR", 88, setattr],
  [FUSE_READLINK, "READLINK", 0, readlink],
  [FUSE_SYMLINK, "SYMLINK", 4, symlink, "entry"],
  [FUSE_MKNOD, "MKNOD", 16 + 2, mknod, "entry"],
  [FUSE_MKDIR, "MKDIR", 8 + 2, mkdir, "entry"],
  [FUSE_UNLINK, "UNLINK", 2, unlink],
  [FUSE_RMDIR, "RMDIR", 2, rmdir],
  [FUSE_RENAME, "RENAME", 8 + 4, rename],
  [FUSE_LINK, "LINK", 8 + 2, link, "entry"],
  [FUSE_OPEN, "OPEN", 8, open],
  [FUSE_READ, "READ", 40, read],
  [FUSE_WRITE, "WRITE", 40, write],
  [FUSE_STATFS, "STATFS", 0, statfs],
  [FUSE_RELEASE, "RELEASE", 24, release],
  [FUSE_FSYNC, "FSYNC", 16, fsync],
  [FUSE_SETXATTR, "SETXATTR", 8 + 2, setxattr],
  [FUSE_GETXATTR, "GETXATTR", 8 + 2, getxattr],
  [FUSE_LISTXATTR, "LISTXATTR", 8, listxattr],
  [FUSE_REMOVEXATTR, "REMOVEXATTR", 2, removexattr],
  [FUSE_FLUSH, "FLUSH", 24, unknown],
  [FUSE_INIT, "INIT", 16, initialise],
  [FUSE_OPENDIR, "OPENDIR", 8, opendir],
  [FUSE_READDIR, "READDIR", 40, readdir],
  [FUSE_RELEASEDIR, "RELEASEDIR", 24, releasedir],
  [FUSE_FSYNCDIR, "FSYNCDIR", 16, fsyncdir],
  [FUSE_ACCESS, "ACCESS", 8, unknown],
  [FUSE_CREATE, "CREATE", 16 + 2, create, "entry"],
  [FUSE_INTERRUPT, "INTERRUPT", 8, interrupt],
  [FUSE_BMAP, "BMAP", 16, unknown],
  [FUSE_DESTROY, "DESTROY", 0, acknowledged],
  [FUSE_IOCTL, "IOCTL", 32, noIoctl],
  [FUSE_POLL, "POLL", 24, unknown],
  [FUSE_NOTIFY_REPLY, "NOTIFY_REPLY", 40, ignored],
  [FUSE_BATCH_FORGET, "BATCH_FORGET", 8, batchForget],
  [FUSE_FALLOCATE, "FALLOCATE", 32, fallocate],
  [FUSE_READDIRPLUS, "READDIRPLUS", 40, readdirplus],
  [FUSE_RENAME2, "RENAME2", 16 + 4, rename2],
  [FUSE_LSEEK, "LSEEK", 24, lseek],
  [FUSE_COPY_FILE_RANGE, "COPY_FILE_RANGE", 56, copyFileRange],
  [FUSE_SYNCFS, "SYNCFS", 0, syncfs],
  [FUSE_TMPFILE, "TMPFILE", 16 + 1, tmpfile, "entry"],
  [FUSE_STATX, "STATX", 0, unknown],
  [FUSE_COPY_FILE_RANGE_64, "COPY_FILE_RANGE_64", 56, copyFileRange64],
];

/** Operations by opcode; undefined where we know none (answered ENOSYS). */
export const OPERATIONS: readonly (Operation | undefined)[] = buildTable();

function buildTable(): (Operation | undefined)[] {
  const table = new Array<Operation | undefined>(FUSE_OPCODE_LIMIT).fill(undefined);
  for (const [opcode, name, argumentBytes, handle, givesEntry] of ROWS) {
    table[opcode] = {
      name,
      minimumBytes: IN_HEADER_BYTES + argumentBytes,
      handle,
      givesEntry: givesEntry !== undefined,
    };
  }
  return table;
}

/** Operations that never get a reply, whatever happens. */
export const NO_ANSWER: ReadonlySet<string> = new Set([
  "FORGET",
  "BATCH_FORGET",
  "INTERRUPT",
  "NOTIFY_REPLY",
]);
