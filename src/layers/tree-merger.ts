/**
 * Merging a run of layers' trees, mostly one, into the index of the chain below them, by the rules of the
 * overlay format (see overlay/format.ts). The work is linear in the size of the merged tree and of the
 * directories that the layers have; nothing is kept per inode but array slots.
 *
 * Vocabulary. A *lower* thing is that chain's. A merged directory has a lower directory that it
 * continues, directories of the layers, or both. It is *moved* when it stands elsewhere than its
 * lower directory (a redirect): lower files below it keep the path of their data. What continues something
 * elsewhere can only be in the lowest layer of a run, since no index says what the others stand on.
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
import {
  continuedInode,
  hidesName,
  type OverlayMarks,
  overlayMarks,
  userXattrs,
} from "./overlay-marks.js";
import { entriesByName, nameOf, type Place, type RunLayer, type Source } from "./run-entries.js";
import { type DiskUsage, UsageCounter } from "./usage-counter.js";

/** A directory whose entries are still to be merged. */
interface PendingDirectory {
  readonly inode: number;
  /** The lower directory that it continues, or 0. */
  readonly lower: number;
  /** The layers that have it and show in it, topmost first. */
  readonly sources: readonly Source[];
  /** Where it lies in those layers, which is its merged path; meaningless without any. */
  readonly path: ByteString;
  /** True when lower entries below it have other merged paths than in the lower index. */
  readonly isMoved: boolean;
}

/** One merge; see the file comment. */
export class TreeMerger {
  readonly #lower: FlatIndex;
  readonly #run: readonly RunLayer[];
  readonly #names: OverlayAttributes;
  readonly #implied: ReadonlySet<ByteString>;
  readonly #tables: IndexTables;
  #pending: PendingDirectory[] = [];
  /** New inodes of lower inodes with several names. */
  readonly #lowerLinks = new Map<number, number>();
  /** New inodes of the layers' files with several names, by layer and their number on disk. */
  readonly #layerLinks: readonly Map<number, number>[];
  readonly #xattrSets = new Map<number, number>();
  readonly #usage = new UsageCounter();

  /**
   * @param run base first, at least one
   * @param implied directories that keep the lower one's attributes; only with a run of one
   */
  constructor(
    lower: FlatIndex,
    run: readonly RunLayer[],
    names: OverlayAttributes,
    implied: ReadonlySet<ByteString>,
  ) {
    this.#lower = lower;
    this.#run = run;
    this.#names = names;
    this.#implied = implied;
    this.#layerLinks = run.map(() => new Map());
    const chainIds = run.map(({ chainId }) => chainId);
    this.#tables = new IndexTables([...lower.layers, ...chainIds], lower.arrays);
  }

