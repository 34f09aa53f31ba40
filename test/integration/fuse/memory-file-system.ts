/**
 * A file system in memory, to exercise a session on a real mount: as small as its semantics allow,
 * and strict about what the kernel tells it (lookup counts above all).
 */

import {
  type Attributes,
  type Caller,
  type DirectorySink,
  type Entry,
  emptyAttributes,
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  type FileSystem,
  type FileSystemStatistics,
  FUSE_WRITE_KILL_SUIDGID,
  type OpenResult,
  type Result,
  type SetAttributes,
} from "../../../src/fuse/file-system.js";
import type { ByteString } from "../../../src/system/bytes.js";
import {
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_ISGID,
  S_ISUID,
} from "../../../src/system/constants.js";
import {
  EEXIST,
  EINVAL,
  EISDIR,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
  ERANGE,
} from "../../../src/system/errno.js";

const BLOCK = 4096;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const SEEK_DATA = 3;

interface Child {
  ino: number;
  /** Position for readdir; grows with each new name, so that it survives removals. */
  cookie: number;
}

interface Node {
  ino: number;
  attributes: Attributes;
  parent: number;
  children: Map<ByteString, Child>;
  data: Buffer;
  target: ByteString;
  xattrs: Map<ByteString, Buffer>;
  lookups: number;
}

/** What a test may ask about the kernel's dealings with the file system. */
export interface MemoryStatistics {
  nodes: number;
  lookups: number;
  forgotten: number;
  handedOut: number;
  violations: string[];
  calls: Record<string, number>;
  isDestroyed: boolean;
  largestRead: number;
  largestWrite: number;
}

/** See the file comment. Names that begin with "fault-" make their handlers misbehave. */
export class MemoryFileSystem implements FileSystem {
  readonly #nodes = new Map<number, Node>();
  #nextIno = 2;
  #nextCookie = 3;
  #heldSyncs: ((result: Result) => void)[] = [];
  holdSyncs = false;
  /** Called by a lookup of "fault-close". */
  onFaultClose = (): void => {};
  readonly statistics: MemoryStatistics = {
    nodes: 0,
    lookups: 0,
    forgotten: 0,
    handedOut: 0,
    violations: [],
    calls: {},
    isDestroyed: false,
    largestRead: 0,
    largestWrite: 0,
  };

