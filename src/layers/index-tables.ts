/** The growing arrays of an index under construction. */

import { ROOT_INODE, type Xattr } from "../overlay/chain-index.js";
import type { ByteString } from "../system/bytes.js";
import { ResourceExhaustedError } from "../system/errors.js";
import type { IndexArrays, IndexCounts } from "./index-format.js";

const FIRST_CAPACITY = 1024;
const MAX_HEAP = 0xffff_ffff;

type Doubles = Float64Array<ArrayBuffer>;
type Words = Uint32Array<ArrayBuffer>;
type Bytes = Uint8Array<ArrayBuffer>;

function grown<T extends Doubles | Words | Bytes>(array: T, length: number): T {
  const larger = new (array.constructor as new (length: number) => T)(length);
  larger.set(array);
  return larger;
}

/** A byte heap with the start of each of its items. */
class Heap {
  bytes: Bytes;
  starts: Words;
  count = 0;
  length = 0;

  constructor(items: number, bytes: number) {
    this.bytes = new Uint8Array(bytes);
    this.starts = new Uint32Array(items);
  }

  /** Makes room for an item of `length` bytes and returns where it begins; the caller fills it. */
  add(length: number): number {
    const start = this.length;
    const end = start + length;
    if (end > MAX_HEAP)
      throw new ResourceExhaustedError("build chain index: more than 4 GiB of names");
    if (end > this.bytes.length)
      this.bytes = grown(this.bytes, Math.min(MAX_HEAP, Math.max(end, this.bytes.length * 2)));
    if (this.count + 2 > this.starts.length)
      this.starts = grown(this.starts, this.starts.length * 2);
    this.count += 1;
    this.length = end;
    this.starts[this.count] = end;
    return start;
  }

  addText(text: string): void {
    const start = this.add(text.length);
    for (let position = 0; position < text.length; position += 1)
      this.bytes[start + position] = text.charCodeAt(position);
  }

  text(item: number): string {
    return Buffer.from(this.bytes.buffer).toString(
      "latin1",
      this.starts[item]!,
      this.starts[item + 1]!,
    );
  }
}

/**
 * Arrays that grow geometrically, no object per inode. Directories must be begun in ascending inode
 * order, each followed by its entries in byte order; that is what makes `firstEntry` a plain list.
 */
export class IndexTables {
  size: Doubles;
  blocks: Doubles;
  atimeSec: Doubles;
  mtimeSec: Doubles;
  ctimeSec: Doubles;
  atimeNsec: Words;
  mtimeNsec: Words;
  ctimeNsec: Words;
  mode: Words;
  nlink: Words;
  uid: Words;
  gid: Words;
  rdev: Words;
  layer: Words;
  parent: Words;
  firstName: Words;
  xattrSet: Words;
  target: Words;
  content: Words;
  firstEntry: Words;
  flags: Bytes;
  entryInode: Words;
  inodeCount = 0;
  readonly #layers: readonly string[];
  readonly #names: Heap;
  readonly #texts: Heap;
  readonly #xattrs: Heap;
  readonly #xattrSets = new Map<string, number>();
  /** Entries after the first of inodes with several names. */
  readonly #links = new Map<number, number[]>();
  #currentDirectory = 0;
  #capacity: number;

  /** @param parent what the parent chain's index holds, most of which will be copied; makes room for it at once */
  constructor(layers: readonly string[], parent?: IndexArrays) {
    this.#layers = layers;
    const capacity = FIRST_CAPACITY + (parent?.mode.length ?? 0);
    const entries = FIRST_CAPACITY + (parent?.entryInode.length ?? 0);
    const heap = FIRST_CAPACITY * 16;
    this.#capacity = capacity;
    this.#names = new Heap(entries, heap + (parent?.names.length ?? 0));
    this.#texts = new Heap(FIRST_CAPACITY + (parent?.textStart.length ?? 0), heap);
    this.#xattrs = new Heap(FIRST_CAPACITY, heap);
    this.size = new Float64Array(capacity);
    this.blocks = new Float64Array(capacity);
    this.atimeSec = new Float64Array(capacity);
    this.mtimeSec = new Float64Array(capacity);
    this.ctimeSec = new Float64Array(capacity);
    this.atimeNsec = new Uint32Array(capacity);
    this.mtimeNsec = new Uint32Array(capacity);
    this.ctimeNsec = new Uint32Array(capacity);
    this.mode = new Uint32Array(capacity);
    this.nlink = new Uint32Array(capacity);
    this.uid = new Uint32Array(capacity);
    this.gid = new Uint32Array(capacity);
    this.rdev = new Uint32Array(capacity);
    this.layer = new Uint32Array(capacity);
    this.parent = new Uint32Array(capacity);
    this.firstName = new Uint32Array(capacity);
    this.xattrSet = new Uint32Array(capacity);
    this.target = new Uint32Array(capacity);
    this.content = new Uint32Array(capacity);
    this.firstEntry = new Uint32Array(capacity + 1);
    this.flags = new Uint8Array(capacity);
    this.entryInode = new Uint32Array(entries);
  }

  /** A new inode, all zero. */
  addInode(): number {
    this.inodeCount += 1;
    if (this.inodeCount >= this.#capacity) this.#growInodes();
    return this.inodeCount;
  }

  #growInodes(): void {
    const capacity = this.#capacity * 2;
    for (const name of ["size", "blocks", "atimeSec", "mtimeSec", "ctimeSec"] as const)
      this[name] = grown(this[name], capacity);
    for (const name of ["atimeNsec", "mtimeNsec", "ctimeNsec", "mode", "nlink", "uid"] as const)
      this[name] = grown(this[name], capacity);
    for (const name of ["gid", "rdev", "layer", "parent", "firstName", "xattrSet"] as const)
      this[name] = grown(this[name], capacity);
    for (const name of ["target", "content"] as const) this[name] = grown(this[name], capacity);
    this.firstEntry = grown(this.firstEntry, capacity + 1);
    this.flags = grown(this.flags, capacity);
    this.#capacity = capacity;
  }

