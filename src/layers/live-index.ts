/**
 * A chain index over plain directories that nobody has indexed: each merged directory is read when
 * it is first asked for, and then kept. The directories must not change meanwhile, as with any
 * overlay.
 *
 * Numbers. A node whose inode number on the disk is free here is called by it (plus one, since 1 is
 * the root), so numbers are the same at the next mount; others are numbered as they come. What was
 * recorded of a number is believed only with a path that leads there (see `ChainIndex.isLive`).
 */

import {
  type ChainIndex,
  type EntryLocation,
  type InodeAttributes,
  ROOT_INODE,
  resolvePath,
  type Xattr,
} from "../overlay/chain-index.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { CorruptDataError } from "../system/errors.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_BLOCKS,
  STAT_CTIME_NSEC,
  STAT_CTIME_SEC,
  STAT_DEV,
  STAT_GID,
  STAT_INO,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_NLINK,
  STAT_RDEV,
  STAT_SIZE,
  STAT_UID,
} from "../system/native.js";
import { DiskTree } from "./layer-scan.js";
import {
  DirectoryMerge,
  type LiveEntry,
  type LiveLayers,
  liveMarks,
  type Part,
} from "./live-directory.js";
import { userXattrs } from "./overlay-marks.js";

/** Inode numbers of the disk up to here are used as they are; node tables index pages by them. */
const LARGEST_DISK_NUMBER = 2 ** 40;
/** From here on nodes are numbered that cannot be called by their number on the disk. */
const FIRST_OWN_NUMBER = 2 ** 41;

/** What is known of one inode. */
interface LiveInode {
  readonly number: number;
  readonly entry: LiveEntry;
  readonly names: EntryLocation[];
  xattrs: readonly Xattr[] | undefined;
  /** Of a directory that was read: its entries. */
  children: Map<ByteString, number> | undefined;
  firstEntry: number;
  endEntry: number;
  subdirectories: number;
}

/** See the file comment. */
export class LiveIndex implements ChainIndex, LiveLayers {
  readonly isLive = true;
  readonly layers: readonly string[];
  readonly #trees: readonly DiskTree[];
  readonly #inodes = new Map<number, LiveInode>();
  /** Names and numbers of all directories that were read, each directory's in one run. */
  readonly #entryNames: ByteString[] = [];
  readonly #entryInodes: number[] = [];
  /** The device whose numbers are used as they are: the topmost layer's. */
  readonly #device: number;
  /** Inodes that could not have their number on the disk, by layer, device and that number. */
  readonly #renumbered = new Map<string, number>();
  #nextNumber = FIRST_OWN_NUMBER;

