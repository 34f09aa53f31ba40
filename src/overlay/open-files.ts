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
 *   copy-up. Only the open of execve(2) reads by passthrough: no such file can be written to.
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
import { ensureData } from "./copy-up.js";
import { truncateTo } from "./data.js";
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

/** One of the kernel's inodes that is, or was lately, open. */
interface OpenFile {
  readonly serial: number;
  /** Where its data was when it was registered or opened. */
  readonly isUpper: boolean;
  /** How many opens there are of each kind; never of both. */
  cached: number;
  through: number;
  /** 0: not registered. */
  backingId: number;
}

/** See the file comment. */
export class OpenFiles {
  readonly #tree: OverlayTree;
  readonly #kernel: Kernel;
  readonly #programs: ProgramFiles;
  /** By node, the least recently used first. */
  readonly #byNode = new Map<NodeId, OpenFile>();
  readonly #bySerial = new Map<number, OpenFile>();
  #idle = 0;
  #serial = 0;

  constructor(tree: OverlayTree, kernel: Kernel) {
    this.#tree = tree;
    this.#kernel = kernel;
    this.#programs = new ProgramFiles(tree);
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
    const truncates = (flags & O_TRUNC) !== 0;
    if (truncates || (flags & O_ACCMODE) !== O_RDONLY) {
      if (!tree.writable) return -EROFS;
      const ready = ensureData(tree, id, truncates ? 0 : Number.POSITIVE_INFINITY);
      if (ready < 0) return ready;
    }
    const isUpper = this.#isUpper(id);
    let file = this.#byNode.get(id);
    if (file !== undefined && file.isUpper !== isUpper) {
      if (file.through > 0) return this.#supersede(id);
      file = this.#carryOver(id, file, isUpper);
    }
    if (truncates) {
      const truncated = truncateTo(tree, id, 0, killSetId);
      if (truncated < 0) return truncated;
    }
    this.admit(id, flags, out);
    return 0;
  }

  /** Chooses how an open of a file with its data in place is served, and counts it. */
  admit(id: NodeId, flags: number, out: OpenResult): void {
    const isUpper = this.#isUpper(id);
    const file = this.#byNode.get(id) ?? this.#add(id, isUpper);
    if (file.cached + file.through === 0 && file.backingId !== 0) this.#idle--;
    const isThrough = file.cached === 0 && (file.through > 0 || this.#wantsThrough(id, isUpper));
    if (isThrough && file.backingId === 0) file.backingId = Math.max(0, this.#register(id));
    if (isThrough && file.backingId !== 0) {
      file.through++;
      out.backingId = file.backingId;
      out.openFlags = FOPEN_PASSTHROUGH | FOPEN_NOFLUSH;
      if (this.#mustAskUs(id, isUpper, flags)) out.openFlags |= FOPEN_DIRECT_IO;
      if (isUpper && (flags & O_ACCMODE) === O_RDWR) this.#expectMapping(id);
      out.handle = file.serial * 2 + THROUGH;
    } else {
      // Pages from before a passthrough write are out of date.
      out.openFlags = file.cached > 0 || !isUpper ? FOPEN_KEEP_CACHE : 0;
      out.backingId = 0;
      file.cached++;
      out.handle = file.serial * 2;
    }
  }

  /** RELEASE: the kernel has left the open behind already. */
  release(id: NodeId, handle: number): void {
    const file = this.#bySerial.get(Math.floor(handle / 2));
    if (file === undefined) return;
    if (handle % 2 === THROUGH) file.through--;
    else file.cached--;
    if (file.cached + file.through > 0) return;
    if (this.#byNode.get(id) !== file || file.backingId === 0) {
      this.#drop(id, file);
      return;
    }
    this.#byNode.delete(id);
    this.#byNode.set(id, file);
    if (++this.#idle > IDLE_BACKINGS) this.#dropOldestIdle();
  }

  /** The kernel has forgotten the node. */
  forget(id: NodeId): void {
    const file = this.#byNode.get(id);
    if (file === undefined) return;
    if (file.cached + file.through === 0 && file.backingId !== 0) this.#idle--;
    this.#drop(id, file);
  }

  #isUpper(id: NodeId): boolean {
    const node = this.#tree.node(id);
    return node?.hasUpper === true && node.dataInode === 0;
  }

  /**
   * Whether read(2) and write(2) of a passthrough open come here all the same: to read what may be
   * copied up meanwhile, and to write what has set-id bits, since the kernel leaves them to us to
   * clear. (Bits that come later stay, as they do when a mapping is written to.)
   */
  #mustAskUs(id: NodeId, isUpper: boolean, flags: number): boolean {
    if (!isUpper) return this.#tree.writable && (flags & FMODE_EXEC) === 0;
    if ((flags & O_ACCMODE) === O_RDONLY) return false;
    const node = this.#tree.node(id)!;
    const { stat } = this.#tree;
    return this.#tree.statUpper(node) < 0 || (stat[STAT_MODE]! & (S_ISUID | S_ISGID)) !== 0;
  }

  #wantsThrough(id: NodeId, isUpper: boolean): boolean {
    const { index, lowerAttributes, writable } = this.#tree;
    if (isUpper) return true;
    if (!writable) return index.attributes(id, lowerAttributes).size >= PASSTHROUGH_FROM;
    return this.#programs.has(id);
  }

  #add(id: NodeId, isUpper: boolean): OpenFile {
    const serial = ++this.#serial;
    const file: OpenFile = { serial, isUpper, cached: 0, through: 0, backingId: 0 };
    this.#byNode.set(id, file);
    this.#bySerial.set(serial, file);
    return file;
  }