  constructor() {
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, pid: 0 };
    const root = this.#make(S_IFDIR | 0o755, owner, 1);
    root.attributes.nlink = 2;
    root.lookups = 1;
  }

  #count(name: string): void {
    if (this.statistics.isDestroyed) this.statistics.violations.push(`${name} after destroy`);
    this.statistics.calls[name] = (this.statistics.calls[name] ?? 0) + 1;
  }

  #make(mode: number, caller: Caller, ino = this.#nextIno++, rdev = 0): Node {
    const node: Node = {
      ino,
      attributes: {
        ...emptyAttributes(),
        ino,
        mode,
        nlink: (mode & S_IFMT) === S_IFDIR ? 2 : 1,
        uid: caller.uid,
        gid: caller.gid,
        rdev,
        blksize: BLOCK,
      },
      parent: ino,
      children: new Map(),
      data: Buffer.alloc(0),
      target: "" as ByteString,
      xattrs: new Map(),
      lookups: 0,
    };
    this.#nodes.set(ino, node);
    this.statistics.nodes = this.#nodes.size;
    touch(node.attributes, true);
    node.attributes.atimeSec = node.attributes.mtimeSec;
    return node;
  }

  #node(ino: number): Node {
    const node = this.#nodes.get(ino);
    if (node === undefined) {
      this.statistics.violations.push(`request for unknown node ${ino}`);
      throw new Error(`unknown node ${ino}`);
    }
    return node;
  }

  #handOut(node: Node, out: Entry): Result {
    node.lookups++;
    this.statistics.handedOut++;
    out.node = node.ino;
    out.generation = 0;
    Object.assign(out.attributes, node.attributes);
    return 0;
  }

  #drop(node: Node): void {
    if (node.lookups === 0 && node.attributes.nlink === 0) {
      this.#nodes.delete(node.ino);
      this.statistics.nodes = this.#nodes.size;
    }
  }

  #add(parent: number, name: ByteString, node: Node, out: Entry): Result {
    const directory = this.#node(parent);
    directory.children.set(name, { ino: node.ino, cookie: this.#nextCookie++ });
    node.parent = parent;
    if ((node.attributes.mode & S_IFMT) === S_IFDIR) directory.attributes.nlink++;
    touch(directory.attributes, true);
    return this.#handOut(node, out);
  }

  lookup(parent: number, name: ByteString, out: Entry): Result {
    this.#count("lookup");
    if (name === "fault-throw") throw new Error("a handler that throws");
    if (name === "fault-errno") return -600;
    if (name === "fault-close") this.onFaultClose();
    const child = this.#node(parent).children.get(name);
    if (child === undefined) {
      out.node = 0;
      return 0;
    }
    return this.#handOut(this.#node(child.ino), out);
  }

  forget(ino: number, count: number): void {
    this.#count("forget");
    const node = this.#node(ino);
    node.lookups -= count;
    this.statistics.forgotten += count;
    if (node.lookups < 0) this.statistics.violations.push(`node ${ino} at ${node.lookups} lookups`);
    this.#drop(node);
  }

  getattr(ino: number, out: Attributes): Result {
    this.#count("getattr");
    Object.assign(out, this.#node(ino).attributes);
    return 0;
  }

  setattr(_caller: Caller, ino: number, set: SetAttributes, out: Attributes): Result {
    this.#count("setattr");
    const node = this.#node(ino);
    const a = node.attributes;
    if (set.valid & FATTR_SIZE) this.#resize(node, set.size);
    if (set.valid & FATTR_MODE) a.mode = (a.mode & S_IFMT) | (set.mode & 0o7777);
    if (set.valid & FATTR_UID) a.uid = set.uid;
    if (set.valid & FATTR_GID) a.gid = set.gid;
    if (set.valid & FATTR_KILL_SUIDGID) a.mode &= ~(S_ISUID | S_ISGID);
    if (set.valid & FATTR_ATIME_NOW) a.atimeSec = Math.floor(Date.now() / 1000);
    else if (set.valid & FATTR_ATIME) [a.atimeSec, a.atimeNsec] = [set.atimeSec, set.atimeNsec];
    touch(a, (set.valid & (FATTR_SIZE | FATTR_MTIME_NOW)) !== 0);
    if ((set.valid & (FATTR_MTIME | FATTR_MTIME_NOW)) === FATTR_MTIME) {
      [a.mtimeSec, a.mtimeNsec] = [set.mtimeSec, set.mtimeNsec];
    }
    Object.assign(out, a);
    return 0;
  }

  #resize(node: Node, size: number): void {
    if (size > node.data.length) {
      const grown = Buffer.alloc(Math.max(size, node.data.length * 2));
      node.data.copy(grown, 0, 0, node.attributes.size);
      node.data = grown;
    } else if (size < node.attributes.size) {
      node.data.fill(0, size, node.attributes.size);
    }
    node.attributes.size = size;
    node.attributes.blocks = Math.ceil(size / 512);
  }

  readlink(ino: number): ByteString {
    this.#count("readlink");
    return this.#node(ino).target;
  }

  symlink(
    caller: Caller,
    parent: number,
    name: ByteString,
    target: ByteString,
    out: Entry,
  ): Result {
    this.#count("symlink");
    const node = this.#make(S_IFLNK | 0o777, caller);
    node.target = target;
    node.attributes.size = target.length;
    return this.#add(parent, name, node, out);
  }

  mknod(
    caller: Caller,
    parent: number,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: Entry,
  ): Result {
    this.#count("mknod");
    return this.#add(parent, name, this.#make(mode & ~umask, caller, undefined, rdev), out);
  }

  mkdir(
    caller: Caller,
    parent: number,
    name: ByteString,
    mode: number,
    umask: number,
    out: Entry,
  ): Result {
    this.#count("mkdir");
    return this.#add(parent, name, this.#make(S_IFDIR | (mode & ~umask), caller), out);
  }

  unlink(parent: number, name: ByteString): Result {
    this.#count("unlink");
    const directory = this.#node(parent);
    const child = directory.children.get(name);
    if (child === undefined) return -ENOENT;
    directory.children.delete(name);
    const node = this.#node(child.ino);
    node.attributes.nlink--;
    touch(node.attributes, false);
    touch(directory.attributes, true);
    this.#drop(node);
    return 0;
  }

  rmdir(parent: number, name: ByteString): Result {
    this.#count("rmdir");
    const directory = this.#node(parent);
    const child = directory.children.get(name);
    if (child === undefined) return -ENOENT;
    const node = this.#node(child.ino);
    if (node.children.size > 0) return -ENOTEMPTY;
    directory.children.delete(name);
    directory.attributes.nlink--;
    node.attributes.nlink = 0;
    touch(directory.attributes, true);
    this.#drop(node);
    return 0;
  }

  rename(
    parent: number,
    name: ByteString,
    newParent: number,
    newName: ByteString,
    flags: number,
  ): Result {
    this.#count(`rename:${flags}`);
    const from = this.#node(parent).children;
    const to = this.#node(newParent).children;
    const moved = from.get(name);
    const replaced = to.get(newName);
    if (moved === undefined) return -ENOENT;
    if (flags === 1 && replaced !== undefined) return -EEXIST;
    if (flags === 2) {
      if (replaced === undefined) return -ENOENT;
      from.set(name, { ino: replaced.ino, cookie: moved.cookie });
      to.set(newName, { ino: moved.ino, cookie: replaced.cookie });
      return 0;
    }
    if (flags > 2) return -EINVAL;
    if (replaced !== undefined) {
      const node = this.#node(replaced.ino);
      if (node.children.size > 0) return -ENOTEMPTY;
      node.attributes.nlink =
        (node.attributes.mode & S_IFMT) === S_IFDIR ? 0 : node.attributes.nlink - 1;
      to.delete(newName);
      this.#drop(node);
    }
    from.delete(name);
    to.set(newName, { ino: moved.ino, cookie: this.#nextCookie++ });
    return 0;
  }

  link(ino: number, newParent: number, newName: ByteString, out: Entry): Result {
    this.#count("link");
    const node = this.#node(ino);
    node.attributes.nlink++;
    return this.#add(newParent, newName, node, out);
  }

  read(ino: number, _handle: number, offset: number, target: Buffer): Result {
    this.#count("read");
    this.statistics.largestRead = Math.max(this.statistics.largestRead, target.length);
    const node = this.#node(ino);
    if (node.xattrs.has("user.fault-long-read" as ByteString)) return target.length + 1;
    const end = Math.min(offset + target.length, node.attributes.size);
    return end <= offset ? 0 : node.data.copy(target, 0, offset, end);
  }

  write(ino: number, _handle: number, offset: number, data: Buffer, flags: number): Result {
    this.#count("write");
    this.statistics.largestWrite = Math.max(this.statistics.largestWrite, data.length);
    const node = this.#node(ino);
    if ((node.attributes.mode & S_IFMT) !== S_IFREG) return -EISDIR;
    if (offset + data.length > node.attributes.size) this.#resize(node, offset + data.length);
    data.copy(node.data, offset);
    if (flags & FUSE_WRITE_KILL_SUIDGID) node.attributes.mode &= ~(S_ISUID | S_ISGID);
    touch(node.attributes, true);
    return data.length;
  }

  statfs(out: FileSystemStatistics): Result {
    this.#count("statfs");
    out.blocks = 1000;
    out.bfree = 600;
    out.bavail = 500;
    out.files = 10_000;
    out.ffree = 10_000 - this.#nodes.size;
    out.bsize = BLOCK;
    out.namelen = 255;
    out.frsize = BLOCK;
    return 0;
  }

  fsync(_ino: number, dataOnly: boolean): Result | Promise<Result> {
    this.#count(dataOnly ? "fdatasync" : "fsync");
    if (!this.holdSyncs) return 0;
    return new Promise((resolve) => this.#heldSyncs.push(resolve));
  }

  fsyncdir(): Promise<Result> {
    this.#count("fsyncdir");
    return Promise.reject(new Error("a promise that fails"));
  }

  /** Answers every fsync that was held. */
  releaseSyncs(result: Result): void {
    this.holdSyncs = false;
    for (const resolve of this.#heldSyncs.splice(0)) resolve(result);
  }

  readdir(
    ino: number,
    _handle: number,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
  ): Result {
    this.#count(plus ? "readdirplus" : "readdir");
    const directory = this.#node(ino);
    if ((directory.attributes.mode & S_IFMT) !== S_IFDIR) return -ENOTDIR;
    if (offset < 1 && !sink.add("." as ByteString, ino, S_IFDIR, 1)) return 0;
    if (offset < 2 && !sink.add(".." as ByteString, directory.parent, S_IFDIR, 2)) return 0;
    for (const [name, child] of directory.children) {
      if (child.cookie <= offset) continue;
      const node = this.#node(child.ino);
      if (!plus) {
        if (!sink.add(name, node.ino, node.attributes.mode, child.cookie)) return 0;
        continue;
      }
      const entry = { node: node.ino, generation: 0, attributes: node.attributes };
      if (!sink.addPlus(name, child.cookie, entry)) return 0;
      node.lookups++;
      this.statistics.handedOut++;
    }
    return 0;
  }

  setxattr(
    _caller: Caller,
    ino: number,
    name: ByteString,
    value: Buffer,
    flags: number,
    _killSgid: boolean,
  ): Result {
    this.#count("setxattr");
    const { xattrs } = this.#node(ino);
    if (flags === 1 && xattrs.has(name)) return -EEXIST;
    if (flags === 2 && !xattrs.has(name)) return -ENODATA;
    if (value.length > 65_000) return -ERANGE;
    xattrs.set(name, Buffer.from(value));
    return 0;
  }

  getxattr(ino: number, name: ByteString): Buffer | Result {
    this.#count("getxattr");
    return this.#node(ino).xattrs.get(name) ?? -ENODATA;
  }

  listxattr(ino: number): Buffer {
    this.#count("listxattr");
    const names = [...this.#node(ino).xattrs.keys()].map((name) => `${name}\0`).join("");
    return Buffer.from(names, "latin1");
  }

  removexattr(_caller: Caller, ino: number, name: ByteString): Result {
    this.#count("removexattr");
    return this.#node(ino).xattrs.delete(name) ? 0 : -ENODATA;
  }

  fallocate(ino: number, _handle: number, mode: number, offset: number, length: number): Result {
    this.#count("fallocate");
    const node = this.#node(ino);
    if (mode === (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE)) {
      node.data.fill(0, offset, Math.min(offset + length, node.attributes.size));
      return 0;
    }
    if (mode !== 0) return -EOPNOTSUPP;
    if (offset + length > node.attributes.size) this.#resize(node, offset + length);
    return 0;
  }

  lseek(ino: number, _handle: number, offset: number, whence: number): Result {
    this.#count("lseek");
    const { attributes, data } = this.#node(ino);
    if (offset >= attributes.size) return -ENXIO;
    for (let at = offset; at < attributes.size; at = (Math.floor(at / BLOCK) + 1) * BLOCK) {
      const end = Math.min((Math.floor(at / BLOCK) + 1) * BLOCK, attributes.size);
      const isData = data.subarray(at, end).some((byte) => byte !== 0);
      if (isData === (whence === SEEK_DATA)) return at;
    }
    return whence === SEEK_DATA ? -ENXIO : attributes.size;
  }

  copyFileRange(
    ino: number,
    offset: number,
    toIno: number,
    toOffset: number,
    length: number,
  ): Result {
    this.#count("copyFileRange");
    const from = this.#node(ino);
    const size = Math.max(0, Math.min(length, from.attributes.size - offset));
    const part = Buffer.from(from.data.subarray(offset, offset + size));
    return this.write(toIno, 0, toOffset, part, 0);
  }

  tmpfile(
    caller: Caller,
    _parent: number,
    mode: number,
    _flags: number,
    umask: number,
    out: Entry,
    _open: OpenResult,
  ): Result {
    this.#count("tmpfile");
    const node = this.#make(S_IFREG | (mode & ~umask & 0o7777), caller);
    node.attributes.nlink = 0;
    return this.#handOut(node, out);
  }

  destroy(): void {
    this.#count("destroy");
    this.statistics.isDestroyed = true;
  }

  /** The statistics, with the lookups that the kernel now holds (the root's own apart). */
  report(): MemoryStatistics {
    let lookups = -1;
    for (const node of this.#nodes.values()) lookups += node.lookups;
    return { ...this.statistics, lookups };
  }

  /** Changes content behind the kernel's back, to see an invalidation work. */
  overwrite(name: ByteString, text: string): number {
    const child = this.#node(1).children.get(name);
    if (child === undefined) throw new Error(`no ${name}`);
    const node = this.#node(child.ino);
    this.#resize(node, 0);
    this.#resize(node, text.length);
    node.data.write(text, "latin1");
    return node.ino;
  }

  /** Adds a file behind the kernel's back. */
  plant(name: ByteString): void {
    const node = this.#make(S_IFREG | 0o644, { uid: 0, gid: 0, pid: 0 });
    this.#node(1).children.set(name, { ino: node.ino, cookie: this.#nextCookie++ });
  }
}

function touch(attributes: Attributes, isModified: boolean): void {
  const now = Date.now();
  attributes.ctimeSec = Math.floor(now / 1000);
  attributes.ctimeNsec = (now % 1000) * 1e6;
  if (!isModified) return;
  attributes.mtimeSec = attributes.ctimeSec;
  attributes.mtimeNsec = attributes.ctimeNsec;
}