  /**
   * @param layerDirs the lower directories, base first, at least one
   * @throws SyscallError one cannot be opened
   */
  constructor(layerDirs: readonly string[]) {
    this.layers = layerDirs;
    this.#trees = layerDirs.map((path) => new DiskTree(path));
    const roots = this.#trees.map((tree) => tree.scanRoot());
    const parts = roots.map(({ xattrs }, layer) => {
      return { layer, path: "" as ByteString, marks: liveMarks(xattrs) };
    });
    const top = roots.at(-1)!;
    this.#device = top.stats[STAT_DEV]!;
    this.#keep(ROOT_INODE, {
      name: "" as ByteString,
      layer: parts.length - 1,
      path: "" as ByteString,
      stats: top.stats,
      xattrs: top.xattrs,
      target: undefined,
      parts: parts.reverse(),
      data: undefined,
      isMetacopy: false,
    });
  }

  /** The lower directories as paths that lead to them whatever is mounted over them meanwhile. */
  get directories(): string[] {
    return this.#trees.map((tree) => `/proc/self/fd/${tree.rootFd}`);
  }

  /** Closes the lower directories; what was read stays known. */
  close(): void {
    for (const tree of this.#trees) tree.close();
  }

  scan(layer: number, path: ByteString) {
    return this.#trees[layer]!.scan(path);
  }

  partsBelow(layer: number, path: ByteString): Part[] {
    let parts = this.#inodes.get(ROOT_INODE)!.entry.parts.filter((part) => part.layer < layer);
    if (path === "") return parts;
    for (const name of path.split("/")) {
      const found = new DirectoryMerge(this).merge(parts).find((entry) => entry.name === name);
      parts = found?.parts ?? [];
    }
    return parts;
  }

  has(inode: number): boolean {
    return this.#inodes.has(inode);
  }

  lookup(dir: number, name: ByteString): number {
    const inode = this.#inodes.get(dir);
    if (inode === undefined || !isDirectory(inode)) return 0;
    return this.#children(inode).get(name) ?? 0;
  }

  firstEntry(dir: number): number {
    return this.#read(dir).firstEntry;
  }

  endEntry(dir: number): number {
    return this.#read(dir).endEntry;
  }

  entryName(entry: number): ByteString {
    return this.#entryNames[entry]!;
  }

  entryInode(entry: number): number {
    return this.#entryInodes[entry]!;
  }

  mode(inode: number): number {
    return this.#inodes.get(inode)!.entry.stats[STAT_MODE]!;
  }

  nlink(inode: number): number {
    const known = this.#inodes.get(inode)!;
    const links = known.entry.stats[STAT_NLINK]!;
    if (!isDirectory(known)) return links;
    // The disk has counted for us, where it counts at all (btrfs says 1) and nothing is merged.
    if (known.children === undefined && known.entry.parts.length === 1 && links >= 2) return links;
    return 2 + this.#read(inode).subdirectories;
  }

  attributes(inode: number, out: InodeAttributes): InodeAttributes {
    const { entry } = this.#inodes.get(inode)!;
    const { stats } = entry;
    out.mode = stats[STAT_MODE]!;
    out.nlink = this.nlink(inode);
    out.uid = stats[STAT_UID]!;
    out.gid = stats[STAT_GID]!;
    out.rdev = stats[STAT_RDEV]!;
    out.size = stats[STAT_SIZE]!;
    out.blocks = (entry.data?.stats ?? stats)[STAT_BLOCKS]!;
    out.atimeSec = stats[STAT_ATIME_SEC]!;
    out.atimeNsec = stats[STAT_ATIME_NSEC]!;
    out.mtimeSec = stats[STAT_MTIME_SEC]!;
    out.mtimeNsec = stats[STAT_MTIME_NSEC]!;
    out.ctimeSec = stats[STAT_CTIME_SEC]!;
    out.ctimeNsec = stats[STAT_CTIME_NSEC]!;
    return out;
  }

  xattrs(inode: number): readonly Xattr[] {
    const known = this.#inodes.get(inode)!;
    known.xattrs ??= userXattrs(known.entry.xattrs);
    return known.xattrs;
  }

  symlinkTarget(inode: number): ByteString {
    return this.#inodes.get(inode)!.entry.target ?? ("" as ByteString);
  }

  parent(inode: number): number {
    return this.#inodes.get(inode)!.names[0]?.parent ?? ROOT_INODE;
  }

  name(inode: number): ByteString {
    return this.#inodes.get(inode)!.names[0]?.name ?? ("" as ByteString);
  }

  /** The names that were come across so far. */
  names(inode: number): readonly EntryLocation[] {
    return this.#inodes.get(inode)!.names;
  }

  layer(inode: number): number {
    const { entry } = this.#inodes.get(inode)!;
    return entry.data?.layer ?? entry.layer;
  }

  /** @throws CorruptDataError a metacopy file whose data is nowhere: its own content is a hole */
  contentPath(inode: number): ByteString {
    const { entry } = this.#inodes.get(inode)!;
    if (entry.isMetacopy && entry.data === undefined)
      throw new CorruptDataError(
        `read ${this.#trees[entry.layer]!.describe(entry.path)}: it has no data of its own (metacopy), and no file below it has`,
      );
    return entry.data?.path ?? entry.path;
  }

  path(inode: number): ByteString {
    let path = "";
    for (let at = inode; at !== ROOT_INODE; at = this.parent(at)) {
      path = path === "" ? this.name(at) : `${this.name(at)}/${path}`;
    }
    return path as ByteString;
  }

  resolve(path: ByteString): number {
    return resolvePath(this, path);
  }

  #read(dir: number): LiveInode {
    const inode = this.#inodes.get(dir)!;
    if (isDirectory(inode)) this.#children(inode);
    return inode;
  }

  /** The entries of a directory, which is read on first need. */
  #children(inode: LiveInode): Map<ByteString, number> {
    if (inode.children !== undefined) return inode.children;
    const entries = new DirectoryMerge(this).merge(inode.entry.parts);
    const children = new Map<ByteString, number>();
    inode.firstEntry = this.#entryNames.length;
    for (const entry of entries) {
      const number = this.#number(entry);
      const child = this.#inodes.get(number) ?? this.#keep(number, entry);
      child.names.push({ parent: inode.number, name: entry.name });
      if (isDirectory(child)) inode.subdirectories++;
      children.set(entry.name, number);
      this.#entryNames.push(entry.name);
      this.#entryInodes.push(number);
    }
    inode.endEntry = this.#entryNames.length;
    inode.children = children;
    return children;
  }

  /** The number of an entry: a known file's when it is one more name of it, else a free one. */
  #number(entry: LiveEntry): number {
    const onDisk = entry.stats[STAT_INO]!;
    const number = onDisk + 1;
    const isPlain = entry.stats[STAT_DEV] === this.#device && number <= LARGEST_DISK_NUMBER;
    if (isPlain) {
      const known = this.#inodes.get(number);
      if (known === undefined || isSameFile(known.entry, entry)) return number;
    }
    if (typeOf(entry) === S_IFDIR) return this.#nextNumber++;
    const key = `${entry.layer}:${entry.stats[STAT_DEV]}:${onDisk}`;
    const again = this.#renumbered.get(key) ?? this.#nextNumber++;
    this.#renumbered.set(key, again);
    return again;
  }

  #keep(number: number, entry: LiveEntry): LiveInode {
    const inode: LiveInode = {
      number,
      entry,
      names: [],
      xattrs: undefined,
      children: undefined,
      firstEntry: 0,
      endEntry: 0,
      subdirectories: 0,
    };
    this.#inodes.set(number, inode);
    return inode;
  }
}

/** One file under two names. Directories have one; equal numbers in two layers are two files. */
function isSameFile(a: LiveEntry, b: LiveEntry): boolean {
  return (
    a.layer === b.layer &&
    typeOf(a) !== S_IFDIR &&
    typeOf(b) !== S_IFDIR &&
    a.stats[STAT_DEV] === b.stats[STAT_DEV]
  );
}

function typeOf(entry: LiveEntry): number {
  return entry.stats[STAT_MODE]! & S_IFMT;
}

function isDirectory(inode: LiveInode): boolean {
  return typeOf(inode.entry) === S_IFDIR;
}
