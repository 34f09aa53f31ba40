/**
 * Implied directories: those that a layer's archive passes through ("usr/lib/x" without "usr/" and
 * "usr/lib/") but does not name. The archive says nothing about them, so where the parent chain has
 *
 * - a directory, that keeps its owner, mode, times and attributes, in the merged tree and on disk
 *   (kernel overlayfs shows the topmost directory's, and must show the same);
 * - a symlink to a directory (lib -> usr/lib, the merged-/usr layout), the link stays and the layer's
 *   entries belong into the directory that it names. They are moved there on disk.
 *
 * Guaranteed: links are resolved inside the image's root only, at most MAX_LINKS of them, and no
 * path on disk is opened through a symlink. Links that lead nowhere, or to a place that the layer
 * itself hides or replaces, are left alone: then the directory replaces the link.
 */

import { ROOT_INODE } from "../overlay/chain-index.js";
import { isWhiteout, type OverlayAttributes } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import {
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_DIRECTORY,
  O_RDONLY,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
} from "../system/constants.js";
import { ENOENT, must } from "../system/errno.js";
import { STAT_MODE, STAT_RDEV, STAT_SLOTS } from "../system/native.js";
import { CoveredLower } from "./covered-lower.js";
import { readAttributes, writeAttributes } from "./directory-attributes.js";
import type { LowerLink } from "./hard-links.js";
import type { FlatIndex } from "./index-reader.js";
import type { DiskTree } from "./layer-scan.js";
import { refuseLowerLinks, settleLowerLinks } from "./lower-links.js";

/** As the kernel's limit on links in one path. */
const MAX_LINKS = 40;
const NOTHING = "" as ByteString;

/** What settleImpliedDirectories works on. */
export interface SettleOptions {
  readonly lower: FlatIndex;
  /** False for the first layer of a chain: then nothing needs settling. */
  readonly hasParent: boolean;
  readonly disk: DiskTree;
  readonly implied: readonly ByteString[];
  /** Hard links to files of the layers below, joined once directories are where they belong. */
  readonly lowerLinks: readonly LowerLink[];
  /** The lower layers' trees, parallel to `lower.layers`. Needed for `lowerLinks` only. */
  readonly layerDirs: readonly string[];
  readonly names: OverlayAttributes;
  readonly privileged: boolean;
}

/**
 * Moves and adorns the implied directories of a layer on disk as the file comment says. Idempotent.
 *
 * @returns the paths that are implied afterwards, "" for the root
 * @throws CorruptDataError a hard link to what is not in the layers below either
 * @throws SyscallError the tree cannot be changed
 */
export function settleImpliedDirectories(options: SettleOptions): ReadonlySet<ByteString> {
  const paths = [...new Set(options.implied.map(cleanPath))].sort();
  if (!options.hasParent) {
    refuseLowerLinks(options.lowerLinks);
    return new Set(paths);
  }
  return new Settlement(options).run(paths);
}

/**
 * False for a layer that fits on any chain: it has no hard links to lower files, and names all of
 * its directories but perhaps the root, which takes after that of the layer below (`adoptRoot`).
 */
export function needsChain(o: {
  readonly lowerLinks?: readonly LowerLink[] | undefined;
  readonly impliedDirectories: readonly ByteString[];
}): boolean {
  return (
    (o.lowerLinks?.length ?? 0) > 0 || o.impliedDirectories.some((path) => cleanPath(path) !== "")
  );
}

/**
 * Gives a layer's root, which is implied, the attributes of the one below, which is settled; unless it hides that.
 *
 * @throws SyscallError
 */
export function adoptRoot(
  disk: DiskTree,
  below: DiskTree,
  o: { readonly names: OverlayAttributes; readonly privileged: boolean },
): void {
  const opaque = sys.getxattrat(disk.rootFd, NOTHING, o.names.opaque);
  if (typeof opaque !== "number" && opaque.toString("latin1") === "y") return;
  writeAttributes(disk, NOTHING, readAttributes(below, NOTHING), o.privileged);
}

/** "./usr/lib/" and "/usr/lib" become "usr/lib", "." and "/" become "". */
function cleanPath(path: ByteString): ByteString {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  return names.join("/") as ByteString;
}

/**
 * The directory that `path` leads to in the merged tree, all symlinks followed inside the root.
 *
 * @returns its path, or undefined when there is none
 */
