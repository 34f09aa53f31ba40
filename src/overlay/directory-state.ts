/**
 * The upper part of one directory in memory: which names the upper directory has, which of them are
 * whiteouts, and the order in which READDIR hands them out.
 *
 * READDIR has no handles here, so a cookie must mean the same at any later time, whatever came and
 * went, also to the process that takes a view over in the middle of a listing. Names of the lower
 * directory use their position in the chain index, which never changes, even while an upper object
 * replaces them. Other names are ordered by a hash of the name. A removed name leaves a gap; a reader
 * at a cookie continues behind it.
 */

import type { NodeId } from "../fuse/file-system.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFCHR, S_IFDIR, S_IFMT } from "../system/constants.js";
import type { ChainIndex } from "./chain-index.js";
import { nameCookie } from "./name-cookie.js";

/** One name of an upper directory. */
export interface UpperName {
  readonly name: ByteString;
  /** The lower directory has it too, and its cookie is the position there. */
  readonly isLower: boolean;
  /** Where a listing goes on behind it, if it is not lower; 0 until it was listed. */
  cookie: number;
  isWhiteout: boolean;
  /** S_IFMT bits. */
  type: number;
  /** Node ID once known, else 0. */
  id: NodeId;
  /** False once removed, while the order still holds it. */
  present: boolean;
}

/** What a directory listing says of one upper name. */
export interface UpperListing {
  readonly name: ByteString;
  readonly isWhiteout: boolean;
  /** S_IFMT bits. */
  readonly type: number;
}

/** What a directory hands down to objects that are made in it. */
export interface Heritage {
  /** Its group, when it has set-group-ID. */
  readonly gid: number | undefined;
  /** It has a default ACL. */
  readonly acl: boolean;
}

/** The state of one directory that has an upper part. */
export class DirectoryState {
  /** The index inode whose entries show through, or 0. */
  readonly lower: number;
  /** Subdirectories in the merged view: st_nlink is 2 more. */
  subdirectories: number;
  /** Undefined until asked, and again after a change of the directory's owner, mode or ACLs. */
  heritage: Heritage | undefined;
  readonly #index: ChainIndex;
  readonly #names = new Map<ByteString, UpperName>();
  /** Upper-only names that were listed, by ascending cookie, with gaps. */
  #order: UpperName[] = [];
  #gaps = 0;
  /** Those that came since: creating a name is not to pay for listings that may never be. */
  #fresh: UpperName[] = [];

  /** A directory of which no upper name is known. */
  constructor(index: ChainIndex, lower: number, heritage?: Heritage) {
    this.#index = index;
    this.lower = lower;
    this.heritage = heritage;
    this.subdirectories = lower === 0 ? 0 : index.nlink(lower) - 2;
  }

  /** The upper's word on a name; undefined when it has none. */
  get(name: ByteString): UpperName | undefined {
    return this.#names.get(name);
  }

  /** The lower inode of a name, hidden or not; 0 when there is none. */
  lowerInode(name: ByteString): number {
    return this.lower === 0 ? 0 : this.#index.lookup(this.lower, name);
  }

  /** All upper names, whiteouts included. */
  names(): IterableIterator<UpperName> {
    return this.#names.values();
  }

  /** The upper directory now has an object of this name. */
  setObject(name: ByteString, type: number, id: NodeId): void {
    this.#set(name, false, type, id);
  }

  /** The upper directory now has a whiteout of this name. */
  setWhiteout(name: ByteString): void {
    this.#set(name, true, S_IFCHR, 0);
  }

  /** The upper directory has nothing of this name any more. */
  delete(name: ByteString): void {
    const entry = this.#names.get(name);
    if (entry === undefined) return;
    this.subdirectories -= weight(entry.type);
    this.#names.delete(name);
    this.#leaveOrder(entry);
    this.subdirectories += this.#lowerWeight(this.lowerInode(name));
  }

