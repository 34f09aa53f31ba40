/**
 * Directories of containerd's snapshots: `containerd/<id>/{fs,work,index}` below the root.
 *
 * `fs` is an upper directory or, once committed, a layer, in the kernel overlayfs' format; `index` is
 * the merged tree of a committed chain. Of one that shares a layer of ours, `<id>` is a symlink. IDs are short numbers in one directory, so that containerd can
 * mount more layers than a page of mount options holds (it shortens paths by their common prefix).
 */

import {
  existsSync,
  lstatSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { type Digest, hexOf } from "../content/digest.js";
import { isOverlayAttribute, WORK_INDEX, WORK_ORPHANS, WORK_TEMPORARY } from "../overlay/format.js";
import type { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { sys } from "../system/addon.js";
import { type ByteString, fromBuffer, toBytes } from "../system/bytes.js";
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, S_IALLUGO } from "../system/constants.js";
import { must } from "../system/errno.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_GID,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SLOTS,
  STAT_UID,
} from "../system/native.js";

const REMOVED = ".removed-";
// Of a root that no layer describes; containerd's suite (RootPermission) wants it whatever the umask.
const ROOT_MODE = 0o755;

/** The directories of one key space. */
export class ProxyDirectories {
  /** Where all of them lie. */
  readonly path: string;
  readonly #tasks: LayerTasks;
  readonly #log: Log;
  /** Trees that are being removed. */
  readonly #removals = new Set<Promise<void>>();

  constructor(o: { root: string; tasks: LayerTasks; log: Log }) {
    this.path = path.join(o.root, "containerd");
    this.#tasks = o.tasks;
    this.#log = o.log;
  }

  /** Makes the directory and begins to remove those of no snapshot in `ids`. */
  async open(ids: ReadonlySet<number>): Promise<void> {
    await fs.mkdir(this.path, { recursive: true, mode: 0o700 });
    for (const name of await fs.readdir(this.path)) {
      if (/^[0-9]+$/.test(name) && ids.has(Number(name))) continue;
      this.#log.info(`containerd: removed left-over directory ${name}`);
      this.#removeTree(path.join(this.path, name));
    }
    // A removed number may be given out again when its row never came to be.
    await this.settle();
  }

  /** The upper directory, or the layer. */
  fs(id: number): string {
    return path.join(this.path, String(id), "fs");
  }

  /** The work directory of an active snapshot. */
  work(id: number): string {
    return path.join(this.path, String(id), "work");
  }

  /** The chain index of a committed snapshot. */
  index(id: number): string {
    return path.join(this.path, String(id), "index");
  }

  /** The snapshot whose `fs` this is; undefined for any other path. */
  idOf(fsDir: string): number | undefined {
    const id = /^([0-9]+)\/fs$/.exec(path.relative(this.path, fsDir))?.[1];
    return id === undefined ? undefined : Number(id);
  }

  /** A directory for passing data through, for as long as `work` takes. */
  async withTemporary<R>(work: (directory: string) => Promise<R>): Promise<R> {
    const directory = await fs.mkdtemp(path.join(this.path, ".tmp-"));
    try {
      return await work(directory);
    } finally {
      await this.#tasks.removeTree(directory);
    }
  }

  /** Makes a snapshot's directory that of a chain of ours. */
  share(id: number, chainId: Digest): void {
    symlinkSync(`../snapshots/${hexOf(chainId)}`, path.join(this.path, String(id)));
  }

  has(id: number): boolean {
    return existsSync(this.fs(id));
  }

  /**
   * Makes the directories of a new snapshot, with the root directory's attributes of its parent:
   * kernel overlayfs shows the upper's. Synchronous, for use in a transaction; not durable, as an
   * empty directory can be made again. Leaves nothing behind when it fails.
   *
   * @throws SyscallError
   */
  create(id: number, parentId: number | undefined): void {
    try {
      for (const area of [WORK_TEMPORARY, WORK_INDEX, WORK_ORPHANS]) {
        mkdirSync(path.join(this.work(id), area), { recursive: true, mode: 0o700 });
      }
      mkdirSync(this.fs(id), { mode: ROOT_MODE });
      if (parentId !== undefined) copyAttributes(this.fs(parentId), this.fs(id));
    } catch (error) {
      rmSync(path.join(this.path, String(id)), { recursive: true, force: true });
      throw error;
    }
  }

  /** Begins to remove a snapshot's directories, for which there must be no row any more. */
  remove(id: number): void {
    this.#moveAway(path.join(this.path, String(id)), `${REMOVED}${id}`);
  }

  /** Begins to remove the work directory, which a committed snapshot does not need. */
  removeWork(id: number): void {
    this.#moveAway(this.work(id), `${REMOVED}${id}-work`);
  }

  #moveAway(directory: string, name: string): void {
    const removed = path.join(this.path, name);
    try {
      renameSync(directory, removed);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    this.#removeTree(removed);
  }

  /** Waits until what `remove` and `removeWork` began is done. */
  async settle(): Promise<void> {
    await Promise.all(this.#removals);
  }

  #removeTree(directory: string): void {
    if (lstatSync(directory).isSymbolicLink()) {
      unlinkSync(directory);
      return;
    }
    const removal = this.#tasks.removeTree(directory).catch((error: unknown) => {
      this.#log.warn(`containerd: ${directory} is left for the next start to remove`, error);
    });
    this.#removals.add(removal);
    void removal.then(() => this.#removals.delete(removal));
  }
}

/** Gives one directory the owner, mode, attributes and times of another. @throws SyscallError */
function copyAttributes(from: string, to: string): void {
  const source = toBytes(from);
  const target = toBytes(to);
  const stat = new Float64Array(STAT_SLOTS);
  must(sys.statx(AT_FDCWD, source, AT_SYMLINK_NOFOLLOW, stat), "statx", from);
  const owner = [stat[STAT_UID]!, stat[STAT_GID]!] as const;
  must(sys.fchownat(AT_FDCWD, target, ...owner, AT_SYMLINK_NOFOLLOW), "chown", to);
  must(sys.fchmodat(AT_FDCWD, target, stat[STAT_MODE]! & S_IALLUGO), "chmod", to);
  copyXattrs(from, to);
  const atime = [stat[STAT_ATIME_SEC]!, stat[STAT_ATIME_NSEC]!] as const;
  const mtime = [stat[STAT_MTIME_SEC]!, stat[STAT_MTIME_NSEC]!] as const;
  must(sys.utimensat(AT_FDCWD, target, ...atime, ...mtime, AT_SYMLINK_NOFOLLOW), "utimensat", to);
}

function copyXattrs(from: string, to: string): void {
  const source = toBytes(from);
  const list = must<Buffer>(sys.listxattrat(AT_FDCWD, source), "listxattr", from);
  for (const name of fromBuffer(list).split("\0")) {
    const attribute = name as ByteString;
    if (name === "" || isOverlayAttribute(attribute)) continue;
    const value = must<Buffer>(sys.getxattrat(AT_FDCWD, source, attribute), "getxattr", from);
    must(sys.setxattrat(AT_FDCWD, toBytes(to), attribute, value, 0), "setxattr", to);
  }
}
