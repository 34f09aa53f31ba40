/** Reading a chain index: one file read into memory, and every question answered from it in place. */

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import {
  type ChainIndex,
  type EntryLocation,
  type InodeAttributes,
  ROOT_INODE,
  resolvePath,
  type Xattr,
} from "../overlay/chain-index.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { CorruptDataError, NotFoundError } from "../system/errors.js";
import { decodeIndex, FLAG_CONTENT_ABSENT, type IndexArrays } from "./index-format.js";
import { IndexTables } from "./index-tables.js";

const NO_XATTRS: readonly Xattr[] = Object.freeze([]);

/** A chain index over arrays in memory. */
export class FlatIndex implements ChainIndex {
  readonly isLive = false;
  readonly inodeCount: number;
  readonly layers: readonly string[];
  /** The arrays themselves, for the builder that makes the next chain's index from them. */
  readonly arrays: IndexArrays;
  readonly #names: Buffer;
  readonly #texts: Buffer;
  readonly #xattrHeap: Buffer;
  readonly #xattrSets = new Map<number, readonly Xattr[]>();

  constructor(arrays: IndexArrays, inodeCount: number) {
    this.arrays = arrays;
    this.inodeCount = inodeCount;
    this.#names = asBuffer(arrays.names);
    this.#texts = asBuffer(arrays.texts);
    this.#xattrHeap = asBuffer(arrays.xattrs);
    this.layers = asBuffer(arrays.layers).toString("utf8").split("\n").slice(0, -1);
  }

  has(inode: number): boolean {
    return inode >= ROOT_INODE && inode <= this.inodeCount;
  }

  lookup(dir: number, name: ByteString): number {
    const entry = this.findEntry(dir, name);
    return entry < 0 ? 0 : this.arrays.entryInode[entry]!;
  }

