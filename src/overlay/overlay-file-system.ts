/**
 * The FUSE face of a view. Without passthrough it knows no handles: OPEN and CREATE are answered
 * ENOSYS, and all but them works the same.
 */

import {
  type Attributes,
  type Caller,
  type DirectorySink,
  type Entry,
  FATTR_MODE,
  type FileSystem,
  type FileSystemStatistics,
  type Kernel,
  type NodeId,
  type OpenResult,
  type Result,
  type SetAttributes,
  type Stage,
} from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  NAME_MAX,
  O_NOFOLLOW,
  O_RDONLY,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
} from "../system/constants.js";
import { EINVAL, ENAMETOOLONG, ENOSYS, EROFS, ESTALE } from "../system/errno.js";
import { getAttributes, setAttributes } from "./attributes.js";
import type { BackingOptions } from "./backing.js";
import type { ChainIndex } from "./chain-index.js";
import { create, createUnnamed, link } from "./create.js";
import { copyFileRange, fallocate, read, seek, sync, syncAll, write } from "./data.js";
import { OpenFiles } from "./open-files.js";
import type { OpenTable } from "./open-table.js";
import { OverlayTree } from "./overlay-tree.js";
import { DirectoryReader } from "./readdir.js";
import { recoverNodes } from "./recover.js";
import { rmdir, unlink } from "./remove.js";
import { rename } from "./rename.js";
import { prepareRoot } from "./root.js";
import { getXattr, listXattrs, removeXattr, setXattr } from "./xattr.js";

const NO_TARGET = "" as ByteString;

/**
 * Where a view's parts lie, and what may be written in its upper directory. `layerDirs` is parallel
 * to `index.layers`; `upperDir` and `workDir` lie on one file system; `privileged` says whether this
 * process may use trusted.* attributes.
 */
export interface OverlayOptions extends BackingOptions {
  readonly index: ChainIndex;
  /** The kernel knows nodes of a mount whose process died; see `recoverNodes`. */
  readonly inherited?: boolean;
  /** Notes of open files for who takes the mount over, made when there are any; absent: none. */
  readonly openTable?: () => OpenTable;
}

/**
 * The union of a chain index and an upper directory.
 *
 * Durability: a change is on the disk's page cache when the call returns, and at any kill of the
 * process the upper directory is as before or as after each call; `fsync` and `syncfs` bring it to disk.
 *
 * @throws SyscallError (constructor) the upper or work directory cannot be opened or prepared
 * @throws InvalidArgumentError (constructor) they are on different file systems
 */
export class OverlayFileSystem implements FileSystem {
  readonly #tree: OverlayTree;
  readonly #reader: DirectoryReader;
  readonly #openTable: OverlayOptions["openTable"];
  #files: OpenFiles | undefined;

