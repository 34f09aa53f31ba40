/**
 * The merged tree of one view: which node a name leads to, and where a node's upper object is.
 *
 * Invariants:
 * - A node without an object in `nodes`, or whose object has no place, is exactly what the chain
 *   index says, at the place that the index says.
 * - A directory with an upper part has all its ancestors in the upper, so the upper path of an
 *   object is its merged path. A node knows its parents' IDs and its own names only: renaming a
 *   directory changes one place, whatever is below it.
 * - What is on disk decides. Memory is changed after a step on disk succeeded; when a step in the
 *   middle fails, the directories concerned are read again.
 */

import { emptyAttributes, type Kernel, type NodeId, type Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  AT_SYMLINK_NOFOLLOW,
  DT_CHR,
  O_DIRECTORY,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  S_IFDIR,
  S_IFMT,
} from "../system/constants.js";
import { ENOTDIR, EPERM, ESTALE } from "../system/errno.js";
import { STAT_MODE, STAT_RDEV, STAT_SLOTS } from "../system/native.js";
import { BackgroundCopies } from "./background-copy.js";
import { Backing, type BackingOptions, openBeneath } from "./backing.js";
import { type ChainIndex, type InodeAttributes, ROOT_INODE } from "./chain-index.js";
import { DirectoryState, type UpperListing, type UpperName } from "./directory-state.js";
import { isWhiteout } from "./format.js";
import { HardLinks } from "./hard-links.js";
import {
  INDEX_AREA,
  NodeTable,
  ORPHAN_AREA,
  OverlayNode,
  TEMPORARY_AREA,
  UPPER_BORN,
} from "./node-table.js";
import { UpperObjectReader } from "./upper-object.js";
import { isVisibleDevice } from "./visible-device.js";

/** The name under which the upper root is addressed from its own descriptor. */
const SELF = "." as ByteString;

/** See the file comment. */
export class OverlayTree {
  readonly index: ChainIndex;
  readonly backing: Backing;
  readonly nodes = new NodeTable();
  readonly hardLinks: HardLinks;
  readonly copies = new BackgroundCopies();
  readonly reader: UpperObjectReader;
  readonly writable: boolean;
  /** From the connection's beginning on. */
  kernel: Kernel | undefined;
  /** Scratch: what the last statx filled. */
  readonly stat = new Float64Array(STAT_SLOTS);
  /**
   * The node whose file `attach` has just had to read, so that `stat` is of it; for who sets this to 0
   * before and asks right after.
   */
  described: NodeId = 0;
  /** Scratch for index attributes. */
  readonly lowerAttributes: InodeAttributes = emptyAttributes();

  #leavesFilesBare: boolean | undefined;

  constructor(options: BackingOptions & { readonly index: ChainIndex }) {
    this.index = options.index;
    this.backing = new Backing(options);
    this.writable = this.backing.writable;
    this.hardLinks = new HardLinks(this);
    this.reader = new UpperObjectReader(this.index, this.backing.attributes, this.stat);
    if (!this.writable) return;
    this.hardLinks.load();
    const root = this.nodes.add(new OverlayNode(ROOT_INODE, S_IFDIR));
    root.lower = ROOT_INODE;
    root.places.push({ parent: ROOT_INODE, name: SELF });
  }

  /** The node's object; made on demand for a hard-linked file that was copied up. */
  node(id: NodeId): OverlayNode | undefined {
    return this.nodes.get(id) ?? (this.hardLinks.has(id) ? this.hardLinks.node(id) : undefined);
  }

  /**
   * Whether a file that was just made, like `fd`, has no extended attributes. They all have some
   * where a security module labels files, so the first one tells for the whole view.
   */
  leavesFilesBare(fd: number): boolean {
    if (this.#leavesFilesBare === undefined) {
      const list = sys.listxattrat(fd, "" as ByteString);
      this.#leavesFilesBare = typeof list !== "number" && list.length === 0;
    }
    return this.#leavesFilesBare;
  }

  /** True when the ID can belong to a node. */
  exists(id: NodeId): boolean {
    return this.index.has(id) || this.nodes.get(id) !== undefined;
  }

