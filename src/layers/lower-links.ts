/**
 * Joining a layer's hard links to files of the layers below: the file is copied up into the layer's
 * tree under its own name, as overlayfs does when a lower file is linked, and the link shares it.
 *
 * The rules are those of applying entries in order on the merged tree:
 * - what this layer has put in the place of the file, or taken away, since the link leaves the link
 *   with the lower file's content and does not come back;
 * - the header of the last link describes the file; attributes that it does not repeat stay.
 */

import { isWhiteout, type OverlayAttributes } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, display, joinBytes } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_SYMLINK_NOFOLLOW,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
} from "../system/constants.js";
import { ENOENT, must } from "../system/errno.js";
import { CorruptDataError } from "../system/errors.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_RDEV,
  STAT_SLOTS,
} from "../system/native.js";
import type { CoveredLower } from "./covered-lower.js";
import { EntryMetadata } from "./entry-metadata.js";
import { baseName, parentPath } from "./entry-path.js";
import { copyFileBody } from "./file-body.js";
import type { LowerLink } from "./hard-links.js";
import type { FlatIndex } from "./index-reader.js";
import { DiskTree } from "./layer-scan.js";
import { type TarEntry, type TarEntryType, TYPE_MODE } from "./tar-entry.js";

/** As the kernel's limit on links in one path. */
const MAX_LINKS = 40;
const NOTHING = "" as ByteString;

/** What settleLowerLinks works on. */
export interface LowerLinkOptions {
  readonly lower: FlatIndex;
  readonly layerDirs: readonly string[];
  readonly disk: DiskTree;
  readonly covered: CoveredLower;
  readonly lowerLinks: readonly LowerLink[];
  readonly names: OverlayAttributes;
  readonly privileged: boolean;
  /** Makes a directory of the layer's tree with its parents, as implied ones. */
  createParents(path: ByteString): void;
}

/**
 * Replaces the placeholders of `lowerLinks` on disk.
 *
 * @throws CorruptDataError a link to nothing, or to a directory
 * @throws SyscallError the tree cannot be changed
 */
export function settleLowerLinks(options: LowerLinkOptions): void {
  const joiner = new LinkJoiner(options);
  for (const link of options.lowerLinks) joiner.join(link);
}

/** For a layer without parents, where each of them leads to nothing. @throws CorruptDataError */
export function refuseLowerLinks(links: readonly LowerLink[]): void {
  for (const link of links) throw missing(link);
}

function missing(link: LowerLink): CorruptDataError {
  const target = JSON.stringify(display(link.target));
  return new CorruptDataError(
    `${link.where}: hard link to ${target}, which is neither in the layer before it nor in the layers below`,
  );
}

/** A file that has been brought up, or that this layer had under a name reached by a lower symlink. */
interface Joined {
  readonly path: ByteString;
  readonly type: Exclude<TarEntryType, "hardlink">;
  readonly xattrs: TarEntry["xattrs"];
}

class LinkJoiner {
  readonly #options: LowerLinkOptions;
  readonly #disk: DiskTree;
  readonly #metadata: EntryMetadata;
  readonly #stat = new Float64Array(STAT_SLOTS);
  readonly #joined = new Map<ByteString, Joined>();

  constructor(options: LowerLinkOptions) {
    this.#options = options;
    this.#disk = options.disk;
    this.#metadata = new EntryMetadata(options.privileged, () => {});
  }

  join(link: LowerLink): void {
    const place = this.#resolve(link.path);
    if (place === undefined) throw missing(link);
    const known = this.#joined.get(link.target) ?? this.#target(link, place);
    this.#joined.set(link.target, known);
    if (known.path !== place) this.#link(known.path, place);
    this.#describe(known, link);
  }

