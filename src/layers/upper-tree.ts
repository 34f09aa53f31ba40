/**
 * A view's upper directory read into memory, one native call per directory, joined to the chain
 * index below it. What is held is proportional to the upper, never to the image.
 *
 * Vocabulary. An upper directory *continues* a lower directory whose entries show through it, or
 * none (new, opaque). The lower directory *below* it is the one at the same path of the parent image,
 * which is what a layer on top of that image adds to (none for a layer that replaces the image). The two differ where a directory was moved or
 * made anew; a layer must then say everything that is in it.
 */

import type { ChainIndex, InodeAttributes, Xattr } from "../overlay/chain-index.js";
import { ROOT_INODE } from "../overlay/chain-index.js";
import { type OverlayAttributes, overlayAttributes, WORK_INDEX } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import { O_DIRECTORY, O_RDONLY, S_IFDIR, S_IFMT, S_IFREG } from "../system/constants.js";
import { CorruptDataError } from "../system/errors.js";
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
import { DiskTree, findName, type SortedScan } from "./layer-scan.js";
import {
  continuedInode,
  hidesName,
  type OverlayMarks,
  overlayMarks,
  userXattrs,
} from "./overlay-marks.js";
import {
  decodeOwner,
  type ImageOwner,
  keepsOwnersBeside,
  OWNER_ATTRIBUTE,
} from "./rootless-owner.js";

/** An upper over its chain, as the functions of this room take it. */
export interface DiffOptions {
  readonly upperDir: string;
  readonly workDir: string;
  readonly index: ChainIndex;
  /** The layers' fs directories, base first, parallel to `index.layers`. */
  readonly layerDirs: readonly string[];
  /** True: the overlay's attributes are trusted.overlay.*; false: user.overlay.*. */
  readonly privileged: boolean;
  /** Take all that the view shows as new, as though there were no image below. Default false. */
  readonly isWhole?: boolean | undefined;
}

/** Where the data of a regular file is. */
export type ContentSource =
  /** Path below the upper directory. */
  | { readonly kind: "upper"; readonly path: ByteString }
  /** Path below the work directory: a file of several names whose upper names are all gone. */
  | { readonly kind: "work"; readonly path: ByteString }
  /** The data of a chain index inode. */
  | { readonly kind: "lower"; readonly inode: number };

/** What a layer says of a file system object. */
export interface ObjectFacts {
  /** Type and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  /** Bytes of a regular file; 0 for other types. */
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly target: ByteString;
  /** Sorted by name, without the overlay's own. */
  readonly xattrs: readonly Xattr[];
  /** Regular files only. */
  readonly source?: ContentSource;
}

/** A directory of the upper. */
export interface UpperDirectory {
  readonly path: ByteString;
  readonly scan: SortedScan;
  readonly marks: OverlayMarks;
  /** The lower directory whose entries show through, or 0. */
  readonly continued: number;
  /** The lower directory at the same path, or 0. */
  readonly below: number;
  /** True when it or a directory above it does not continue what is below it. */
  readonly isReset: boolean;
  /** Subdirectories by position in `scan`. */
  readonly children: Map<number, UpperDirectory>;
  readonly facts: ObjectFacts;
}

/** See the file comment. Close it after use. */
export class UpperTree {
  readonly index: ChainIndex;
  readonly disk: DiskTree;
  readonly root: UpperDirectory;
  /** Upper directories by the lower directory that they continue. */
  readonly byContinued = new Map<number, UpperDirectory>();
  /** Lower files of several names that were copied up: index inode to position in `copiedScan`. */
  readonly copied = new Map<number, number>();
  readonly #names: OverlayAttributes;
  readonly #keepsOwners: boolean;
  readonly #copiedScan: SortedScan | undefined;

  /** @throws SyscallError the upper or the work directory cannot be read */
  constructor(options: DiffOptions) {
    this.index = options.index;
    this.#names = overlayAttributes(options.privileged);
    this.#keepsOwners = keepsOwnersBeside(options.privileged);
    this.disk = new DiskTree(options.upperDir);
    try {
      this.#copiedScan = this.#scanCopied(options.workDir);
      this.root = this.#readRoot(options.isWhole === true);
      this.#readBelow(this.root);
    } catch (error) {
      this.disk.close();
      throw error;
    }
  }

  close(): void {
    this.disk.close();
  }

