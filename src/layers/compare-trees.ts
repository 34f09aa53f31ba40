/** Comparing two trees on disk to the last byte: types, modes, owners, sizes, times, attributes, links, contents. */

import { isWhiteout } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, display, joinBytes } from "../system/bytes.js";
import {
  O_NOFOLLOW,
  O_RDONLY,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from "../system/constants.js";
import { must } from "../system/errno.js";
import {
  STAT_GID,
  STAT_INO,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_NLINK,
  STAT_RDEV,
  STAT_SIZE,
  STAT_SLOTS,
  STAT_UID,
} from "../system/native.js";
import { DiskTree, type SortedScan } from "./layer-scan.js";

const CHUNK = 1 << 20;

/** Two trees that should be the same. */
export interface CompareTreesOptions {
  readonly wantedDir: string;
  readonly actualDir: string;
  /** Directories whose own time does not count: nothing but their making set it. */
  readonly untimedDirectories: readonly ByteString[];
}

/**
 * Compares, in the order of names.
 *
 * @returns the first difference, for a person; undefined when there is none
 * @throws SyscallError one of the trees cannot be read, as on a failing disk
 */
export function compareTrees(options: CompareTreesOptions): string | undefined {
  const wanted = new DiskTree(options.wantedDir);
  try {
    const actual = new DiskTree(options.actualDir);
    try {
      return new TreeComparison(wanted, actual, new Set(options.untimedDirectories)).run();
    } finally {
      actual.close();
    }
  } finally {
    wanted.close();
  }
}

interface Item {
  readonly stats: Float64Array;
  readonly at: number;
  readonly xattrs: [ByteString, Buffer][] | undefined;
  readonly target: ByteString | undefined;
}

class TreeComparison {
  readonly #wanted: DiskTree;
  readonly #actual: DiskTree;
  readonly #untimed: ReadonlySet<ByteString>;
  /** Which inode of the actual tree stands for which wanted one, of those with several names. */
  readonly #links = new Map<number, number>();
  readonly #buffers = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)] as const;

  constructor(wanted: DiskTree, actual: DiskTree, untimed: ReadonlySet<ByteString>) {
    this.#wanted = wanted;
    this.#actual = actual;
    this.#untimed = untimed;
  }

  run(): string | undefined {
    const [wanted, actual] = [this.#wanted, this.#actual].map((tree) => {
      const { stats, xattrs } = tree.scanRoot();
      return { stats, xattrs, at: 0, target: undefined };
    }) as [Item, Item];
    const root = "" as ByteString;
    const difference = this.#differentItem(root, wanted, actual);
    if (difference !== undefined) return `.: ${difference}`;
    const pending = [root];
    for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
      const found = this.#compareDirectory(path, pending);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #compareDirectory(path: ByteString, pending: ByteString[]): string | undefined {
    const wanted = this.#wanted.scan(path);
    const actual = this.#actual.scan(path);
    const count = Math.max(wanted.order.length, actual.order.length);
    for (let rank = 0; rank < count; rank++) {
      const name = nameAt(wanted, rank);
      const other = nameAt(actual, rank);
      if (name === undefined || other === undefined || name !== other) {
        const isMissing = other === undefined || (name !== undefined && name < other);
        const odd = display(joinBytes(path, (isMissing ? name : other)!));
        return `${odd}: ${isMissing ? "it is missing" : "it does not belong here"}`;
      }
      const below = joinBytes(path, name);
      const item = itemAt(wanted, rank);
      const difference = this.#differentItem(below, item, itemAt(actual, rank));
      if (difference !== undefined) return `${display(below)}: ${difference}`;
      if ((item.stats[item.at + STAT_MODE]! & S_IFMT) === S_IFDIR) pending.push(below);
    }
    return undefined;
  }

  #differentItem(path: ByteString, wanted: Item, actual: Item): string | undefined {
    const [a, b] = [wanted, actual].map(
      ({ stats, at }) =>
        (slot: number) =>
          stats[at + slot]!,
    ) as [(slot: number) => number, (slot: number) => number];
    const type = a(STAT_MODE) & S_IFMT;
    const isWhiteoutWanted = isWhiteout(a(STAT_MODE), a(STAT_RDEV));
    if (isWhiteoutWanted !== isWhiteout(b(STAT_MODE), b(STAT_RDEV)))
      return "it is a whiteout, or should be";
    // Nothing else counts of those.
    if (isWhiteoutWanted) return undefined;
    if (a(STAT_MODE) !== b(STAT_MODE)) return "its type or mode is another";
    if (a(STAT_UID) !== b(STAT_UID) || a(STAT_GID) !== b(STAT_GID)) return "its owner is another";
    if (type !== S_IFDIR && a(STAT_SIZE) !== b(STAT_SIZE)) return "its size is another";
    const isDevice = type === S_IFCHR || type === S_IFBLK;
    if (isDevice && a(STAT_RDEV) !== b(STAT_RDEV)) return "its device number is another";
    const isTimed = !this.#untimed.has(path);
    const isSameTime =
      a(STAT_MTIME_SEC) === b(STAT_MTIME_SEC) && a(STAT_MTIME_NSEC) === b(STAT_MTIME_NSEC);
    if (isTimed && !isSameTime) return "its time of modification is another";
    if ((wanted.target ?? "") !== (actual.target ?? "")) return "it links to something else";
    if (textOf(wanted.xattrs) !== textOf(actual.xattrs)) return "its extended attributes differ";
    if (type !== S_IFREG) return undefined;
    if (a(STAT_NLINK) !== b(STAT_NLINK)) return "it has another number of names";
    if (a(STAT_NLINK) > 1) {
      const known = this.#links.get(a(STAT_INO));
      if (known !== undefined)
        return known === b(STAT_INO) ? undefined : "it is another file's name";
      this.#links.set(a(STAT_INO), b(STAT_INO));
    }
    return this.#differentContent(path, a(STAT_SIZE));
  }

  #differentContent(path: ByteString, size: number): string | undefined {
    const fds: number[] = [];
    try {
      for (const tree of [this.#wanted, this.#actual]) {
        fds.push(tree.open(path, O_RDONLY | O_NOFOLLOW));
      }
      const [first, second] = this.#buffers;
      for (let offset = 0; offset < size; ) {
        const length = Math.min(CHUNK, size - offset);
        const count = must(sys.pread(fds[0]!, first, 0, length, offset), "read", display(path));
        const other = must(sys.pread(fds[1]!, second, 0, length, offset), "read", display(path));
        if (count === 0 || count !== other || first.compare(second, 0, count, 0, count) !== 0) {
          return `its content differs, in the ${CHUNK} bytes from ${offset}`;
        }
        offset += count;
      }
      return undefined;
    } finally {
      for (const fd of fds) sys.close(fd);
    }
  }
}

function nameAt(scan: SortedScan, rank: number): ByteString | undefined {
  const position = scan.order[rank];
  return position === undefined ? undefined : scan.names[position];
}

function itemAt(scan: SortedScan, rank: number): Item {
  const position = scan.order[rank]!;
  const at = position * STAT_SLOTS;
  const { stats, xattrs, targets } = scan;
  return { stats, at, xattrs: xattrs[position], target: targets[position] };
}

function textOf(xattrs: readonly [ByteString, Buffer][] | undefined): string {
  if (xattrs === undefined) return "";
  return xattrs
    .map(([name, value]) => `${name}=${value.toString("latin1")}`)
    .sort()
    .join("\0");
}