  /** Starts the entries of directory `dir`; inodes between the last one begun and it have none. */
  beginDirectory(dir: number): void {
    const entries = this.#names.count;
    while (this.#currentDirectory < dir) {
      this.#currentDirectory += 1;
      this.firstEntry[this.#currentDirectory] = entries;
    }
  }

  /** Adds a name of `inode` to the directory begun last. */
  addEntry(name: string, inode: number): void {
    this.#recordEntry(inode);
    this.#names.addText(name);
  }

  /** The same with the name's bytes `[start, end)` of another heap. */
  addEntryBytes(heap: Uint8Array, start: number, end: number, inode: number): void {
    this.#recordEntry(inode);
    const at = this.#names.add(end - start);
    const { bytes } = this.#names;
    for (let offset = 0; offset < end - start; offset += 1)
      bytes[at + offset] = heap[start + offset]!;
  }

  #recordEntry(inode: number): void {
    const entry = this.#names.count;
    if (entry >= this.entryInode.length)
      this.entryInode = grown(this.entryInode, this.entryInode.length * 2);
    this.entryInode[entry] = inode;
    if (this.parent[inode] === 0) {
      this.parent[inode] = this.#currentDirectory;
      this.firstName[inode] = entry;
      return;
    }
    const links = this.#links.get(inode);
    if (links === undefined) this.#links.set(inode, [entry]);
    else links.push(entry);
  }

  /** Stores a text; the returned ref goes into `target` or `content`. "" is ref 0. */
  addText(text: ByteString): number {
    if (text === "") return 0;
    this.#texts.addText(text);
    return this.#texts.count;
  }

  /** Stores a set of attributes once, however many inodes carry it; 0 for the empty set. */
  addXattrs(xattrs: readonly Xattr[]): number {
    if (xattrs.length === 0) return 0;
    let encoded = "";
    for (const { name, value } of xattrs) {
      const lengths = Buffer.alloc(6);
      lengths.writeUInt16LE(name.length, 0);
      lengths.writeUInt32LE(value.length, 2);
      encoded += lengths.toString("latin1") + name + value.toString("latin1");
    }
    let set = this.#xattrSets.get(encoded);
    if (set === undefined) {
      this.#xattrs.addText(encoded);
      set = this.#xattrs.count;
      this.#xattrSets.set(encoded, set);
    }
    return set;
  }

  /** The merged path of an inode that has a name already. */
  path(inode: number): ByteString {
    let path = "";
    for (let at = inode; at > ROOT_INODE; at = this.parent[at]!) {
      const name = this.#names.text(this.firstName[at]!);
      path = path === "" ? name : `${name}/${path}`;
    }
    return path as ByteString;
  }

  /** The finished arrays, trimmed. The tables must not be used afterwards. */
  finish(): { arrays: IndexArrays; counts: IndexCounts } {
    const inodes = this.inodeCount;
    const entries = this.#names.count;
    this.beginDirectory(inodes);
    this.firstEntry[inodes + 1] = entries;
    const linked = [...this.#links.entries()].sort((a, b) => a[0] - b[0]);
    const linkEntry = linked.flatMap(([, names]) => names);
    const linkStart = new Uint32Array(linked.length + 1);
    linked.forEach(([, names], position) => {
      linkStart[position + 1] = linkStart[position]! + names.length;
    });
    const layers = Buffer.from(this.#layers.map((id) => `${id}\n`).join(""), "utf8");
    const slots = <T extends Doubles | Words | Bytes>(array: T) =>
      array.subarray(0, inodes + 1) as T;
    return {
      arrays: {
        size: slots(this.size),
        blocks: slots(this.blocks),
        atimeSec: slots(this.atimeSec),
        mtimeSec: slots(this.mtimeSec),
        ctimeSec: slots(this.ctimeSec),
        atimeNsec: slots(this.atimeNsec),
        mtimeNsec: slots(this.mtimeNsec),
        ctimeNsec: slots(this.ctimeNsec),
        mode: slots(this.mode),
        nlink: slots(this.nlink),
        uid: slots(this.uid),
        gid: slots(this.gid),
        rdev: slots(this.rdev),
        layer: slots(this.layer),
        parent: slots(this.parent),
        firstName: slots(this.firstName),
        xattrSet: slots(this.xattrSet),
        target: slots(this.target),
        content: slots(this.content),
        firstEntry: this.firstEntry.subarray(0, inodes + 2),
        flags: slots(this.flags),
        entryInode: this.entryInode.subarray(0, entries),
        nameStart: this.#names.starts.subarray(0, entries + 1),
        linkInode: Uint32Array.from(linked, ([inode]) => inode),
        linkStart,
        linkEntry: Uint32Array.from(linkEntry),
        textStart: this.#texts.starts.subarray(0, this.#texts.count + 1),
        xattrStart: this.#xattrs.starts.subarray(0, this.#xattrs.count + 1),
        names: this.#names.bytes.subarray(0, this.#names.length),
        texts: this.#texts.bytes.subarray(0, this.#texts.length),
        xattrs: this.#xattrs.bytes.subarray(0, this.#xattrs.length),
        layers: new Uint8Array(layers),
      },
      counts: {
        inodes,
        entries,
        layers: this.#layers.length,
        texts: this.#texts.count,
        xattrSets: this.#xattrs.count,
        linkedInodes: linked.length,
        extraNames: linkEntry.length,
      },
    };
  }
}
