/**
 * Reading directories of a tree on disk (a layer's `fs`, a view's upper) one native call each.
 * Paths are opened beneath the tree's root without following symlinks, whatever the tree contains.
 */

import { sys } from "../system/addon.js";
import { type ByteString, display, fromBuffer, toBytes } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  O_CLOEXEC,
  O_DIRECTORY,
  O_PATH,
  O_RDONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
} from "../system/constants.js";
import { must } from "../system/errno.js";
import { type DirectoryScan, STAT_SLOTS } from "../system/native.js";

/** openat2 takes paths below PATH_MAX (4096); longer ones are opened in steps. */
const MAX_STEP = 4000;

/** A directory's entries, with the order of their names by bytes. */
export interface SortedScan extends DirectoryScan {
  /** Positions in `names`, sorted. */
  readonly order: readonly number[];
}

/** A tree on disk, by its root's descriptor. Close it after use. */
export class DiskTree {
  /** The root directory as a path, for messages. */
  readonly path: string;
  readonly rootFd: number;
  #isClosed = false;

  /** @throws SyscallError the directory cannot be opened */
  constructor(path: string) {
    this.path = path;
    this.rootFd = must(
      sys.open(toBytes(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0),
      "open",
      path,
    );
  }

  /** Opens `path` (relative to the root, "" for the root itself) beneath the root; negative errno on failure. */
  tryOpen(path: ByteString, flags: number): number {
    let at = this.rootFd;
    let rest: string = path;
    for (;;) {
      const cut = rest.length <= MAX_STEP ? -1 : rest.lastIndexOf("/", MAX_STEP);
      const step = (cut < 0 ? rest : rest.slice(0, cut)) as ByteString;
      const stepFlags = cut < 0 ? flags : O_PATH | O_DIRECTORY;
      const resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
      const name = step === "" ? ("." as ByteString) : step;
      const fd = sys.openat2(at, name, stepFlags | O_CLOEXEC, 0, resolve);
      if (at !== this.rootFd) sys.close(at);
      if (cut < 0 || fd < 0) return fd;
      at = fd;
      rest = rest.slice(cut + 1);
    }
  }

  /** Opens `path` beneath the root. The caller closes the descriptor. */
  open(path: ByteString, flags: number): number {
    return must(this.tryOpen(path, flags), "openat2", this.describe(path));
  }

  /** All entries of the directory at `path`, sorted. */
  scan(path: ByteString): SortedScan {
    const fd = this.open(path, O_RDONLY | O_DIRECTORY);
    try {
      const scan = must<DirectoryScan>(sys.scanDirectory(fd), "getdents64", this.describe(path));
      return { ...scan, order: sortedOrder(scan.names) };
    } finally {
      sys.close(fd);
    }
  }

  /** What `scan` would say of the root itself. */
  scanRoot(): { stats: Float64Array; xattrs: [ByteString, Buffer][] | undefined } {
    const stats = new Float64Array(STAT_SLOTS);
    const nothing = "" as ByteString;
    must(sys.statx(this.rootFd, nothing, AT_EMPTY_PATH, stats), "statx", this.path);
    return { stats, xattrs: readXattrs(this.rootFd, this.path) };
  }

  /** Path of an entry for messages. */
  describe(path: ByteString): string {
    return path === "" ? this.path : `${this.path}/${display(path)}`;
  }

  /** Idempotent. */
  close(): void {
    if (!this.#isClosed) sys.close(this.rootFd);
    this.#isClosed = true;
  }
}

function readXattrs(fd: number, subject: string): [ByteString, Buffer][] | undefined {
  const nothing = "" as ByteString;
  const list = must<Buffer>(sys.listxattrat(fd, nothing), "listxattr", subject);
  if (list.length === 0) return undefined;
  const names = fromBuffer(list).split("\0").slice(0, -1) as ByteString[];
  return names.map((name) => {
    return [name, must<Buffer>(sys.getxattrat(fd, nothing, name), "getxattr", subject)];
  });
}

function sortedOrder(names: readonly string[]): number[] {
  const order = names.map((_, position) => position);
  // Strings of one byte per character compare as their bytes do.
  return order.sort((a, b) => (names[a]! < names[b]! ? -1 : 1));
}

/** Position in `scan.names` of a name, or -1. */
export function findName(scan: SortedScan, name: ByteString): number {
  let low = 0;
  let high = scan.order.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const position = scan.order[middle]!;
    const candidate = scan.names[position]!;
    if (candidate === name) return position;
    if (candidate < name) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
