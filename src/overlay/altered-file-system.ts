/**
 * A view that shows other owners or link counts than the disk has, or that refuses ACLs: what
 * fuse-overlayfs's options of these names do. Everything is translated at the face of the file
 * system, so that its parts below know the disk's owners only.
 */

import {
  type Attributes,
  type Caller,
  type DirectorySink,
  type Entry,
  FATTR_GID,
  FATTR_UID,
  type NodeId,
  type OpenResult,
  type Result,
  type SetAttributes,
} from "../fuse/file-system.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { EINVAL, EOPNOTSUPP, EOVERFLOW } from "../system/errno.js";
import { OverlayFileSystem, type OverlayOptions } from "./overlay-file-system.js";
import { type IdTranslator, translateAcl, translateCapabilities } from "./shown-xattrs.js";

/** Translates user or group numbers between the disk and the mount. */
export interface IdTranslation {
  /** What a number on the disk is shown as. */
  toShown(id: number): number;
  /** The number on the disk for one of the mount; -1 when nothing on the disk is shown as it. */
  toDisk(id: number): number;
}

/** What is shown differently. */
export interface Alterations {
  readonly uids: IdTranslation;
  readonly gids: IdTranslation;
  /** Directories show one link, and nothing is counted. */
  readonly staticLinkCount: boolean;
  readonly acl: boolean;
  /** False: fsync and syncfs do nothing. */
  readonly fsync: boolean;
  /** Users and groups without a number on the disk make no files (EOVERFLOW); else "nobody" owns what they make. */
  readonly refusesStrangers?: boolean;
}

/** "nobody": whom things belong to whose owner has no counterpart, as in user namespaces. */
export const OVERFLOW_ID = 65534;
const ACL_PREFIX = "system.posix_acl_";
const CAPABILITIES = "security.capability";

/** See the file comment. */
export class AlteredFileSystem extends OverlayFileSystem {
  readonly #shown: Alterations;
  readonly #sink: ShownSink;
  readonly #caller: Caller = { uid: 0, gid: 0, pid: 0 };
  readonly #toShown: IdTranslator;
  readonly #toDisk: IdTranslator;

  constructor(options: OverlayOptions, shown: Alterations) {
    super(options);
    this.#shown = shown;
    const { gids, uids } = shown;
    this.#toShown = { uid: (id) => uids.toShown(id), gid: (id) => gids.toShown(id) };
    this.#toDisk = { uid: (id) => uids.toDisk(id), gid: (id) => gids.toDisk(id) };
    this.#sink = new ShownSink((attributes) => this.#show(attributes));
  }

  override lookup(parent: NodeId, name: ByteString, out: Entry): Result {
    return this.#showing(super.lookup(parent, name, out), out.attributes);
  }

  override getattr(node: NodeId, out: Attributes): Result {
    return this.#showing(super.getattr(node, out), out);
  }

  override setattr(caller: Caller, node: NodeId, set: SetAttributes, out: Attributes): Result {
    const { gids, uids } = this.#shown;
    if ((set.valid & FATTR_UID) !== 0) set.uid = uids.toDisk(set.uid);
    if ((set.valid & FATTR_GID) !== 0) set.gid = gids.toDisk(set.gid);
    const isUnknown =
      ((set.valid & FATTR_UID) !== 0 && set.uid < 0) ||
      ((set.valid & FATTR_GID) !== 0 && set.gid < 0);
    // As the kernel answers for an ID that a user namespace does not map.
    if (isUnknown) return -EINVAL;
    return this.#showing(super.setattr(this.#onDisk(caller), node, set, out), out);
  }