  /** The data has moved to the upper directory; descriptors in the page cache stay right. */
  #carryOver(id: NodeId, old: OpenFile, isUpper: boolean): OpenFile {
    if (old.cached + old.through === 0 && old.backingId !== 0) this.#idle--;
    this.#drop(id, old);
    const file = { ...old, isUpper, backingId: 0 };
    if (file.cached === 0) return this.#add(id, isUpper);
    this.#byNode.set(id, file);
    this.#bySerial.set(file.serial, file);
    return file;
  }

  /** What is open stays with the lower file; the next lookup gives the kernel another inode. */
  #supersede(id: NodeId): Result {
    const node = this.#tree.node(id)!;
    this.#kernel.expireAttributes(id, node.incarnation);
    node.incarnation = (node.incarnation + 1) % INCARNATIONS;
    // Changes made through one inode must not stay hidden behind what the kernel keeps of another.
    node.isVolatile = true;
    this.#byNode.delete(id);
    return -ESTALE;
  }

  /** From now on the file's times may change unseen: what the kernel knows of them must not last. */
  #expectMapping(id: NodeId): void {
    const node = this.#tree.node(id);
    if (node === undefined || node.isVolatile) return;
    node.isVolatile = true;
    this.#kernel.expireAttributes(id, node.incarnation);
  }

  /** Registers the file with the data: a backing ID, or a negative errno. */
  #register(id: NodeId): Result {
    const tree = this.#tree;
    const node = tree.node(id);
    let fd: number;
    if (node?.hasUpper && node.dataInode === 0) {
      const dirfd = tree.holderFd(node);
      fd = dirfd < 0 ? dirfd : sys.openat(dirfd, node.places[0]!.name, O_PATH | O_NOFOLLOW, 0);
    } else {
      const inode = node?.hasUpper ? node.dataInode : id;
      fd = tree.backing.locateLower(tree.index.layer(inode), tree.index.contentPath(inode));
    }
    if (fd < 0) return fd;
    const backingId = this.#kernel.openBacking(fd);
    sys.close(fd);
    return backingId;
  }

  #drop(id: NodeId, file: OpenFile): void {
    if (file.backingId !== 0) this.#kernel.closeBacking(file.backingId);
    this.#bySerial.delete(file.serial);
    if (this.#byNode.get(id) === file) this.#byNode.delete(id);
  }

  #dropOldestIdle(): void {
    for (const [id, file] of this.#byNode) {
      if (file.cached + file.through > 0) continue;
      this.#idle--;
      this.#drop(id, file);
      return;
    }
  }
}