  /** What the topmost layer's tree occupies, after `merge`. */
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
        if (directory.sources.length === 0) this.#copyLowerDirectory(directory);
        else this.#mergeDirectory(directory);
      }
    }
    return this.#tables;
  }

  #addRoot(): void {
    const tables = this.#tables;
    const path = "" as ByteString;
    const top = this.#run.length - 1;
    const { stats, xattrs } = this.#run[top]!.disk.scanRoot();
    this.#usage.add(stats);
    const root = tables.addInode();
    if (this.#lower.layers.length > 0 && this.#implied.has(path)) {
      this.#copyLowerAttributes(ROOT_INODE, root);
    } else {
      this.#setLayerAttributes(root, top, stats, 0, xattrs);
    }
    tables.layer[root] = this.#layerNumber(top);
    tables.nlink[root] = 2;
    tables.parent[root] = root;
    const sources: Source[] = [{ layer: top, marks: overlayMarks(xattrs, this.#names) }];
    for (let layer = top - 1; layer >= 0 && !sources.at(-1)!.marks.isOpaque; layer -= 1) {
      const { xattrs: own } = this.#run[layer]!.disk.scanRoot();
      sources.push({ layer, marks: overlayMarks(own, this.#names) });
    }
    const lower = sources.at(-1)!.marks.isOpaque ? 0 : ROOT_INODE;
    this.#pending.push({ inode: root, lower, sources, path, isMoved: false });
  }

  /** Position in the list of layers of a layer of the run. */
  #layerNumber(layer: number): number {
    return this.#lower.layers.length + layer;
  }

  #copyLowerDirectory(directory: PendingDirectory): void {
    const end = this.#lower.endEntry(directory.lower);
    for (let entry = this.#lower.firstEntry(directory.lower); entry < end; entry += 1)
      this.#addLowerEntry(directory, entry);
  }

  #mergeDirectory(directory: PendingDirectory): void {
    const lower = this.#lower;
    let entry = directory.lower === 0 ? 0 : lower.firstEntry(directory.lower);
    const end = directory.lower === 0 ? 0 : lower.endEntry(directory.lower);
    let lowerName = entry < end ? lower.entryName(entry) : undefined;
    for (const places of entriesByName(this.#run, directory.sources, directory.path)) {
      const name = nameOf(places[0]!);
      while (lowerName !== undefined && lowerName < name) {
        this.#addLowerEntry(directory, entry);
        entry += 1;
        lowerName = entry < end ? lower.entryName(entry) : undefined;
      }
      if (lowerName === name) {
        entry += 1;
        lowerName = entry < end ? lower.entryName(entry) : undefined;
      }
      this.#addLayerEntry(directory, name, places);
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
    const path = "" as ByteString;
    this.#pending.push({ inode, lower: old, sources: [], path, isMoved });
  }

  #addSubdirectory(directory: PendingDirectory, inode: number): void {
    this.#tables.nlink[inode] = 2;
    this.#tables.nlink[directory.inode]! += 1;
  }

  #setContent(inode: number, contentPath: ByteString, path: ByteString): void {
    this.#tables.content[inode] = contentPath === path ? 0 : this.#tables.addText(contentPath);
  }

  #addLayerEntry(directory: PendingDirectory, name: ByteString, places: readonly Place[]): void {
    const { source, scan, position } = places[0]!;
    const at = position * STAT_SLOTS;
    if (source.layer === this.#run.length - 1) this.#usage.add(scan.stats, at);
    const marks = this.#marks(places[0]!);
    if (marks === undefined) return;
    const mode = scan.stats[at + STAT_MODE]!;
    if ((mode & S_IFMT) === S_IFDIR) {
      this.#addLayerDirectory(directory, name, places);
      return;
    }
    const tables = this.#tables;
    const links = scan.stats[at + STAT_NLINK]! > 1 ? this.#layerLinks[source.layer] : undefined;
    const diskInode = scan.stats[at + STAT_INO]!;
    let inode = links?.get(diskInode);
    if (inode === undefined) {
      inode = tables.addInode();
      links?.set(diskInode, inode);
      const xattrs = scan.xattrs[position];
      this.#setLayerAttributes(inode, source.layer, scan.stats, at, xattrs);
      tables.target[inode] = tables.addText(scan.targets[position] ?? ("" as ByteString));
      if (marks.isMetacopy && (mode & S_IFMT) === S_IFREG) {
        const path = joinBytes(directory.path, name);
        this.#takeLowerData(inode, path, continuedInode(this.#lower, directory.lower, name, marks));
      }
    }
    tables.addEntry(name, inode);
    tables.nlink[inode]! += 1;
  }

  /**
   * The marks of an entry; undefined for one that hides its name.
   *
   * @throws CorruptDataError it continues something elsewhere, above the lowest layer
   */
  #marks({ source, scan, position }: Place): OverlayMarks | undefined {
    const at = position * STAT_SLOTS;
    const marks = overlayMarks(scan.xattrs[position], this.#names);
    const mode = scan.stats[at + STAT_MODE]!;
    if (hidesName(mode, scan.stats[at + STAT_RDEV]!, marks, source.marks)) return undefined;
    if (source.layer > 0 && (marks.isMetacopy || marks.redirect !== undefined)) {
      const subject = this.#run[source.layer]!.disk.describe(scan.names[position]!);
      throw new CorruptDataError(
        `build chain index: ${subject} continues a file or directory elsewhere, which nothing does that was unpacked from an archive`,
      );
    }
    return marks;
  }

  #addLayerDirectory(
    directory: PendingDirectory,
    name: ByteString,
    places: readonly Place[],
  ): void {
    const tables = this.#tables;
    const path = joinBytes(directory.path, name);
    const { source, scan, position } = places[0]!;
    const { sources, isOpen } = this.#directoriesAt(places);
    const { marks } = sources.at(-1)!;
    const inode = tables.addInode();
    const continued = isOpen ? continuedInode(this.#lower, directory.lower, name, marks) : 0;
    const lower = this.#lower.isDirectory(continued) ? continued : 0;
    if (lower !== 0 && this.#implied.has(path)) this.#copyLowerAttributes(lower, inode);
    else {
      const xattrs = scan.xattrs[position];
      this.#setLayerAttributes(inode, source.layer, scan.stats, position * STAT_SLOTS, xattrs);
    }
    tables.layer[inode] = this.#layerNumber(source.layer);
    tables.content[inode] = 0;
    tables.addEntry(name, inode);
    this.#addSubdirectory(directory, inode);
    const isMoved = directory.isMoved || marks.redirect !== undefined;
    this.#pending.push({ inode, lower, sources, path, isMoved });
  }

  /** The directories of one name that show through one another; open when what is below all layers shows, too. */
  #directoriesAt(places: readonly Place[]): { sources: Source[]; isOpen: boolean } {
    const sources: Source[] = [];
    for (const place of places) {
      const mode = place.scan.stats[place.position * STAT_SLOTS + STAT_MODE]!;
      const marks = (mode & S_IFMT) === S_IFDIR ? this.#marks(place) : undefined;
      if (marks === undefined) return { sources, isOpen: false };
      sources.push({ layer: place.source.layer, marks });
      if (marks.isOpaque) return { sources, isOpen: false };
    }
    return { sources, isOpen: true };
  }

  #setLayerAttributes(
    inode: number,
    layer: number,
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
    tables.layer[inode] = this.#layerNumber(layer);
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
        `build chain index: ${this.#run[0]!.disk.describe(path)} has no data of its own (metacopy), and no file below it has`,
      );
    tables.size[inode] = from.size[data]!;
    tables.blocks[inode] = from.blocks[data]!;
    tables.layer[inode] = from.layer[data]!;
    tables.flags[inode] = from.flags[data]!;
    this.#setContent(inode, this.#lower.contentPath(data), path);
  }
}
