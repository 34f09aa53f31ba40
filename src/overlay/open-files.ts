/**
 * Open files of a view in passthrough mode: which opens the kernel serves from a backing file by
 * itself, and which go through its page cache and the daemon.
 *
 * The kernel holds one of its inodes in one state at a time: open through the cache, or open through
 * one backing file. So what is open already decides for the next; of a file that is not open:
 *
 * - Data in the upper directory: passthrough. There is one file below, whatever happens to it.
 * - A read-only view: passthrough from `PASSTHROUGH_FROM` bytes on. Nothing can change.
 * - A lower file of a writable view: through the cache, where a descriptor that was opened before
 *   copy-up reads what is written after it. Programs and libraries are passthrough all the same, so
 *   that all views (and the host) share their pages: the kernel maps them from the lower file, as
 *   kernel overlayfs does, but sends read(2) here (DIRECT_IO), so that reading stays right after
 *   copy-up. Only the open of execve(2) reads by passthrough: no such file can be written to. Whoever
 *   opens without following symlinks walks a tree to read it, and gets the cache, of a program too
 *   (unless that is open by passthrough): loaders follow them, and nobody shares what is only read.
 *
 * When a program is copied up while it is open, the kernel must take a new inode for what follows,
 * since the old one stays bound to the lower file: the next OPEN is answered ESTALE, the kernel looks
 * the name up again, and gets the node in its next *incarnation*.
 */

import {
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  FOPEN_PASSTHROUGH,
} from "../fuse/constants.js";
import type { Kernel, NodeId, OpenResult, Result } from "../fuse/file-system.js";
import { INCARNATIONS } from "../fuse/request.js";
import { sys } from "../system/addon.js";
import {
  O_ACCMODE,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  S_IFDIR,
  S_IFREG,
  S_ISGID,
  S_ISUID,
} from "../system/constants.js";
import { EINVAL, EISDIR, EROFS, ESTALE } from "../system/errno.js";
import { STAT_MODE } from "../system/native.js";
import { TALLIED } from "../system/tally.js";
import { ensureData } from "./copy-up.js";
import { truncateTo } from "./data.js";
import { type OpenFile, type OpenKind, OpenTable } from "./open-table.js";
import type { OverlayTree } from "./overlay-tree.js";
import { ProgramFiles } from "./program-files.js";

/** In a read-only view smaller files are cheaper through the cache, which keeps them. */
const PASSTHROUGH_FROM = 64 << 10;
/** Bit of the open flags that execve(2) sets (FMODE_EXEC of the kernel's linux/fs.h). */
const FMODE_EXEC = 0x20;
/** Backing files that stay registered although nobody has them open: to register costs as much as to open. */
const IDLE_BACKINGS = 512;
/** Lowest bit of a handle: the open is passthrough. Above it: which `OpenFile`. */
const THROUGH = 1;

/** See the file comment. */
export class OpenFiles {
  readonly #tree: OverlayTree;
  readonly #kernel: Kernel;
  readonly #programs: ProgramFiles;
  readonly #table: OpenTable;
  /** By node, the one that further opens belong to; the least recently used first. */
  readonly #byNode = new Map<NodeId, OpenFile>();
  /** May be mapped for writing: the kernel keeps that from us, and a mapping outlives its descriptor. */
  readonly #mapped = new Set<NodeId>();
  #idle = 0;

  /** @param table empty, or as the process left it that served the view before */
  constructor(tree: OverlayTree, kernel: Kernel, table = new OpenTable()) {
    this.#tree = tree;
    this.#kernel = kernel;
    this.#table = table;
    this.#programs = new ProgramFiles(tree);
    for (const file of table.files()) this.#inherit(file);
  }

