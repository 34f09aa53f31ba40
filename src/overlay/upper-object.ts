/** What an object in an upper directory says of itself: identity, merge target, where its data is. */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, fromBuffer } from "../system/bytes.js";
import { AT_SYMLINK_NOFOLLOW, S_IFDIR, S_IFMT, S_IFREG } from "../system/constants.js";
import { EIO, ENODATA } from "../system/errno.js";
import { STAT_INO, STAT_MODE } from "../system/native.js";
import type { ChainIndex } from "./chain-index.js";
import type { DirectoryState } from "./directory-state.js";
import type { OverlayAttributes } from "./format.js";
import { UPPER_BORN } from "./node-table.js";

/** Filled by `UpperObjectReader.read`. */
export interface UpperObject {
  id: NodeId;
  /** S_IFMT bits. */
  type: number;
  /** Of a directory: the index inode whose entries show through, or 0. */
  lower: number;
  /** Of a metacopy file: the index inode with its data, or 0. */
  dataInode: number;
  /** The index inode that it is a copy of, when that has several names; else 0. */
  hardLinked: number;
}

/** The 8 bytes of the `varve` attribute. */
export function encodeInode(inode: number): Buffer {
  const value = Buffer.alloc(8);
  value.writeBigUInt64LE(BigInt(inode));
  return value;
}

/** Reads upper objects. One per view; `object` is reused. */
export class UpperObjectReader {
  readonly object: UpperObject = { id: 0, type: 0, lower: 0, dataInode: 0, hardLinked: 0 };
  readonly #index: ChainIndex;
  readonly #attributes: OverlayAttributes;
  readonly #stat: Float64Array;

  constructor(index: ChainIndex, attributes: OverlayAttributes, stat: Float64Array) {
    this.#index = index;
    this.#attributes = attributes;
    this.#stat = stat;
  }

  /** Fills `object` from the upper object at (dirfd, name); `parent` is its directory's state. */
  read(dirfd: number, name: ByteString, parent: DirectoryState): Result {
    const result = sys.statx(dirfd, name, AT_SYMLINK_NOFOLLOW, this.#stat);
    if (result < 0) return result;
    const object = this.object;
    object.id = UPPER_BORN + this.#stat[STAT_INO]!;
    object.type = this.#stat[STAT_MODE]! & S_IFMT;
    object.lower = 0;
    object.dataInode = 0;
    object.hardLinked = 0;
    if (object.type === S_IFDIR) return this.#readDirectory(dirfd, name, parent);
    const list = sys.listxattrat(dirfd, name);
    // Files made in the view have no attribute of ours, mostly none at all: one call decides.
    if (typeof list === "number" || list.length === 0) return 0;
    if (!fromBuffer(list).includes(this.#attributes.prefix)) return 0;
    return this.#readFile(dirfd, name, parent);
  }

  #readDirectory(dirfd: number, name: ByteString, parent: DirectoryState): Result {
    const object = this.object;
    const origin = this.#index.isLive ? 0 : this.readOrigin(dirfd, name, S_IFDIR);
    const opaque = sys.getxattrat(dirfd, name, this.#attributes.opaque);
    if (typeof opaque === "number" || fromBuffer(opaque) !== "y") {
      object.lower = origin || this.#mergeTarget(dirfd, name, parent, S_IFDIR);
    }
    const identity = origin || object.lower;
    if (identity !== 0) object.id = identity;
    return 0;
  }

  #readFile(dirfd: number, name: ByteString, parent: DirectoryState): Result {
    const object = this.object;
    const target = this.#index.isLive ? this.#mergeTarget(dirfd, name, parent, object.type) : 0;
    let origin = this.readOrigin(dirfd, name, object.type);
    // A number on disk is as good as the lower directories are still the same: their paths decide.
    if (this.#index.isLive && origin !== target) origin = 0;
    if (origin !== 0) {
      object.id = origin;
      if (this.#index.nlink(origin) > 1) object.hardLinked = origin;
    }
    if (object.type !== S_IFREG || !this.hasMetacopy(dirfd, name)) return 0;
    object.dataInode = origin || this.#mergeTarget(dirfd, name, parent, S_IFREG);
    return object.dataInode === 0 ? -EIO : 0;
  }

  /** True when the file's data is still the lower one's. */
  hasMetacopy(dirfd: number, name: ByteString): boolean {
    return sys.getxattrat(dirfd, name, this.#attributes.metacopy) !== -ENODATA;
  }

  /** The index inode in the `varve` attribute, when it is one of the given type; else 0. */
  readOrigin(dirfd: number, name: ByteString, type: number): number {
    const value = sys.getxattrat(dirfd, name, this.#attributes.varve);
    if (typeof value === "number" || value.length !== 8) return 0;
    const inode = Number(value.readBigUInt64LE());
    return this.#index.has(inode) && (this.#index.mode(inode) & S_IFMT) === type ? inode : 0;
  }

  /** The lower inode at the absolute path in the `redirect` attribute; 0 when there is none. */
  redirected(dirfd: number, name: ByteString): number {
    const redirect = sys.getxattrat(dirfd, name, this.#attributes.redirect);
    if (typeof redirect === "number" || redirect[0] !== 0x2f) return 0;
    return this.#index.resolve(fromBuffer(redirect, 1));
  }

  /** The lower object that an upper one without our attribute continues: by redirect, or by name. */
  #mergeTarget(dirfd: number, name: ByteString, parent: DirectoryState, type: number): number {
    const redirect = sys.getxattrat(dirfd, name, this.#attributes.redirect);
    let inode: number;
    if (typeof redirect === "number") inode = parent.lowerInode(name);
    else if (redirect[0] === 0x2f) inode = this.#index.resolve(fromBuffer(redirect, 1));
    else inode = parent.lowerInode(fromBuffer(redirect));
    return inode !== 0 && (this.#index.mode(inode) & S_IFMT) === type ? inode : 0;
  }
}