  /** S_IFMT bits of a node; 0 when it is unknown. */
  typeOf(id: NodeId): number {
    const node = this.nodes.get(id);
    if (node !== undefined) return node.type;
    return this.exists(id) ? this.index.mode(id) & S_IFMT : 0;
  }

  isKnown(id: NodeId): boolean {
    return this.nodes.lookups(id) > 0;
  }

  /** The directory that holds a directory node (for ".."); the root holds itself. */
  parentOf(id: NodeId): NodeId {
    const place = this.nodes.get(id)?.places[0];
    if (place !== undefined) return place.parent > 0 ? place.parent : ROOT_INODE;
    return this.index.has(id) ? this.index.parent(id) : ROOT_INODE;
  }

  /** The node of `name` in directory `parent`; 0 when there is none, or a negative errno. */
  find(parent: NodeId, name: ByteString): NodeId | Result {
    const directory = this.nodes.get(parent);
    if (directory === undefined || !directory.hasUpper) {
      if (!this.exists(parent)) return -ESTALE;
      if (directory?.removed) return 0;
      return this.index.lookup(parent, name);
    }
    if (!directory.isDirectory) return -ENOTDIR;
    if (directory.removed) return 0;
    const state = this.directory(directory);
    if (typeof state === "number") return state;
    const entry = state.get(name);
    if (entry === undefined) return state.lowerInode(name);
    return entry.isWhiteout ? 0 : this.attach(directory, state, entry);
  }

  /** The node of an upper object, its object in memory made on first need; or a negative errno. */
  attach(directory: OverlayNode, state: DirectoryState, entry: UpperName): NodeId | Result {
    if (entry.id !== 0) {
      const known = this.nodes.get(entry.id);
      if (known?.indexed || (known && known.indexOfPlace(directory.id, entry.name) >= 0)) {
        return entry.id;
      }
    }
    const identified = this.identify(directory, state, entry);
    if (identified < 0) return identified;
    const object = this.reader.object;
    let node = this.nodes.get(object.id);
    if (node?.indexed) return object.id;
    if (node === undefined) {
      node = this.nodes.add(new OverlayNode(object.id, object.type));
      node.lower = object.lower;
      node.dataInode = object.dataInode;
    }
    this.nodes.addPlace(node, directory.id, entry.name);
    if (object.type !== S_IFDIR && object.hardLinked === 0) this.described = object.id;
    return object.id;
  }

  /** Reads an upper object into `reader.object` and settles its ID, without keeping a node for it. */
  identify(directory: OverlayNode, state: DirectoryState, entry: UpperName): Result {
    const dirfd = this.directoryFd(directory.id);
    if (dirfd < 0) return dirfd;
    const result = this.reader.read(dirfd, entry.name, state);
    if (result < 0) return result;
    const object = this.reader.object;
    if (object.hardLinked !== 0) {
      if (this.hardLinks.has(object.hardLinked)) this.hardLinks.node(object.hardLinked);
      else object.id = this.#upperBornId(dirfd, entry.name);
    } else if (object.id < UPPER_BORN && this.#isTaken(object.id, directory.id, entry.name)) {
      object.id = this.#upperBornId(dirfd, entry.name);
    }
    entry.id = object.id;
    return 0;
  }