  /** The entry of `name` in `dir`, or -1. */
  findEntry(dir: number, name: ByteString): number {
    const { firstEntry, nameStart, names } = this.arrays;
    if (dir < 1 || dir > this.inodeCount) return -1;
    let low = firstEntry[dir]!;
    let high = firstEntry[dir + 1]! - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const order = compareName(names, nameStart[middle]!, nameStart[middle + 1]!, name);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  firstEntry(dir: number): number {
    return this.arrays.firstEntry[dir]!;
  }

  endEntry(dir: number): number {
    return this.arrays.firstEntry[dir + 1]!;
  }

  entryName(entry: number): ByteString {
    const { nameStart } = this.arrays;
    return this.#names.toString("latin1", nameStart[entry]!, nameStart[entry + 1]!) as ByteString;
  }

  entryInode(entry: number): number {
    return this.arrays.entryInode[entry]!;
  }

  mode(inode: number): number {
    return this.arrays.mode[inode]!;
  }

  nlink(inode: number): number {
    return this.arrays.nlink[inode]!;
  }

  /** True for directories; false for inode 0. */
  isDirectory(inode: number): boolean {
    return (this.arrays.mode[inode]! & S_IFMT) === S_IFDIR;
  }

  attributes(inode: number, out: InodeAttributes): InodeAttributes {
    const arrays = this.arrays;
    out.mode = arrays.mode[inode]!;
    out.nlink = arrays.nlink[inode]!;
    out.uid = arrays.uid[inode]!;
    out.gid = arrays.gid[inode]!;
    out.rdev = arrays.rdev[inode]!;
    out.size = arrays.size[inode]!;
    out.blocks = arrays.blocks[inode]!;
    out.atimeSec = arrays.atimeSec[inode]!;
    out.atimeNsec = arrays.atimeNsec[inode]!;
    out.mtimeSec = arrays.mtimeSec[inode]!;
    out.mtimeNsec = arrays.mtimeNsec[inode]!;
    out.ctimeSec = arrays.ctimeSec[inode]!;
    out.ctimeNsec = arrays.ctimeNsec[inode]!;
    return out;
  }

  xattrs(inode: number): readonly Xattr[] {
    const set = this.arrays.xattrSet[inode]!;
    if (set === 0) return NO_XATTRS;
    let xattrs = this.#xattrSets.get(set);
    if (xattrs === undefined) {
      xattrs = Object.freeze(this.#readXattrSet(set));
      this.#xattrSets.set(set, xattrs);
    }
    return xattrs;
  }

  #readXattrSet(set: number): Xattr[] {
    const heap = this.#xattrHeap;
    const end = this.arrays.xattrStart[set]!;
    const xattrs: Xattr[] = [];
    let position = this.arrays.xattrStart[set - 1]!;
    while (position + 6 <= end) {
      const nameLength = heap.readUInt16LE(position);
      const valueLength = heap.readUInt32LE(position + 2);
      const valueStart = position + 6 + nameLength;
      if (valueStart + valueLength > end)
        throw new CorruptDataError(`read chain index: xattr set ${set} leads outside its heap`);
      xattrs.push({
        name: heap.toString("latin1", position + 6, valueStart) as ByteString,
        value: Buffer.from(heap.subarray(valueStart, valueStart + valueLength)),
      });
      position = valueStart + valueLength;
    }
    return xattrs;
  }

  symlinkTarget(inode: number): ByteString {
    return this.#text(this.arrays.target[inode]!);
  }

  parent(inode: number): number {
    return this.arrays.parent[inode]!;
  }

  name(inode: number): ByteString {
    return inode === ROOT_INODE
      ? ("" as ByteString)
      : this.entryName(this.arrays.firstName[inode]!);
  }

  names(inode: number): readonly EntryLocation[] {
    const first = { parent: this.parent(inode), name: this.name(inode) };
    const { linkInode, linkStart, linkEntry } = this.arrays;
    const position = findSorted(linkInode, inode);
    if (position < 0) return [first];
    const names: EntryLocation[] = [first];
    for (let link = linkStart[position]!; link < linkStart[position + 1]!; link += 1) {
      const entry = linkEntry[link]!;
      names.push({ parent: this.directoryOf(entry), name: this.entryName(entry) });
    }
    return names;
  }

  /** The directory that holds an entry. */
  directoryOf(entry: number): number {
    // The last directory whose first entry is not after this one; empty ones share their start.
    const { firstEntry } = this.arrays;
    let low = 1;
    let high = this.inodeCount;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (firstEntry[middle]! <= entry) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  layer(inode: number): number {
    return this.arrays.layer[inode]!;
  }

  contentPath(inode: number): ByteString {
    const content = this.arrays.content[inode]!;
    return content === 0 ? this.path(inode) : this.#text(content);
  }

  /** True when the inode's data must be fetched before it can be read. */
  isContentAbsent(inode: number): boolean {
    return (this.arrays.flags[inode]! & FLAG_CONTENT_ABSENT) !== 0;
  }

  path(inode: number): ByteString {
    let path = "";
    for (let at = inode; at > ROOT_INODE; at = this.arrays.parent[at]!) {
      const name = this.entryName(this.arrays.firstName[at]!);
      path = path === "" ? name : `${name}/${path}`;
    }
    return path as ByteString;
  }

  resolve(path: ByteString): number {
    return resolvePath(this, path);
  }

  #text(ref: number): ByteString {
    if (ref === 0) return "" as ByteString;
    const { textStart } = this.arrays;
    return this.#texts.toString("latin1", textStart[ref - 1]!, textStart[ref]!) as ByteString;
  }
}

/** Orders the name at `[start, end)` of the heap against `name`: negative when it comes first. */
function compareName(heap: Uint8Array, start: number, end: number, name: string): number {
  const length = Math.min(end - start, name.length);
  for (let position = 0; position < length; position += 1) {
    const difference = heap[start + position]! - name.charCodeAt(position);
    if (difference !== 0) return difference;
  }
  return end - start - name.length;
}

function findSorted(values: Uint32Array, wanted: number): number {
  let low = 0;
  let high = values.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    if (values[middle] === wanted) return middle;
    if (values[middle]! < wanted) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

function asBuffer(array: Uint8Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

/**
 * Opens a chain index; the file is read once and not needed afterwards.
 *
 * @throws NotFoundError there is no such file
 * @throws CorruptDataError it is not an intact index of this version
 */
export function openIndex(path: string): FlatIndex {
  const { arrays, counts } = decodeIndex(readWhole(path), path);
  const index = new FlatIndex(arrays, counts.inodes);
  if (index.layers.length !== counts.layers)
    throw new CorruptDataError(`open chain index ${path}: its list of layers is incomplete`);
  if (!index.isDirectory(ROOT_INODE))
    throw new CorruptDataError(`open chain index ${path}: its root is no directory`);
  return index;
}

function readWhole(path: string): ArrayBuffer {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT")
      throw new NotFoundError(`open chain index ${path}: no such file`, { cause });
    throw cause;
  }
  try {
    const bytes = new Uint8Array(new ArrayBuffer(fstatSync(fd).size));
    let done = 0;
    while (done < bytes.length) {
      const got = readSync(fd, bytes, done, Math.min(bytes.length - done, 1 << 30), done);
      if (got === 0) throw new CorruptDataError(`open chain index ${path}: it shrank while read`);
      done += got;
    }
    return bytes.buffer;
  } finally {
    closeSync(fd);
  }
}

let empty: FlatIndex | undefined;

/** The index of a chain without layers: an empty root directory, owned by root, mode 0755. */
export function emptyIndex(): FlatIndex {
  if (empty === undefined) {
    const tables = new IndexTables([]);
    const root = tables.addInode();
    tables.mode[root] = S_IFDIR | 0o755;
    tables.nlink[root] = 2;
    tables.parent[root] = root;
    tables.beginDirectory(root);
    empty = new FlatIndex(tables.finish().arrays, 1);
  }
  return empty;
}
