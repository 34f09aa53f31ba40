/**
 * Merging one layer's tree into its parent chain's index, by the rules of the overlay format (see
 * overlay/format.ts). The work is linear in the size of the merged tree; nothing is kept per inode but
 * array slots.
 *
 * Vocabulary. A *lower* thing is the parent chain's. A merged directory has a lower directory that
 * it continues, a directory of the layer, or both. It is *moved* when it stands elsewhere than its
 * lower directory (a redirect): lower files below it keep the path of their data.
 */

import { ROOT_INODE } from "../overlay/chain-index.js";
import type { OverlayAttributes } from "../overlay/format.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import { S_IFDIR, S_IFMT, S_IFREG } from "../system/constants.js";
import { CorruptDataError } from "../system/errors.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_BLOCKS,
  STAT_CTIME_NSEC,
  STAT_CTIME_SEC,
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
import type { FlatIndex } from "./index-reader.js";
import { IndexTables } from "./index-tables.js";
import type { DiskTree, SortedScan } from "./layer-scan.js";
import {
  continuedInode,
  hidesName,
  type OverlayMarks,
  overlayMarks,
  userXattrs,
} from "./overlay-marks.js";
import { type DiskUsage, UsageCounter } from "./usage-counter.js";

/** A directory whose entries are still to be merged. */
interface PendingDirectory {
  readonly inode: number;
  /** The lower directory that it continues, or 0. */
  readonly lower: number;
  /** Where it lies in the layer (which is its merged path), undefined when it does not. */
  readonly layerPath: ByteString | undefined;
  readonly marks: OverlayMarks | undefined;
  /** True when lower entries below it have other merged paths than in the lower index. */
  readonly isMoved: boolean;
}

/** One merge; see the file comment. */
export class TreeMerger {
  readonly #lower: FlatIndex;
  readonly #disk: DiskTree;
  readonly #names: OverlayAttributes;
  readonly #implied: ReadonlySet<ByteString>;
  readonly #layer: number;
  readonly #tables: IndexTables;
  #pending: PendingDirectory[] = [];
  /** New inodes of lower inodes with several names. */
  readonly #lowerLinks = new Map<number, number>();
  /** New inodes of layer files with several names, by their number on disk. */
  readonly #layerLinks = new Map<number, number>();
  readonly #xattrSets = new Map<number, number>();
  readonly #usage = new UsageCounter();

  constructor(
    lower: FlatIndex,
    disk: DiskTree,
    names: OverlayAttributes,
    implied: ReadonlySet<ByteString>,
    chainId: string,
  ) {
    this.#lower = lower;
    this.#disk = disk;
    this.#names = names;
    this.#implied = implied;
    this.#layer = lower.layers.length;
    this.#tables = new IndexTables([...lower.layers, chainId], lower.arrays);
  }

  /** What the layer's tree occupies, after `merge`. */
  get usage(): DiskUsage {
    return this.#usage.usage;
  }

  merge(): IndexTables {
    this.#addRoot();
    // Breadth first, a level at a time: a directory's number decides when its entries come.
    while (this.#pending.length > 0) {
      const level = this.#pending;
      this.#pending = [];
      for (const directory of level) {
        this.#tables.beginDirectory(directory.inode);
        if (directory.layerPath === undefined) this.#copyLowerDirectory(directory);
        else this.#mergeDirectory(directory, directory.layerPath);
      }
    }
    return this.#tables;
  }

