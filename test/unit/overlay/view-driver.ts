/**
 * Drives an OverlayFileSystem by path, without a mount, as the kernel would: walks names with LOOKUP,
 * counts the references it gets and gives them back with FORGET.
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Attributes,
  type Caller,
  type DirectorySink,
  type Entry,
  emptyAttributes,
  type SetAttributes,
} from "../../../src/fuse/file-system.js";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { emptyIndex, openIndex } from "../../../src/layers/index-reader.js";
import { LiveIndex } from "../../../src/layers/live-index.js";
import { OverlayFileSystem } from "../../../src/overlay/overlay-file-system.js";
import { type ByteString, fromBuffer, toBuffer, toBytes } from "../../../src/system/bytes.js";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../../src/system/constants.js";
import { ENOENT, ENOTDIR } from "../../../src/system/errno.js";

export const isRoot = process.geteuid!() === 0;

export const CALLER: Caller = { uid: process.geteuid!(), gid: process.getegid!(), pid: 1 };

export const newAttributes = emptyAttributes;

export function newEntry(): Entry {
  return { node: 0, generation: 0, attributes: newAttributes() };
}

/** SETATTR's argument with only the given fields meant. */
export function change(fields: Partial<SetAttributes> & { valid: number }): SetAttributes {
  return {
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    ...fields,
  };
}

/** One listed name. */
export interface Listed {
  readonly name: ByteString;
  readonly ino: number;
  readonly type: number;
  readonly cookie: number;
}

/** Takes up to `limit` entries of a READDIR. */
export class ListingSink implements DirectorySink {
  readonly entries: Listed[] = [];
  readonly looked: number[] = [];

  constructor(readonly limit = Infinity) {}

  add(name: ByteString, ino: number, mode: number, cookie: number): boolean {
    if (this.entries.length >= this.limit) return false;
    this.entries.push({ name, ino, type: mode & S_IFMT, cookie });
    return true;
  }

  addPlus(name: ByteString, cookie: number, entry: Entry): boolean {
    const { ino, mode } = entry.attributes;
    if (!this.add(name, ino, mode, cookie)) return false;
    if (entry.node !== 0) this.looked.push(entry.node);
    return true;
  }
}

/** One view in a private directory, remountable. */
export class ViewDriver {
  readonly path = mkdtempSync(join(tmpdir(), "varve-driver-"));
  readonly upperDir = join(this.path, "upper");
  readonly workDir = join(this.path, "work");
  readonly layerDirs: string[] = [];
  fs!: OverlayFileSystem;
  #indexPath: string | undefined;
  /** References per node, as the kernel would hold them. */
  readonly #references = new Map<number, number>();

  /** Whether the layers are read as one goes, without an index. */
  readonly #isLive: boolean;
  #live: LiveIndex | undefined;

  constructor(isLive = false) {
    this.#isLive = isLive;
    mkdirSync(this.upperDir);
    mkdirSync(this.workDir);
  }