  override symlink(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    target: ByteString,
    out: Entry,
  ): Result {
    if (this.#isStranger(caller)) return -EOVERFLOW;
    const result = super.symlink(this.#onDisk(caller), parent, name, target, out);
    return this.#showing(result, out.attributes);
  }

  override mknod(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: Entry,
  ): Result {
    if (this.#isStranger(caller)) return -EOVERFLOW;
    const result = super.mknod(this.#onDisk(caller), parent, name, mode, rdev, umask, out);
    return this.#showing(result, out.attributes);
  }

  override create(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result {
    if (this.#isStranger(caller)) return -EOVERFLOW;
    const onDisk = this.#onDisk(caller);
    const result = super.create(onDisk, parent, name, mode, flags, umask, out, open);
    return this.#showing(result, out.attributes);
  }

  override mkdir(
    caller: Caller,
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: Entry,
  ): Result {
    if (this.#isStranger(caller)) return -EOVERFLOW;
    const result = super.mkdir(this.#onDisk(caller), parent, name, mode, umask, out);
    return this.#showing(result, out.attributes);
  }

  override link(node: NodeId, newParent: NodeId, newName: ByteString, out: Entry): Result {
    return this.#showing(super.link(node, newParent, newName, out), out.attributes);
  }

  override tmpfile(
    caller: Caller,
    parent: NodeId,
    mode: number,
    flags: number,
    umask: number,
    out: Entry,
    open: OpenResult,
  ): Result {
    if (this.#isStranger(caller)) return -EOVERFLOW;
    const result = super.tmpfile(this.#onDisk(caller), parent, mode, flags, umask, out, open);
    return this.#showing(result, out.attributes);
  }

  override readdir(
    node: NodeId,
    handle: number,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
  ): Result {
    this.#sink.target = sink;
    return super.readdir(node, handle, offset, plus, this.#sink);
  }

  override getxattr(node: NodeId, name: ByteString): Buffer | Result {
    if (this.#isRefused(name)) return -EOPNOTSUPP;
    const value = super.getxattr(node, name);
    return typeof value === "number" ? value : translate(name, value, this.#toShown);
  }

  override setxattr(
    caller: Caller,
    node: NodeId,
    name: ByteString,
    value: Buffer,
    flags: number,
    killSgid: boolean,
  ): Result {
    if (this.#isRefused(name)) return -EOPNOTSUPP;
    const onDisk = translate(name, value, this.#toDisk);
    if (typeof onDisk === "number") return onDisk;
    return super.setxattr(caller, node, name, onDisk, flags, killSgid);
  }

  override removexattr(caller: Caller, node: NodeId, name: ByteString): Result {
    return this.#isRefused(name) ? -EOPNOTSUPP : super.removexattr(caller, node, name);
  }

  override fsync(node: NodeId, dataOnly: boolean): Result | Promise<Result> {
    return this.#shown.fsync ? super.fsync(node, dataOnly) : 0;
  }

  override fsyncdir(node: NodeId, dataOnly: boolean): Result | Promise<Result> {
    return this.#shown.fsync ? super.fsyncdir(node, dataOnly) : 0;
  }

  override syncfs(): Result | Promise<Result> {
    return this.#shown.fsync ? super.syncfs() : 0;
  }

  /** True for a caller who cannot own a file here. */
  #isStranger({ uid, gid }: Caller): boolean {
    const { gids, refusesStrangers, uids } = this.#shown;
    return refusesStrangers === true && (uids.toDisk(uid) < 0 || gids.toDisk(gid) < 0);
  }

  #isRefused(name: ByteString): boolean {
    return !this.#shown.acl && name.startsWith(ACL_PREFIX);
  }

  /** The caller as the disk is to know it; the same object each time. */
  #onDisk(caller: Caller): Caller {
    const { gids, uids } = this.#shown;
    const uid = uids.toDisk(caller.uid);
    const gid = gids.toDisk(caller.gid);
    this.#caller.uid = uid < 0 ? OVERFLOW_ID : uid;
    this.#caller.gid = gid < 0 ? OVERFLOW_ID : gid;
    this.#caller.pid = caller.pid;
    return this.#caller;
  }

  #showing(result: Result, attributes: Attributes): Result {
    if (result >= 0) this.#show(attributes);
    return result;
  }

  #show(attributes: Attributes): void {
    const { gids, staticLinkCount, uids } = this.#shown;
    attributes.uid = uids.toShown(attributes.uid);
    attributes.gid = gids.toShown(attributes.gid);
    if (staticLinkCount && (attributes.mode & S_IFMT) === S_IFDIR) attributes.nlink = 1;
  }
}

function translate(name: ByteString, value: Buffer, to: IdTranslator): Buffer | number {
  if (name.startsWith(ACL_PREFIX)) return translateAcl(value, to);
  return name === CAPABILITIES ? translateCapabilities(value, to) : value;
}

/** Hands entries on with altered attributes. */
class ShownSink implements DirectorySink {
  target!: DirectorySink;
  readonly #show: (attributes: Attributes) => void;

  constructor(show: (attributes: Attributes) => void) {
    this.#show = show;
  }

  add(name: ByteString, ino: number, mode: number, cookie: number): boolean {
    return this.target.add(name, ino, mode, cookie);
  }

  addPlus(name: ByteString, cookie: number, entry: Entry): boolean {
    if (entry.node !== 0) this.#show(entry.attributes);
    return this.target.addPlus(name, cookie, entry);
  }
}