  #inherit(file: OpenFile): void {
    const known = this.#byNode.get(file.id);
    if (known !== undefined && known.incarnation > file.incarnation) return;
    if (known !== undefined && isIdle(known)) this.#idle--;
    this.#byNode.set(file.id, file);
    if (isIdle(file)) this.#idle++;
    const node = this.#tree.node(file.id);
    if (node === undefined) return;
    node.incarnation = file.incarnation;
    node.isVolatile = file.incarnation > 0 || (file.isUpper && file.through > 0);
  }

  /** OPEN: see `FileSystem.open`. Copies up what is opened for writing. */
  open(
    id: NodeId,
    incarnation: number,
    flags: number,
    killSetId: boolean,
    out: OpenResult,
  ): Result {
    const tree = this.#tree;
    const type = tree.typeOf(id);
    if (type !== S_IFREG) return type === 0 ? -ESTALE : type === S_IFDIR ? -EISDIR : -EINVAL;
    if ((tree.nodes.get(id)?.incarnation ?? 0) !== incarnation) return -ESTALE;
    this.#undo();
    const truncates = (flags & O_TRUNC) !== 0;
    if (truncates || (flags & O_ACCMODE) !== O_RDONLY) {
      if (!tree.writable) return -EROFS;
      const ready = ensureData(tree, id, truncates ? 0 : Number.POSITIVE_INFINITY);
      if (ready < 0) return ready;
    }
    const file = this.#byNode.get(id);
    if (file !== undefined && !file.isUpper && this.#isUpper(id)) {
      if (file.through > 0) return this.#supersede(id);
      // Descriptors in the page cache stay right.
      this.#unregister(file);
      this.#table.setUpper(file);
    }
    if (truncates) {
      const truncated = truncateTo(tree, id, 0, killSetId);
      if (truncated < 0) return truncated;
    }
    this.admit(id, flags, out);
    return 0;
  }

  /**
   * Chooses how an open of a file with its data in place is served, and counts it.
   *
   * @param mode the file's, where that is known
   */
  admit(id: NodeId, flags: number, out: OpenResult, mode?: number): void {
    this.#undo();
    const isUpper = this.#isUpper(id);
    const file = this.#byNode.get(id) ?? this.#add(id, isUpper);
    const wantsThrough =
      file.cached === 0 && (file.through > 0 || this.#wantsThrough(id, isUpper, flags));
    if (wantsThrough && (file.backingId !== 0 || this.#register(file))) {
      this.#count(file, "through", 1);
      this.#tree.backing.tally?.add(TALLIED.passthroughOpens, 1);
      out.backingId = file.backingId;
      out.openFlags = FOPEN_PASSTHROUGH | FOPEN_NOFLUSH;
      if (this.#mustAskUs(id, isUpper, flags, mode)) out.openFlags |= FOPEN_DIRECT_IO;
      if (isUpper && (flags & O_ACCMODE) === O_RDWR) this.#expectUnseenChange(id);
      out.handle = file.serial * 2 + THROUGH;
    } else {
      // Pages from before a passthrough write are out of date.
      out.openFlags = file.cached > 0 || !isUpper ? FOPEN_KEEP_CACHE : 0;
      out.backingId = 0;
      this.#count(file, "cached", 1);
      this.#tree.backing.tally?.add(TALLIED.cachedOpens, 1);
      out.handle = file.serial * 2;
    }
  }

  /** RELEASE: the kernel has left the open behind already. */
  release(id: NodeId, handle: number): void {
    this.#undo();
    const file = this.#table.find(Math.floor(handle / 2));
    if (file === undefined) return;
    this.#count(file, handle % 2 === THROUGH ? "through" : "cached", -1);
    if (file.cached + file.through > 0) return;
    const isCurrent = this.#byNode.get(id) === file;
    // A later incarnation is remembered until the node is forgotten.
    if (!isCurrent || (file.backingId === 0 && file.incarnation === 0)) {
      this.#drop(file);
      return;
    }
    this.#byNode.delete(id);
    this.#byNode.set(id, file);
    if (this.#idle > IDLE_BACKINGS) this.#dropOldestIdle();
  }

  /** The file gets set-id bits, which the disk clears unseen when a passthrough open writes to it. */
  expectLossOfSetId(id: NodeId): void {
    if ((this.#byNode.get(id)?.through ?? 0) > 0) this.#expectUnseenChange(id);
  }

  /** The kernel has forgotten the node. */
  forget(id: NodeId): void {
    this.#mapped.delete(id);
    const file = this.#byNode.get(id);
    if (file !== undefined) this.#drop(file);
  }

  /** Nodes that programs may write to without asking. */
  unheld(): Set<NodeId> {
    const unheld = new Set(this.#mapped);
    for (const { id, isUpper, through } of this.#byNode.values()) {
      if (isUpper && through > 0) unheld.add(id);
    }
    return unheld;
  }

  /** What a process that died has counted for the request at hand, which it did not answer, is counted here. */
  #undo(): void {
    const file = this.#table.countedFor(this.#kernel.request);
    if (file !== undefined) this.#changing(file, () => this.#table.takeBack());
  }

  #count(file: OpenFile, kind: OpenKind, difference: 1 | -1): void {
    const { request } = this.#kernel;
    this.#changing(file, () => this.#table.count(file, kind, difference, request));
  }

  #changing(file: OpenFile, change: () => void): void {
    const was = isIdle(file);
    change();
    this.#idle += Number(isIdle(file)) - Number(was);
  }

  #isUpper(id: NodeId): boolean {
    const node = this.#tree.node(id);
    return node?.hasUpper === true && node.dataInode === 0;
  }

  /**
   * Whether read(2) and write(2) of a passthrough open come here all the same: to read what may be
   * copied up meanwhile, and to write what has set-id bits, since the kernel leaves them to us to
   * clear. (Bits that come later are cleared by the disk, whoever writes: it takes nobody for one
   * that may leave them.)
   */
  #mustAskUs(id: NodeId, isUpper: boolean, flags: number, mode: number | undefined): boolean {
    if (!isUpper) return this.#tree.writable && (flags & FMODE_EXEC) === 0;
    if ((flags & O_ACCMODE) === O_RDONLY) return false;
    return ((mode ?? this.#modeOf(id)) & (S_ISUID | S_ISGID)) !== 0;
  }

  /** A file that cannot be asked about is as good as one with set-id bits. */
  #modeOf(id: NodeId): number {
    const tree = this.#tree;
    return tree.statUpper(tree.node(id)!) < 0 ? S_ISUID : tree.stat[STAT_MODE]!;
  }

  #wantsThrough(id: NodeId, isUpper: boolean, flags: number): boolean {
    const { index, lowerAttributes, writable } = this.#tree;
    if (isUpper) return true;
    if (!writable) return index.attributes(id, lowerAttributes).size >= PASSTHROUGH_FROM;
    return (flags & O_NOFOLLOW) === 0 && this.#programs.has(id);
  }

  #add(id: NodeId, isUpper: boolean): OpenFile {
    const file = this.#table.add(id, this.#tree.node(id)?.incarnation ?? 0, isUpper);
    this.#byNode.set(id, file);
    return file;
  }

  /** What is open stays with the lower file; the next lookup gives the kernel another inode. */
  #supersede(id: NodeId): Result {
    const node = this.#tree.node(id)!;
    this.#kernel.expireAttributes(id, node.incarnation);
    node.incarnation = (node.incarnation + 1) % INCARNATIONS;
    // Changes made through one inode must not stay hidden behind what the kernel keeps of another.
    node.isVolatile = true;
    this.#add(id, true);
    return -ESTALE;
  }

  /** From now on the file's times or mode may change unseen: what the kernel knows of them must not last. */
  #expectUnseenChange(id: NodeId): void {
    this.#mapped.add(id);
    const node = this.#tree.node(id);
    if (node === undefined || node.isVolatile) return;
    node.isVolatile = true;
    this.#kernel.expireAttributes(id, node.incarnation);
  }

  /** Registers the file with the data. @returns whether that could be */
  #register(file: OpenFile): boolean {
    // A file that has just been made is open still.
    const open = file.isUpper ? this.#tree.backing.files.get(file.id) : -1;
    const fd = open < 0 ? this.#locate(file.id) : open;
    if (fd < 0) return false;
    const backingId = this.#kernel.openBacking(fd);
    if (open < 0) sys.close(fd);
    if (backingId <= 0) return false;
    this.#changing(file, () => this.#table.setBacking(file, backingId));
    return true;
  }

  /** An O_PATH descriptor of the file with a node's data (the caller owns it), or a negative errno. */
  #locate(id: NodeId): number {
    const tree = this.#tree;
    const node = tree.node(id);
    if (!node?.hasUpper || node.dataInode !== 0) {
      const inode = node?.hasUpper ? node.dataInode : id;
      return tree.backing.locateLower(tree.index.layer(inode), tree.index.contentPath(inode));
    }
    const dirfd = tree.holderFd(node);
    return dirfd < 0 ? dirfd : sys.openat(dirfd, node.places[0]!.name, O_PATH | O_NOFOLLOW, 0);
  }

  #unregister(file: OpenFile): void {
    const { backingId } = file;
    if (backingId === 0) return;
    this.#changing(file, () => this.#table.setBacking(file, 0));
    this.#kernel.closeBacking(backingId);
  }

  #drop(file: OpenFile): void {
    this.#unregister(file);
    this.#table.remove(file);
    if (this.#byNode.get(file.id) === file) this.#byNode.delete(file.id);
  }

  #dropOldestIdle(): void {
    for (const file of this.#byNode.values()) {
      if (!isIdle(file)) continue;
      if (file.incarnation === 0) this.#drop(file);
      else this.#unregister(file);
      return;
    }
  }
}

/** Registered, though nobody has it open. */
function isIdle(file: OpenFile): boolean {
  return file.backingId !== 0 && file.cached + file.through === 0;
}