  /** Makes the state equal to a fresh listing, keeping the cookies of what stayed. */
  replaceAll(listing: Iterable<UpperListing>): void {
    const gone = new Set(this.#names.keys());
    for (const entry of listing) {
      gone.delete(entry.name);
      const known = this.#names.get(entry.name);
      const same = known?.isWhiteout === entry.isWhiteout && known.type === entry.type;
      this.#set(entry.name, entry.isWhiteout, entry.type, same ? known.id : 0);
    }
    for (const name of gone) this.delete(name);
  }

  /** True when nothing is visible in the merged directory. */
  isEmpty(): boolean {
    for (const entry of this.#names.values()) if (!entry.isWhiteout) return false;
    if (this.lower === 0) return true;
    const end = this.#index.endEntry(this.lower);
    for (let entry = this.#index.firstEntry(this.lower); entry < end; entry++) {
      if (!this.#names.has(this.#index.entryName(entry))) return false;
    }
    return true;
  }

  /** Upper-only objects with a cookie above `after`, in order. */
  *upperOnlyAfter(after: number): Generator<UpperName> {
    if (this.#fresh.length > 0) this.#settle();
    for (let at = this.#firstAfter(after); at < this.#order.length; at++) {
      const entry = this.#order[at]!;
      if (entry.present && !entry.isWhiteout) yield entry;
    }
  }

  #set(name: ByteString, isWhiteout: boolean, type: number, id: NodeId): void {
    const known = this.#names.get(name);
    if (known !== undefined) {
      this.subdirectories -= weight(known.type);
      known.isWhiteout = isWhiteout;
      known.type = type;
      known.id = id;
    } else {
      const lower = this.lowerInode(name);
      this.subdirectories -= this.#lowerWeight(lower);
      const isLower = lower !== 0;
      const entry = { name, isLower, cookie: 0, isWhiteout, type, id, present: true };
      this.#names.set(name, entry);
      if (!isLower) this.#fresh.push(entry);
    }
    this.subdirectories += weight(type);
  }

  #lowerWeight(lower: number): number {
    return lower === 0 ? 0 : weight(this.#index.mode(lower) & S_IFMT);
  }

  #leaveOrder(entry: UpperName): void {
    entry.present = false;
    if (entry.isLower) return;
    this.#gaps++;
    if (this.#gaps < 64 || this.#gaps * 2 < this.#order.length + this.#fresh.length) return;
    this.#order = this.#order.filter((kept) => kept.present);
    this.#fresh = this.#fresh.filter((kept) => kept.present);
    this.#gaps = 0;
  }

  /** Takes the fresh names into the order, each with a cookie of its own. */
  #settle(): void {
    const fresh = this.#fresh.filter((entry) => entry.present);
    const order = this.#order.filter((entry) => entry.present);
    this.#fresh = [];
    this.#gaps = 0;
    for (const entry of fresh) entry.cookie = nameCookie(entry.name);
    fresh.sort((a, b) => a.cookie - b.cookie || (a.name < b.name ? -1 : 1));
    const merged: UpperName[] = [];
    let at = 0;
    let free = 0;
    for (const entry of fresh) {
      // Names of one hash follow each other; those that were listed keep what they have.
      let cookie = Math.max(entry.cookie, free);
      for (; at < order.length && order[at]!.cookie <= cookie; at++) {
        if (order[at]!.cookie === cookie) cookie++;
        merged.push(order[at]!);
      }
      entry.cookie = cookie;
      free = cookie + 1;
      merged.push(entry);
    }
    this.#order = merged.concat(order.slice(at));
  }

  /** Binary search: the first position whose cookie is above `after`. */
  #firstAfter(after: number): number {
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#order[middle]!.cookie <= after) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** What a name of this type adds to the number of subdirectories. A whiteout's type is that of a device. */
function weight(type: number): number {
  return type === S_IFDIR ? 1 : 0;
}