export function resolveDirectory(index: FlatIndex, path: ByteString): ByteString | undefined {
  const todo = path.split("/").reverse();
  const done: number[] = [];
  let links = 0;
  while (todo.length > 0) {
    const name = todo.pop() as ByteString;
    if (name === "" || name === ".") continue;
    if (name === "..") {
      done.pop();
      continue;
    }
    const inode = index.lookup(done.at(-1) ?? ROOT_INODE, name);
    if (inode === 0) return undefined;
    const type = index.mode(inode) & S_IFMT;
    if (type === S_IFDIR) {
      done.push(inode);
    } else if (type === S_IFLNK) {
      links += 1;
      if (links > MAX_LINKS) return undefined;
      const target = index.symlinkTarget(inode);
      if (target.startsWith("/")) done.length = 0;
      todo.push(...target.split("/").reverse());
    } else {
      return undefined;
    }
  }
  return index.path(done.at(-1) ?? ROOT_INODE);
}

class Settlement {
  readonly #options: SettleOptions;
  /** Implied directories by where they are now. */
  #implied = new Set<ByteString>();
  /** Those still to be looked at, parents first. */
  #queue: ByteString[] = [];
  readonly #stats = new Float64Array(STAT_SLOTS);

  readonly #covered: CoveredLower;

  constructor(options: SettleOptions) {
    this.#options = options;
    this.#covered = new CoveredLower(options.lower, options.disk, options.names);
  }

  run(paths: readonly ByteString[]): ReadonlySet<ByteString> {
    this.#implied = new Set(paths);
    this.#queue = [...paths].reverse();
    for (let path = this.#queue.pop(); path !== undefined; path = this.#queue.pop()) {
      if (!this.#implied.has(path)) continue;
      if (!this.#isDirectoryOnDisk(path)) this.#implied.delete(path);
      else this.#followLink(path);
    }
    const { lowerLinks } = this.#options;
    if (lowerLinks.length > 0) {
      const createParents = (path: ByteString) => this.#createParents(path);
      settleLowerLinks({ ...this.#options, covered: this.#covered, createParents });
    }
    for (const path of this.#implied) this.#adorn(path);
    return this.#implied;
  }

  #followLink(path: ByteString): void {
    const target = this.#linkedDirectory(path);
    if (target === undefined) return;
    this.#createParents(target);
    this.#mergeEntries(path, target);
    this.#removeDirectory(path);
    this.#implied.delete(path);
  }

  /** Notes that the directory `from` and all below it are now at `to`. */
  #relocate(from: ByteString, to: ByteString): void {
    const move = (path: ByteString) =>
      path === from || path.startsWith(`${from}/`)
        ? ((to + path.slice(from.length)) as ByteString)
        : path;
    this.#implied = new Set([...this.#implied].map(move));
    this.#queue = this.#queue.map(move);
  }

  #isDirectoryOnDisk(path: ByteString): boolean {
    const fd = this.#options.disk.tryOpen(path, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) sys.close(fd);
    return fd >= 0;
  }

  /** Where the lower symlink at `path` leads, when the layer's entries can go there. */
  #linkedDirectory(path: ByteString): ByteString | undefined {
    const { lower } = this.#options;
    const inode = lower.resolve(path);
    if (inode === 0 || (lower.mode(inode) & S_IFMT) !== S_IFLNK) return undefined;
    if (this.#covered.isOpaque(path)) return undefined;
    const target = resolveDirectory(lower, path);
    if (target === undefined || target === path || `${target}/`.startsWith(`${path}/`))
      return undefined;
    return this.#covered.directory(target) === 0 ? undefined : target;
  }

  #createParents(path: ByteString): void {
    const { disk } = this.#options;
    let prefix = NOTHING;
    for (const name of path === "" ? [] : (path.split("/") as ByteString[])) {
      const parent = disk.open(prefix, O_RDONLY | O_DIRECTORY);
      prefix = joinBytes(prefix, name);
      const made = sys.mkdirat(parent, name, 0o755);
      sys.close(parent);
      if (made === 0) this.#implied.add(prefix);
    }
  }

  #mergeEntries(from: ByteString, to: ByteString): void {
    const { disk } = this.#options;
    const scan = disk.scan(from);
    const fromFd = disk.open(from, O_RDONLY | O_DIRECTORY);
    const toFd = disk.open(to, O_RDONLY | O_DIRECTORY);
    try {
      for (const position of scan.order) {
        const name = scan.names[position]!;
        const at = position * STAT_SLOTS;
        const isWhite = isWhiteout(scan.stats[at + STAT_MODE]!, scan.stats[at + STAT_RDEV]!);
        const isDirectory = (scan.stats[at + STAT_MODE]! & S_IFMT) === S_IFDIR;
        this.#moveEntry({ fromFd, toFd, from, to, name, isWhite, isDirectory });
      }
    } finally {
      sys.close(fromFd);
      sys.close(toFd);
    }
  }