  /** Adds a layer whose tree `make` writes into the given directory. */
  addLayer(make: (directory: string) => void): this {
    const number = this.layerDirs.length;
    const fsDir = join(this.path, `layer-${number}`);
    mkdirSync(fsDir);
    make(fsDir);
    const outputPath = join(this.path, `index-${number}`);
    buildIndex({
      ...(this.#indexPath !== undefined && { parentIndexPath: this.#indexPath }),
      chainId: `chain-${number}`,
      fsDir,
      impliedDirectories: [],
      outputPath,
      privileged: isRoot,
    });
    this.#indexPath = outputPath;
    this.layerDirs.push(fsDir);
    return this;
  }

  open(readOnly = false): this {
    this.#live?.close();
    if (this.#isLive) this.#live = new LiveIndex(this.layerDirs);
    this.fs = new OverlayFileSystem({
      index:
        this.#live ?? (this.#indexPath === undefined ? emptyIndex() : openIndex(this.#indexPath)),
      layerDirs: this.layerDirs,
      ...(!readOnly && { upperDir: this.upperDir, workDir: this.workDir }),
      privileged: isRoot,
    });
    return this;
  }

  remount(): void {
    this.fs.destroy();
    this.#references.clear();
    this.open();
  }

  dispose(): void {
    this.fs.destroy();
    this.#live?.close();
    rmSync(this.path, { recursive: true, force: true });
  }

  /** Notes a reference that a reply gave. */
  hold(node: number): number {
    this.#references.set(node, (this.#references.get(node) ?? 0) + 1);
    return node;
  }

  /**
   * Gives back references: all of them, or, while nodes are `kept` in use, those to files not
   * among them (the kernel keeps the directories above what is in use).
   */
  forgetAll(kept: ReadonlySet<number> = new Set()): void {
    for (const [node, count] of [...this.#references].reverse()) {
      if (kept.has(node)) continue;
      if (kept.size > 0 && (this.attributes(node).mode & S_IFMT) === S_IFDIR) continue;
      this.#references.delete(node);
      this.fs.forget(node, count);
    }
  }

  /** LOOKUP: the node, 0 for a negative entry, or a negative errno. */
  lookup(parent: number, name: string, out = newEntry()): number {
    const result = this.fs.lookup(parent, toBytes(name), out);
    if (result < 0) return result;
    return out.node === 0 ? 0 : this.hold(out.node);
  }

  /** The node at a path like "a/b", or a negative errno. */
  walk(path: string): number {
    let node = 1;
    for (const name of path.split("/").filter((part) => part !== "")) {
      const mode = this.attributes(node).mode;
      if ((mode & S_IFMT) !== S_IFDIR) return -ENOTDIR;
      node = this.lookup(node, name);
      if (node <= 0) return node === 0 ? -ENOENT : node;
    }
    return node;
  }

  /** The parent's node and the last name. */
  split(path: string): [number, ByteString] {
    const at = path.lastIndexOf("/");
    const parent = at < 0 ? 1 : this.walk(path.slice(0, at));
    return [parent, toBytes(path.slice(at + 1))];
  }

  attributes(node: number): Attributes {
    const out = newAttributes();
    const result = this.fs.getattr(node, out);
    if (result < 0) throw new Error(`getattr ${node}: ${result}`);
    return out;
  }

  create(path: string, mode = S_IFREG | 0o644, caller = CALLER): number {
    const [parent, name] = this.split(path);
    if (parent < 0) return parent;
    const out = newEntry();
    const result =
      (mode & S_IFMT) === S_IFDIR
        ? this.fs.mkdir(caller, parent, name, mode, 0, out)
        : this.fs.mknod(caller, parent, name, mode, 0, 0, out);
    return result < 0 ? result : this.hold(out.node);
  }

  /** Like `create`, for a symlink. */
  symlink(path: string, target: string): number {
    const [parent, name] = this.split(path);
    if (parent < 0) return parent;
    const out = newEntry();
    const result = this.fs.symlink(CALLER, parent, name, toBytes(target), out);
    return result < 0 ? result : this.hold(out.node);
  }

  link(from: string, to: string): number {
    const node = this.walk(from);
    if (node < 0) return node;
    const [parent, name] = this.split(to);
    if (parent < 0) return parent;
    const out = newEntry();
    const result = this.fs.link(node, parent, name, out);
    return result < 0 ? result : this.hold(out.node);
  }

  unlink(path: string): number {
    const [parent, name] = this.split(path);
    return parent < 0 ? parent : this.fs.unlink(parent, name);
  }

  rmdir(path: string): number {
    const [parent, name] = this.split(path);
    return parent < 0 ? parent : this.fs.rmdir(parent, name);
  }

  rename(from: string, to: string, flags = 0): number {
    const [parent, name] = this.split(from);
    if (parent < 0) return parent;
    const [newParent, newName] = this.split(to);
    return newParent < 0 ? newParent : this.fs.rename(parent, name, newParent, newName, flags);
  }

  write(path: string, text: string, offset = 0): number {
    const node = this.walk(path);
    return node < 0 ? node : this.fs.write(node, 0, offset, Buffer.from(text), 0);
  }

  readNode(node: number): Buffer | number {
    const target = Buffer.alloc(this.attributes(node).size);
    const count = this.fs.read(node, 0, 0, target);
    return count < 0 ? count : target.subarray(0, count);
  }

  read(path: string): string | number {
    const node = this.walk(path);
    const data = node < 0 ? node : this.readNode(node);
    return typeof data === "number" ? data : data.toString("latin1");
  }

  /** All entries, read in portions of `portion`. */
  list(node: number, portion = Infinity, plus = false): Listed[] {
    const all: Listed[] = [];
    for (let offset = 0; ; ) {
      const sink = new ListingSink(portion);
      const result = this.fs.readdir(node, 0, offset, plus, sink);
      if (result < 0) throw new Error(`readdir ${node}: ${result}`);
      for (const looked of sink.looked) this.hold(looked);
      all.push(...sink.entries);
      if (sink.entries.length < portion) return all;
      offset = all.at(-1)!.cookie;
    }
  }

  /** Names in a directory, without dots, sorted. */
  names(path: string): string[] {
    const node = this.walk(path);
    return this.list(node)
      .map((entry) => fromBuffer(toBuffer(entry.name)) as string)
      .filter((name) => name !== "." && name !== "..")
      .sort();
  }

  /** Every path with what a user sees of it. `numbers`: inode numbers too. */
  tree(numbers = false): Map<string, string> {
    const result = new Map<string, string>();
    const visit = (node: number, path: string) => {
      const a = this.attributes(node);
      const type = a.mode & S_IFMT;
      const words = [a.mode.toString(8), a.nlink, a.uid, a.gid];
      if (numbers) words.push(a.ino);
      if (type === S_IFREG) words.push(a.size, (this.readNode(node) as Buffer).toString("hex"));
      if (type === S_IFLNK) words.push(String(this.fs.readlink(node)));
      const value = this.fs.getxattr(node, toBytes("user.test"));
      if (typeof value !== "number") words.push(value.toString("hex"));
      result.set(path, words.join(" "));
      if (type !== S_IFDIR) return;
      for (const entry of this.list(node)) {
        if (entry.name === "." || entry.name === "..") continue;
        const child = this.lookup(node, fromBuffer(toBuffer(entry.name)));
        if (child <= 0) throw new Error(`listed but not there: ${path}/${entry.name}`);
        if (child !== entry.ino || (this.attributes(child).mode & S_IFMT) !== entry.type) {
          throw new Error(`listing and lookup disagree: ${path}/${entry.name}`);
        }
        visit(child, `${path}/${entry.name}`);
      }
    };
    visit(1, "");
    return result;
  }
}