  #scanCopied(workDir: string): SortedScan | undefined {
    const disk = new DiskTree(workDir);
    try {
      const fd = disk.tryOpen(WORK_INDEX, O_RDONLY | O_DIRECTORY);
      if (fd < 0) return undefined; // A kernel overlay's work directory has none, or its own.
      sys.close(fd);
      const scan = disk.scan(WORK_INDEX);
      scan.names.forEach((name, position) => {
        const inode = /^[1-9][0-9]*$/.test(name) ? Number(name) : 0;
        if (this.index.has(inode)) this.copied.set(inode, position);
      });
      return scan;
    } finally {
      disk.close();
    }
  }

  #readRoot(isWhole: boolean): UpperDirectory {
    const path = "" as ByteString;
    const { stats, xattrs } = this.disk.scanRoot();
    const marks = overlayMarks(xattrs, this.#names);
    const root: UpperDirectory = {
      path,
      scan: this.disk.scan(path),
      marks,
      continued: marks.isOpaque ? 0 : ROOT_INODE,
      below: isWhole ? 0 : ROOT_INODE,
      isReset: isWhole || marks.isOpaque,
      children: new Map(),
      facts: this.#factsOf(stats, 0, "" as ByteString, userXattrs(xattrs)),
    };
    if (root.continued !== 0) this.byContinued.set(root.continued, root);
    return root;
  }

  #readBelow(root: UpperDirectory): void {
    const todo = [root];
    for (let parent = todo.pop(); parent !== undefined; parent = todo.pop()) {
      const { scan } = parent;
      for (const position of scan.order) {
        if ((scan.stats[position * STAT_SLOTS + STAT_MODE]! & S_IFMT) !== S_IFDIR) continue;
        const child = this.#readDirectory(parent, position);
        parent.children.set(position, child);
        if (child.continued !== 0) this.byContinued.set(child.continued, child);
        todo.push(child);
      }
    }
  }

  #readDirectory(parent: UpperDirectory, position: number): UpperDirectory {
    const { scan } = parent;
    const name = scan.names[position]!;
    const path = joinBytes(parent.path, name);
    const xattrs = scan.xattrs[position];
    const marks = overlayMarks(xattrs, this.#names);
    const continued = marks.isOpaque ? 0 : this.#continued(parent, name, marks, S_IFDIR);
    const below = this.directoryOf(this.lookup(parent.below, name));
    return {
      path,
      scan: this.disk.scan(path),
      marks,
      continued,
      below,
      isReset: parent.isReset || continued !== below,
      children: new Map(),
      facts: this.#factsOf(scan.stats, position, "" as ByteString, userXattrs(xattrs)),
    };
  }

  /** The lower inode of type `type` that an upper entry continues, or 0. */
  #continued(parent: UpperDirectory, name: ByteString, marks: OverlayMarks, type: number): number {
    // Our own record of the origin is exact; the kernel's attributes name a path.
    const inode = marks.origin ?? 0;
    if (this.#isType(inode, type)) return inode;
    const found = continuedInode(this.index, parent.continued, name, marks);
    return this.#isType(found, type) ? found : 0;
  }

  #isType(inode: number, type: number): boolean {
    return this.index.has(inode) && (this.index.mode(inode) & S_IFMT) === type;
  }

  /** Lookup in a lower directory that may be 0. */
  lookup(dir: number, name: ByteString): number {
    return dir === 0 ? 0 : this.index.lookup(dir, name);
  }

  /** The inode if it is a directory, else 0. */
  directoryOf(inode: number): number {
    return this.#isType(inode, S_IFDIR) ? inode : 0;
  }

  /** True when the upper entry hides its name. */
  isWhiteout(dir: UpperDirectory, position: number): boolean {
    const { scan } = dir;
    const at = position * STAT_SLOTS;
    const marks = overlayMarks(scan.xattrs[position], this.#names);
    return hidesName(scan.stats[at + STAT_MODE]!, scan.stats[at + STAT_RDEV]!, marks, dir.marks);
  }

  /** True for a device 0:0 that a user made, which hides nothing (see overlay/visible-device.ts). */
  isVisibleDevice(dir: UpperDirectory, position: number): boolean {
    return overlayMarks(dir.scan.xattrs[position], this.#names).origin === 0;
  }

  /** The facts of an upper entry that is no directory and no whiteout. */
  fileFacts(dir: UpperDirectory, position: number): ObjectFacts {
    const { scan } = dir;
    const name = scan.names[position]!;
    const xattrs = scan.xattrs[position];
    const plain = this.#factsOf(
      scan.stats,
      position,
      scan.targets[position] ?? ("" as ByteString),
      userXattrs(xattrs),
    );
    if ((plain.mode & S_IFMT) !== S_IFREG) return plain;
    const path = joinBytes(dir.path, name);
    const marks = overlayMarks(xattrs, this.#names);
    if (!marks.isMetacopy) return { ...plain, source: { kind: "upper", path } };
    const data = this.#continued(dir, name, marks, S_IFREG);
    return this.#withLowerData(plain, data, this.disk.describe(path));
  }

  /** The facts of a copied-up file of several names, by its index inode. */
  copiedFacts(inode: number): ObjectFacts {
    const scan = this.#copiedScan!;
    const position = this.copied.get(inode)!;
    const xattrs = scan.xattrs[position];
    const target = scan.targets[position] ?? ("" as ByteString);
    const plain = this.#factsOf(scan.stats, position, target, userXattrs(xattrs));
    if ((plain.mode & S_IFMT) !== S_IFREG) return plain;
    const path = joinBytes(WORK_INDEX, scan.names[position]!);
    if (overlayMarks(xattrs, this.#names).isMetacopy)
      return this.#withLowerData(plain, this.#isType(inode, S_IFREG) ? inode : 0, path);
    return { ...plain, source: { kind: "work", path } };
  }

  /** The number on disk of a copied-up file of several names. */
  copiedDiskInode(inode: number): number {
    return this.#copiedScan!.stats[this.copied.get(inode)! * STAT_SLOTS + STAT_INO]!;
  }

  #withLowerData(plain: ObjectFacts, inode: number, subject: string): ObjectFacts {
    if (inode === 0)
      throw new CorruptDataError(
        `read upper: ${subject} has no data of its own (metacopy), and no lower file has`,
      );
    const { size } = this.index.attributes(inode, SCRATCH);
    return { ...plain, size, source: { kind: "lower", inode } };
  }

  /** The facts of a lower object. */
  lowerFacts(inode: number): ObjectFacts {
    const { mode, uid, gid, rdev, size, mtimeSec, mtimeNsec } = this.index.attributes(
      inode,
      SCRATCH,
    );
    const isFile = (mode & S_IFMT) === S_IFREG;
    const plain = {
      mode,
      ...this.#owner(uid, gid, this.index.xattrs(inode)),
      rdev,
      size: isFile ? size : 0,
      mtimeSec,
      mtimeNsec,
      target: this.index.symlinkTarget(inode),
      xattrs: this.#shown(this.index.xattrs(inode)),
    };
    return isFile ? { ...plain, source: { kind: "lower", inode } } : plain;
  }

  #factsOf(
    stats: Float64Array,
    position: number,
    target: ByteString,
    xattrs: readonly Xattr[],
  ): ObjectFacts {
    const at = position * STAT_SLOTS;
    const mode = stats[at + STAT_MODE]!;
    return {
      mode,
      ...this.#owner(stats[at + STAT_UID]!, stats[at + STAT_GID]!, xattrs),
      rdev: stats[at + STAT_RDEV]!,
      size: (mode & S_IFMT) === S_IFREG ? stats[at + STAT_SIZE]! : 0,
      mtimeSec: stats[at + STAT_MTIME_SEC]!,
      mtimeNsec: stats[at + STAT_MTIME_NSEC]!,
      target,
      xattrs: this.#shown(xattrs),
    };
  }

  /** The image's owner, who on the disk of an ordinary user is that user, whoever it is. */
  #owner(uid: number, gid: number, xattrs: readonly Xattr[]): ImageOwner {
    if (!this.#keepsOwners) return { uid, gid };
    const note = xattrs.find(({ name }) => name === OWNER_ATTRIBUTE);
    return (note && decodeOwner(note.value)) ?? { uid: 0, gid: 0 };
  }

  #shown(xattrs: readonly Xattr[]): readonly Xattr[] {
    return this.#keepsOwners ? xattrs.filter(({ name }) => name !== OWNER_ATTRIBUTE) : xattrs;
  }

  /** The number on disk of an upper file with several names, else 0. */
  linkedDiskInode(dir: UpperDirectory, position: number): number {
    const at = position * STAT_SLOTS;
    const { stats } = dir.scan;
    return stats[at + STAT_NLINK]! > 1 ? stats[at + STAT_INO]! : 0;
  }

  /** True when the upper directory has an entry (or a whiteout) of that name. */
  hasEntry(dir: UpperDirectory, name: ByteString): boolean {
    return findName(dir.scan, name) >= 0;
  }
}

const SCRATCH = {} as InodeAttributes;