  /**
   * Moves one entry. Where both places have the name, the order in the archive is not known any
   * more; a directory wins over a file, a file over a whiteout, and two directories merge.
   */
  #moveEntry(entry: {
    fromFd: number;
    toFd: number;
    from: ByteString;
    to: ByteString;
    name: ByteString;
    isWhite: boolean;
    isDirectory: boolean;
  }): void {
    const { fromFd, toFd, name } = entry;
    const target = joinBytes(entry.to, name);
    const found = sys.statx(toFd, name, AT_SYMLINK_NOFOLLOW, this.#stats);
    if (found < 0) {
      if (found !== -ENOENT) must(found, "statx", this.#options.disk.describe(target));
      this.#rename(entry, target);
      return;
    }
    const mode = this.#stats[STAT_MODE]!;
    const targetIsWhite = isWhiteout(mode, this.#stats[STAT_RDEV]!);
    if ((mode & S_IFMT) === S_IFDIR) {
      const source = joinBytes(entry.from, name);
      if (entry.isDirectory) this.#mergeDirectories(source, target);
      else if (entry.isWhite) this.#makeOpaque(target);
      if (!entry.isDirectory)
        must(sys.unlinkat(fromFd, name, 0), "unlinkat", this.#options.disk.describe(source));
      return;
    }
    must(sys.unlinkat(toFd, name, 0), "unlinkat", this.#options.disk.describe(target));
    this.#rename(entry, target);
    if (targetIsWhite && entry.isDirectory) this.#makeOpaque(target);
  }

  #rename(
    entry: {
      fromFd: number;
      toFd: number;
      from: ByteString;
      name: ByteString;
      isDirectory: boolean;
    },
    target: ByteString,
  ): void {
    const { fromFd, toFd, name } = entry;
    must(
      sys.renameat2(fromFd, name, toFd, name, RENAME_NOREPLACE),
      "renameat2",
      this.#options.disk.describe(target),
    );
    if (entry.isDirectory) this.#relocate(joinBytes(entry.from, name), target);
  }

  #mergeDirectories(source: ByteString, target: ByteString): void {
    const attributes = this.#implied.has(source)
      ? undefined
      : readAttributes(this.#options.disk, source);
    const isOpaque = this.#covered.isOpaque(source);
    this.#mergeEntries(source, target);
    this.#removeDirectory(source);
    this.#implied.delete(source);
    if (isOpaque) this.#makeOpaque(target);
    if (attributes === undefined) return;
    // The archive named it through the link, so it is implied no more.
    this.#implied.delete(target);
    writeAttributes(this.#options.disk, target, attributes, this.#options.privileged);
  }

  #makeOpaque(path: ByteString): void {
    const { disk, names } = this.#options;
    const fd = disk.open(path, O_RDONLY | O_DIRECTORY);
    const result = sys.setxattrat(fd, NOTHING, names.opaque, Buffer.from("y"), 0);
    sys.close(fd);
    must(result, "setxattr", disk.describe(path));
  }

  #removeDirectory(path: ByteString): void {
    const { disk } = this.#options;
    const slash = path.lastIndexOf("/");
    const parent = disk.open(path.slice(0, Math.max(0, slash)) as ByteString, O_RDONLY);
    const result = sys.unlinkat(parent, path.slice(slash + 1) as ByteString, AT_REMOVEDIR);
    sys.close(parent);
    must(result, "rmdir", disk.describe(path));
  }

  /** Gives an implied directory on disk the attributes of the lower directory that it continues. */
  #adorn(path: ByteString): void {
    const { lower, disk, privileged } = this.#options;
    const inode = this.#covered.directory(path);
    if (inode === 0 || !this.#isDirectoryOnDisk(path)) return;
    const { arrays } = lower;
    const attributes = {
      mode: arrays.mode[inode]!,
      uid: arrays.uid[inode]!,
      gid: arrays.gid[inode]!,
      atimeSec: arrays.atimeSec[inode]!,
      atimeNsec: arrays.atimeNsec[inode]!,
      mtimeSec: arrays.mtimeSec[inode]!,
      mtimeNsec: arrays.mtimeNsec[inode]!,
      xattrs: lower.xattrs(inode),
    };
    writeAttributes(disk, path, attributes, privileged);
  }
}