  #addRoot(): void {
    const tables = this.#tables;
    const { stats, xattrs } = this.#disk.scanRoot();
    this.#usage.add(stats);
    const marks = overlayMarks(xattrs, this.#names);
    const root = tables.addInode();
    const path = "" as ByteString;
    const keepsLower = this.#layer > 0 && this.#implied.has(path);
    if (keepsLower) this.#copyLowerAttributes(ROOT_INODE, root);
    else this.#setLayerAttributes(root, stats, 0, xattrs);
    tables.layer[root] = this.#layer;
    tables.nlink[root] = 2;
    tables.parent[root] = root;
    this.#pending.push({
      inode: root,
      lower: marks.isOpaque ? 0 : ROOT_INODE,
      layerPath: path,
      marks,
      isMoved: false,
    });
  }

  #copyLowerDirectory(directory: PendingDirectory): void {
    const end = this.#lower.endEntry(directory.lower);
    for (let entry = this.#lower.firstEntry(directory.lower); entry < end; entry += 1)
      this.#addLowerEntry(directory, entry);
  }

  #mergeDirectory(directory: PendingDirectory, path: ByteString): void {
    const lower = this.#lower;
    const scan = this.#disk.scan(path);
    let entry = directory.lower === 0 ? 0 : lower.firstEntry(directory.lower);
    const end = directory.lower === 0 ? 0 : lower.endEntry(directory.lower);
    let lowerName = entry < end ? lower.entryName(entry) : undefined;
    for (const position of scan.order) {
      const name = scan.names[position]!;
      while (lowerName !== undefined && lowerName < name) {
        this.#addLowerEntry(directory, entry);
        entry += 1;
        lowerName = entry < end ? lower.entryName(entry) : undefined;
      }
      if (lowerName === name) {
        entry += 1;
        lowerName = entry < end ? lower.entryName(entry) : undefined;
      }
      this.#addLayerEntry(directory, path, scan, position);
    }
    for (; entry < end; entry += 1) this.#addLowerEntry(directory, entry);
  }

  #addLowerEntry(directory: PendingDirectory, entry: number): void {
    const lower = this.#lower;
    const { nameStart, names } = lower.arrays;
    const old = lower.entryInode(entry);
    const isDirectory = lower.isDirectory(old);
    const isLinked = !isDirectory && lower.nlink(old) > 1;
    const tables = this.#tables;
    let inode = isLinked ? this.#lowerLinks.get(old) : undefined;
    const isNew = inode === undefined;
    if (inode === undefined) {
      inode = tables.addInode();
      this.#copyLowerAttributes(old, inode);
      if (isLinked) this.#lowerLinks.set(old, inode);
    }
    tables.addEntryBytes(names, nameStart[entry]!, nameStart[entry + 1]!, inode);
    // The default "data at the merged path" needs a fresh look wherever the path may have changed.
    const content = lower.arrays.content[old]!;
    if (isNew && (directory.isMoved || isLinked || content !== 0))
      this.#setContent(inode, lower.contentPath(old), tables.path(inode));
    if (!isDirectory) {
      tables.nlink[inode]! += 1;
      return;
    }
    this.#addSubdirectory(directory, inode);
    const { isMoved } = directory;
    this.#pending.push({ inode, lower: old, layerPath: undefined, marks: undefined, isMoved });
  }

  #addSubdirectory(directory: PendingDirectory, inode: number): void {
    this.#tables.nlink[inode] = 2;
    this.#tables.nlink[directory.inode]! += 1;
  }

  #setContent(inode: number, contentPath: ByteString, path: ByteString): void {
    this.#tables.content[inode] = contentPath === path ? 0 : this.#tables.addText(contentPath);
  }

  #addLayerEntry(
    directory: PendingDirectory,
    directoryPath: ByteString,
    scan: SortedScan,
    position: number,
  ): void {
    const name = scan.names[position]!;
    const at = position * STAT_SLOTS;
    const mode = scan.stats[at + STAT_MODE]!;
    const xattrs = scan.xattrs[position];
    this.#usage.add(scan.stats, at);
    const marks = overlayMarks(xattrs, this.#names);
    if (hidesName(mode, scan.stats[at + STAT_RDEV]!, marks, directory.marks!)) return;
    if ((mode & S_IFMT) === S_IFDIR) {
      this.#addLayerDirectory(directory, joinBytes(directoryPath, name), scan, position, marks);
      return;
    }
    const tables = this.#tables;
    const isLinked = scan.stats[at + STAT_NLINK]! > 1;
    const diskInode = scan.stats[at + STAT_INO]!;
    let inode = isLinked ? this.#layerLinks.get(diskInode) : undefined;
    if (inode === undefined) {
      inode = tables.addInode();
      if (isLinked) this.#layerLinks.set(diskInode, inode);
      this.#setLayerAttributes(inode, scan.stats, at, xattrs);
      tables.target[inode] = tables.addText(scan.targets[position] ?? ("" as ByteString));
      if (marks.isMetacopy && (mode & S_IFMT) === S_IFREG) {
        const path = joinBytes(directoryPath, name);
        this.#takeLowerData(inode, path, continuedInode(this.#lower, directory.lower, name, marks));
      }
    }
    tables.addEntry(name, inode);
    tables.nlink[inode]! += 1;
  }

  #addLayerDirectory(
    directory: PendingDirectory,
    path: ByteString,
    scan: SortedScan,
    position: number,
    marks: OverlayMarks,
  ): void {
    const tables = this.#tables;
    const name = scan.names[position]!;
    const inode = tables.addInode();
    const continued = marks.isOpaque
      ? 0
      : continuedInode(this.#lower, directory.lower, name, marks);
    const lower = this.#lower.isDirectory(continued) ? continued : 0;
    if (lower !== 0 && this.#implied.has(path)) this.#copyLowerAttributes(lower, inode);
    else this.#setLayerAttributes(inode, scan.stats, position * STAT_SLOTS, scan.xattrs[position]);
    tables.layer[inode] = this.#layer;
    tables.content[inode] = 0;
    tables.addEntry(name, inode);
    this.#addSubdirectory(directory, inode);
    const isMoved = directory.isMoved || marks.redirect !== undefined;
    this.#pending.push({ inode, lower, layerPath: path, marks, isMoved });
  }

  #setLayerAttributes(
    inode: number,
    stats: Float64Array,
    at: number,
    xattrs: [ByteString, Buffer][] | undefined,
  ): void {
    const tables = this.#tables;
    tables.mode[inode] = stats[at + STAT_MODE]!;
    tables.uid[inode] = stats[at + STAT_UID]!;
    tables.gid[inode] = stats[at + STAT_GID]!;
    tables.rdev[inode] = stats[at + STAT_RDEV]!;
    tables.size[inode] = stats[at + STAT_SIZE]!;
    tables.blocks[inode] = stats[at + STAT_BLOCKS]!;
    tables.atimeSec[inode] = stats[at + STAT_ATIME_SEC]!;
    tables.atimeNsec[inode] = stats[at + STAT_ATIME_NSEC]!;
    tables.mtimeSec[inode] = stats[at + STAT_MTIME_SEC]!;
    tables.mtimeNsec[inode] = stats[at + STAT_MTIME_NSEC]!;
    tables.ctimeSec[inode] = stats[at + STAT_CTIME_SEC]!;
    tables.ctimeNsec[inode] = stats[at + STAT_CTIME_NSEC]!;
    tables.layer[inode] = this.#layer;
    if (xattrs !== undefined) tables.xattrSet[inode] = tables.addXattrs(userXattrs(xattrs));
  }

  /** Copies all but link count, names and data path, which the merge decides anew. */
  #copyLowerAttributes(old: number, inode: number): void {
    const tables = this.#tables;
    const from = this.#lower.arrays;
    tables.mode[inode] = from.mode[old]!;
    tables.uid[inode] = from.uid[old]!;
    tables.gid[inode] = from.gid[old]!;
    tables.rdev[inode] = from.rdev[old]!;
    tables.size[inode] = from.size[old]!;
    tables.blocks[inode] = from.blocks[old]!;
    tables.atimeSec[inode] = from.atimeSec[old]!;
    tables.atimeNsec[inode] = from.atimeNsec[old]!;
    tables.mtimeSec[inode] = from.mtimeSec[old]!;
    tables.mtimeNsec[inode] = from.mtimeNsec[old]!;
    tables.ctimeSec[inode] = from.ctimeSec[old]!;
    tables.ctimeNsec[inode] = from.ctimeNsec[old]!;
    tables.layer[inode] = from.layer[old]!;
    tables.flags[inode] = from.flags[old]!;
    if (from.target[old] !== 0)
      tables.target[inode] = tables.addText(this.#lower.symlinkTarget(old));
    const set = from.xattrSet[old]!;
    if (set !== 0) tables.xattrSet[inode] = this.#copyXattrSet(old, set);
  }

  #copyXattrSet(old: number, set: number): number {
    let copy = this.#xattrSets.get(set);
    if (copy === undefined) {
      copy = this.#tables.addXattrs(this.#lower.xattrs(old));
      this.#xattrSets.set(set, copy);
    }
    return copy;
  }

  /** A metacopy file: its own attributes over the data of the lower file `data`. */
  #takeLowerData(inode: number, path: ByteString, data: number): void {
    const tables = this.#tables;
    const from = this.#lower.arrays;
    if (data === 0 || (from.mode[data]! & S_IFMT) !== S_IFREG)
      throw new CorruptDataError(
        `build chain index: ${this.#disk.describe(path)} has no data of its own (metacopy), and no file below it has`,
      );
    tables.size[inode] = from.size[data]!;
    tables.blocks[inode] = from.blocks[data]!;
    tables.layer[inode] = from.layer[data]!;
    tables.flags[inode] = from.flags[data]!;
    this.#setContent(inode, this.#lower.contentPath(data), path);
  }
}