  #upperBornId(dirfd: number, name: ByteString): NodeId {
    sys.statx(dirfd, name, AT_SYMLINK_NOFOLLOW, this.stat);
    return UPPER_BORN + this.stat[0]!;
  }

  /** A directory has one place: a second one that claims the same origin is a copy made behind us. */
  #isTaken(id: NodeId, parent: NodeId, name: ByteString): boolean {
    const node = this.nodes.get(id);
    return node?.isDirectory === true && node.hasUpper && node.indexOfPlace(parent, name) < 0;
  }

  /** The state of a directory with an upper part, read on first need; or a negative errno. */
  directory(node: OverlayNode): DirectoryState | Result {
    if (node.directory !== undefined) return node.directory;
    const state = new DirectoryState(this.index, node.lower);
    const listing = this.#listUpper(node.id);
    if (typeof listing === "number") return listing;
    state.replaceAll(listing);
    node.directory = state;
    return state;
  }

  /** Reads a directory again after a failed step, so that memory says what the disk says. */
  reload(id: NodeId): void {
    const node = this.nodes.get(id);
    if (node?.directory === undefined) return;
    const listing = this.#listUpper(id);
    if (typeof listing === "number") node.directory = undefined;
    else node.directory.replaceAll(listing);
  }

  #listUpper(id: NodeId): UpperListing[] | Result {
    const dirfd = this.directoryFd(id);
    if (dirfd < 0) return dirfd;
    const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    // What we read for ourselves must not look like somebody's reading. Without root only the owner may ask that.
    let fd = sys.openat(dirfd, SELF, flags | O_NOATIME, 0);
    if (fd === -EPERM) fd = sys.openat(dirfd, SELF, flags, 0);
    if (fd < 0) return fd;
    const listing = sys.readDirectory(fd);
    sys.close(fd);
    if (typeof listing === "number") return listing;
    return listing.names.map((name, at) => {
      const type = listing.types[at]!;
      const whiteout = type === DT_CHR && this.#isWhiteoutAt(dirfd, name);
      // DT_* numbers are the S_IFMT bits, shifted.
      return { name, isWhiteout: whiteout, type: type << 12 };
    });
  }

  #isWhiteoutAt(dirfd: number, name: ByteString): boolean {
    if (sys.statx(dirfd, name, AT_SYMLINK_NOFOLLOW, this.stat) < 0) return false;
    if (!isWhiteout(this.stat[STAT_MODE]!, this.stat[STAT_RDEV]!)) return false;
    return !isVisibleDevice(dirfd, name, this.backing.attributes);
  }

  /** An O_PATH descriptor (borrowed) of a directory's upper part or of an area, or a negative errno. */
  directoryFd(id: NodeId): number {
    const fixed = this.#fixedFd(id);
    if (fixed >= 0) return fixed;
    const path: ByteString[] = [];
    let base = -1;
    for (let at = id; base < 0; ) {
      const place = this.nodes.get(at)?.places[0];
      if (place === undefined) return -ESTALE;
      path.push(place.name);
      at = place.parent;
      base = this.#fixedFd(at);
    }
    const relative = path.reverse().join("/") as ByteString;
    const fd = openBeneath(base, relative, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    return fd < 0 ? fd : this.backing.directories.put(id, fd);
  }

  #fixedFd(id: NodeId): number {
    if (id > 0) {
      return id === ROOT_INODE ? this.backing.upperFd : this.backing.directories.get(id);
    }
    if (id === INDEX_AREA) return this.backing.indexFd;
    if (id === ORPHAN_AREA) return this.backing.orphanFd;
    return id === TEMPORARY_AREA ? this.backing.temporaryFd : -1;
  }

  /** The descriptor of the directory that holds a node's upper object, or a negative errno. */
  holderFd(node: OverlayNode): number {
    return this.directoryFd(node.places[0]!.parent);
  }

  /** statx of a node's upper object into `stat`. */
  statUpper(node: OverlayNode): Result {
    const dirfd = this.holderFd(node);
    if (dirfd < 0) return dirfd;
    return sys.statx(dirfd, node.places[0]!.name, AT_SYMLINK_NOFOLLOW, this.stat);
  }

  /** The name under which a node waits in the orphans area. */
  orphanName(id: NodeId): ByteString {
    return String(id) as ByteString;
  }

  /** The kernel dropped references. What nothing references any more goes, from disk too. */
  forget(id: NodeId, count: number): void {
    if (this.nodes.release(id, count) > 0) return;
    const node = this.nodes.get(id);
    if (node === undefined) {
      this.backing.files.drop(id);
      return;
    }
    if (node.isOrphan) {
      this.backing.purge(this.backing.orphanFd, this.orphanName(id));
      this.nodes.removePlace(node, ORPHAN_AREA, this.orphanName(id));
    }
    this.nodes.dropUnused(id);
    if (this.nodes.get(id) !== undefined) return;
    this.backing.files.drop(id);
    this.backing.directories.drop(id);
  }

  close(): void {
    if (this.writable) {
      this.backing.emptyDirectory(this.backing.orphanFd);
      this.backing.emptyDirectory(this.backing.temporaryFd);
    }
    this.nodes.clear();
    this.backing.close();
  }
}