  /** Finds the file that a link names, and brings it up at the link's own place if it is a lower one. */
  #target(link: LowerLink, place: ByteString): Joined {
    const target = this.#resolve(link.target);
    if (target === undefined) throw missing(link);
    const type = this.#typeOnDisk(target);
    // What came by the literal name after the link hides the lower file, which the link still gets.
    if (type !== 0 && target !== link.target) return this.#ownFile(link, target, type);
    const inode = this.#lowerInode(target);
    if (inode === 0) throw missing(link);
    const brought = this.#bringUp(link, inode, place);
    if (type === 0) {
      this.#options.createParents(parentPath(target));
      this.#link(place, target);
    }
    return brought;
  }

  #ownFile(link: LowerLink, path: ByteString, type: number): Joined {
    const isHidden = isWhiteout(this.#stat[STAT_MODE]!, this.#stat[STAT_RDEV]!);
    if (isHidden || type === S_IFDIR) throw missing(link);
    return { path, type: typeOf(type), xattrs: [] };
  }

  /** Makes the placeholder at `place` what the lower inode is. */
  #bringUp(link: LowerLink, inode: number, place: ByteString): Joined {
    const { lower } = this.#options;
    const type = typeOf(lower.mode(inode) & S_IFMT);
    if (type === "directory") {
      const target = JSON.stringify(display(link.target));
      throw new CorruptDataError(`${link.where}: hard link to the directory ${target}`);
    }
    if (type === "file") this.#copyData(link, inode, place);
    else this.#makeSpecial(type, inode, place);
    return { path: place, type, xattrs: lower.xattrs(inode) };
  }

  #copyData(link: LowerLink, inode: number, place: ByteString): void {
    const { lower, layerDirs } = this.#options;
    const layer = new DiskTree(layerDirs[lower.layer(inode)]!);
    try {
      const from = layer.open(lower.contentPath(inode), O_RDONLY | O_NOFOLLOW);
      const to = this.#disk.tryOpen(place, O_WRONLY | O_NOFOLLOW);
      try {
        must(to, "openat2", this.#disk.describe(place));
        copyFileBody(from, to, lower.arrays.size[inode]!, link.where);
      } finally {
        sys.close(from);
        if (to >= 0) sys.close(to);
      }
    } finally {
      layer.close();
    }
  }

  #makeSpecial(
    type: Exclude<TarEntryType, "hardlink" | "file" | "directory">,
    inode: number,
    place: ByteString,
  ): void {
    const { lower } = this.#options;
    this.#inDirectory(place, (fd, name) => {
      must(sys.unlinkat(fd, name, 0), "unlinkat", this.#disk.describe(place));
      const result =
        type === "symlink"
          ? sys.symlinkat(lower.symlinkTarget(inode), fd, name)
          : sys.mknodat(fd, name, TYPE_MODE[type] | 0o600, lower.arrays.rdev[inode]!);
      must(result, type === "symlink" ? "symlinkat" : "mknodat", this.#disk.describe(place));
    });
  }

  /** Puts another name of the object at `from` in the place of what is at `to`, if anything. */
  #link(from: ByteString, to: ByteString): void {
    this.#inDirectory(to, (toFd, name) => {
      const removed = sys.unlinkat(toFd, name, 0);
      if (removed !== -ENOENT) must(removed, "unlinkat", this.#disk.describe(to));
      const fromFd = this.#disk.open(parentPath(from), O_RDONLY | O_DIRECTORY);
      const result = sys.linkat(fromFd, baseName(from), toFd, name, 0);
      sys.close(fromFd);
      must(result, "linkat", this.#disk.describe(to));
    });
  }

  #describe(joined: Joined, link: LowerLink): void {
    const { type, xattrs, path } = joined;
    const stated = link.entry.xattrs.map(({ name, value }) => ({
      name,
      value: Buffer.from(value),
    }));
    const kept = xattrs.filter(({ name }) => !stated.some((xattr) => xattr.name === name));
    const entry = { ...link.entry, type, xattrs: [...kept, ...stated] };
    const fd = this.#disk.open(parentPath(path), O_RDONLY | O_DIRECTORY);
    try {
      this.#metadata.apply(fd, baseName(path), entry, -1, () => link.where);
    } finally {
      sys.close(fd);
    }
  }

  /** Works in the directory of `path` and gives it its times back. */
  #inDirectory(path: ByteString, work: (fd: number, name: ByteString) => void): void {
    const parent = parentPath(path);
    const fd = this.#disk.open(parent, O_RDONLY | O_DIRECTORY);
    const subject = this.#disk.describe(parent);
    try {
      const stat = new Float64Array(STAT_SLOTS);
      must(sys.statx(fd, NOTHING, AT_EMPTY_PATH, stat), "statx", subject);
      work(fd, baseName(path));
      const result = sys.utimensat(
        fd,
        NOTHING,
        stat[STAT_ATIME_SEC]!,
        stat[STAT_ATIME_NSEC]!,
        stat[STAT_MTIME_SEC]!,
        stat[STAT_MTIME_NSEC]!,
        AT_EMPTY_PATH,
      );
      must(result, "utimensat", subject);
    } finally {
      sys.close(fd);
    }
  }

  /** `path` with the symlinks among its parents followed in the merged tree; undefined: no such parent. */
  #resolve(path: ByteString): ByteString | undefined {
    const todo = parentPath(path).split("/").reverse() as ByteString[];
    let done: ByteString[] = [];
    let links = 0;
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        done.pop();
        continue;
      }
      const here = joinBytes(done.join("/") as ByteString, name);
      const next = this.#step(here);
      if (next === undefined) return undefined;
      if (next === "directory") {
        done.push(name);
        continue;
      }
      links += 1;
      if (links > MAX_LINKS) return undefined;
      if (next.target.startsWith("/")) done = [];
      todo.push(...(next.target.split("/").reverse() as ByteString[]));
    }
    return joinBytes(done.join("/") as ByteString, baseName(path));
  }

  #step(path: ByteString): "directory" | { readonly target: ByteString } | undefined {
    const type = this.#typeOnDisk(path);
    if (type === S_IFDIR) return "directory";
    if (type === S_IFLNK) return { target: this.#readlink(path) };
    if (type !== 0) return undefined;
    const { lower } = this.#options;
    const inode = this.#lowerInode(path);
    const lowerType = inode === 0 ? 0 : lower.mode(inode) & S_IFMT;
    if (lowerType === S_IFDIR) return "directory";
    return lowerType === S_IFLNK ? { target: lower.symlinkTarget(inode) } : undefined;
  }

  /** What the chain below has at `path`, if the layer's directories let it through; 0: nothing. */
  #lowerInode(path: ByteString): number {
    const directory = this.#options.covered.directory(parentPath(path));
    return directory === 0 ? 0 : this.#options.lower.lookup(directory, baseName(path));
  }

  /** Fills #stat; the type bits of `path` in the layer's own tree, 0 for nothing. */
  #typeOnDisk(path: ByteString): number {
    const fd = this.#disk.tryOpen(parentPath(path), O_RDONLY | O_DIRECTORY);
    if (fd < 0) return 0;
    const result = sys.statx(fd, baseName(path), AT_SYMLINK_NOFOLLOW, this.#stat);
    sys.close(fd);
    if (result === -ENOENT) return 0;
    must(result, "statx", this.#disk.describe(path));
    return this.#stat[STAT_MODE]! & S_IFMT;
  }

  #readlink(path: ByteString): ByteString {
    const fd = this.#disk.open(parentPath(path), O_RDONLY | O_DIRECTORY);
    const target = sys.readlinkat(fd, baseName(path));
    sys.close(fd);
    return must(target, "readlinkat", this.#disk.describe(path));
  }
}

function typeOf(bits: number): Exclude<TarEntryType, "hardlink"> {
  for (const [type, mode] of Object.entries(TYPE_MODE)) {
    if (mode === bits) return type as Exclude<TarEntryType, "hardlink">;
  }
  // Sockets have no form in a layer, so no chain has one.
  return "file";
}