  constructor(options: OverlayOptions) {
    this.#openTable = options.openTable;
    this.#tree = new OverlayTree(options);
    prepareRoot(this.#tree);
    if (options.inherited === true) recoverNodes(this.#tree);
    this.#reader = new DirectoryReader(this.#tree);
  }

  begin(kernel: Kernel): void {
    this.#tree.kernel = kernel;
    if (kernel.hasPassthrough) this.#files = new OpenFiles(this.#tree, kernel, this.#openTable?.());
  }

  ready(): Promise<void> {
    return this.#tree.copies.ready;
  }

  lookup(parent: NodeId, name: ByteString, out: Entry): Result {
    if (name.length > NAME_MAX) return -ENAMETOOLONG;
    const tree = this.#tree;
    tree.described = 0;
    const id = tree.find(parent, name);
    if (id < 0) return id;
    out.node = id;
    out.generation = 0;
    if (id === 0) return 0;
    const result = getAttributes(tree, id, out.attributes, tree.described === id);
    if (result < 0) tree.nodes.dropUnused(id);
    else tree.nodes.retain(id);
    return result;
  }

  forget(node: NodeId, count: number): void {
    this.#tree.forget(node, count);
    if (this.#files !== undefined && !this.#tree.isKnown(node)) this.#files.forget(node);
  }

  getattr(node: NodeId, out: Attributes): Result {
    return getAttributes(this.#tree, node, out);
  }

  setattr(_caller: Caller, node: NodeId, set: SetAttributes, out: Attributes): Result {
    const givesSetId = (set.valid & FATTR_MODE) !== 0 && (set.mode & (S_ISUID | S_ISGID)) !== 0;
    if (givesSetId) this.#files?.expectLossOfSetId(node);
    return setAttributes(this.#tree, node, set, out);
  }

  readlink(id: NodeId): ByteString | Result {
    const tree = this.#tree;
    const type = tree.typeOf(id);
    if (type !== S_IFLNK) return type === 0 ? -ESTALE : -EINVAL;
    const node = tree.node(id);
    if (!node?.hasUpper) return tree.index.symlinkTarget(id);
    const dirfd = tree.holderFd(node);
    return dirfd < 0 ? dirfd : sys.readlinkat(dirfd, node.places[0]!.name);
  }

  symlink(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    target: ByteString,
    out: Entry,
  ): Result {
    return create(this.#tree, caller, parent, name, S_IFLNK | 0o777, 0, target, 0, out);
  }

  mknod(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: Entry,
  ): Result {
    return create(this.#tree, caller, parent, name, mode, rdev, NO_TARGET, umask, out);
  }

  mkdir(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: Entry,
  ): Result {
    const typed = S_IFDIR | (mode & ~S_IFMT);
    return create(this.#tree, caller, parent, name, typed, 0, NO_TARGET, umask, out);
  }

  open(
    node: NodeId,
    incarnation: number,
    flags: number,
    killSetId: boolean,
    out: OpenResult,
  ): Result {
    if (this.#files === undefined) return -ENOSYS;
    return this.#files.open(node, incarnation, flags, killSetId, out);
  }

  create(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result {
    if (this.#files === undefined) return -ENOSYS;
    const typed = S_IFREG | (mode & ~S_IFMT);
    const made = create(this.#tree, caller, parent, name, typed, 0, NO_TARGET, umask, out);
    return made < 0 ? made : this.#openNew(flags, out, open);
  }

  /** Opens a file that has just been made, and whose entry is `out`. */
  #openNew(flags: number, out: Entry, open: OpenResult): Result {
    open.handle = 0;
    open.openFlags = 0;
    open.backingId = 0;
    this.#files?.admit(out.node, flags, open, out.attributes.mode);
    out.attributes.isVolatile = this.#tree.node(out.node)?.isVolatile === true;
    return 0;
  }

  release(node: NodeId, handle: number): void {
    this.#files?.release(node, handle);
  }

  unlink(parent: NodeId, name: ByteString): Result {
    return unlink(this.#tree, parent, name);
  }

  rmdir(parent: NodeId, name: ByteString): Result {
    return rmdir(this.#tree, parent, name);
  }

  rename(
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Result {
    return rename(this.#tree, parent, name, newParent, newName, flags);
  }

  link(node: NodeId, newParent: NodeId, newName: ByteString, out: Entry): Result {
    return link(this.#tree, node, newParent, newName, out);
  }

  read(node: NodeId, _handle: number, offset: number, target: Buffer, stage?: Stage): Result {
    return read(this.#tree, node, offset, target, stage);
  }

  write(node: NodeId, _handle: number, offset: number, data: Buffer, flags: number): Result {
    return write(this.#tree, node, offset, data, flags);
  }

  statfs(out: FileSystemStatistics): Result {
    const { backing, index } = this.#tree;
    const fd = backing.writable ? backing.upperFd : backing.layerFd(index.layers.length - 1);
    const figures = fd < 0 ? fd : sys.fstatfs(fd);
    // A view without layers and without upper: nothing is stored anywhere.
    const known = typeof figures === "number" ? [0, 0, 0, 0, 0, 4096, NAME_MAX, 4096] : figures;
    out.blocks = known[0]!;
    out.bfree = known[1]!;
    out.bavail = known[2]!;
    out.files = known[3]!;
    out.ffree = known[4]!;
    out.bsize = known[5]!;
    out.namelen = NAME_MAX;
    out.frsize = known[7]!;
    return 0;
  }

  fsync(node: NodeId, dataOnly: boolean): Result | Promise<Result> {
    return sync(this.#tree, node, dataOnly);
  }

  fsyncdir(node: NodeId, dataOnly: boolean): Result | Promise<Result> {
    return sync(this.#tree, node, dataOnly);
  }

  syncfs(): Result | Promise<Result> {
    return syncAll(this.#tree);
  }

  readdir(
    node: NodeId,
    _handle: number,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
  ): Result {
    return this.#reader.read(node, offset, plus, sink);
  }

  setxattr(
    _caller: Caller,
    node: NodeId,
    name: ByteString,
    value: Buffer,
    flags: number,
    killSgid: boolean,
  ): Result {
    return setXattr(this.#tree, node, name, value, flags, killSgid);
  }

  getxattr(node: NodeId, name: ByteString): Buffer | Result {
    return getXattr(this.#tree, node, name);
  }

  listxattr(node: NodeId): Buffer | Result {
    return listXattrs(this.#tree, node);
  }

  removexattr(_caller: Caller, node: NodeId, name: ByteString): Result {
    return removeXattr(this.#tree, node, name);
  }

  fallocate(
    node: NodeId,
    _handle: number,
    mode: number,
    offset: number,
    length: number,
    killSetId: boolean,
  ): Result {
    return fallocate(this.#tree, node, mode, offset, length, killSetId);
  }

  lseek(node: NodeId, _handle: number, offset: number, whence: number): Result {
    return seek(this.#tree, node, offset, whence);
  }

  copyFileRange(
    node: NodeId,
    offset: number,
    toNode: NodeId,
    toOffset: number,
    length: number,
    killSetId: boolean,
  ): Result {
    return copyFileRange(this.#tree, node, offset, toNode, toOffset, length, killSetId);
  }

  tmpfile(
    caller: Caller,
    parent: NodeId,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result {
    if (!this.#tree.writable) return -EROFS;
    const made = createUnnamed(this.#tree, caller, parent, mode, umask, out);
    return made < 0 ? made : this.#openNew(flags, out, open);
  }

  /**
   * Opens for reading, as the caller's own, what programs can write to without a request (in
   * passthrough mode). What has no name in the view is left out.
   */
  openUnheld(): number[] {
    const tree = this.#tree;
    const descriptors: number[] = [];
    for (const id of this.#files?.unheld() ?? []) {
      const node = tree.node(id);
      if (node === undefined || node.removed || !node.hasUpper || node.isOrphan) continue;
      const dirfd = tree.holderFd(node);
      const { name } = node.places[0]!;
      const fd = dirfd < 0 ? dirfd : sys.openat(dirfd, name, O_RDONLY | O_NOFOLLOW, 0);
      if (fd >= 0) descriptors.push(fd);
    }
    return descriptors;
  }

  destroy(): void {
    this.#tree.close();
  }
}
