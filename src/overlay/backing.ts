/**
 * The directories on disk behind one view, reached by descriptor and never by path.
 *
 * A symlink on a backing path must not be followed: it could lead out of the view, or back into our
 * own mount, where the daemon would wait for itself. So an object is addressed by its directory's
 * descriptor and one name, and directories are opened with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS.
 */

import { readFileSync } from "node:fs";
import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBytes } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  O_DIRECTORY,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  S_IFCHR,
} from "../system/constants.js";
import { EEXIST, EISDIR, EPERM, must } from "../system/errno.js";
import { InvalidArgumentError } from "../system/errors.js";
import { STAT_DEV, STAT_SLOTS } from "../system/native.js";
import type { Tally } from "../system/tally.js";
import { DescriptorCache } from "./descriptor-cache.js";
import {
  type OverlayAttributes,
  overlayAttributes,
  WORK_INDEX,
  WORK_ORPHANS,
  WORK_TEMPORARY,
} from "./format.js";

const STAY_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
/** Longest path passed to one openat2; PATH_MAX is 4096 with the final NUL. */
const PATH_CHUNK = 4000;
/** In the temporary area: the whiteout that all others are links to. */
const WHITEOUT = "whiteout" as ByteString;
const DIRECTORY_DESCRIPTORS = 128;
const FILE_DESCRIPTORS = 128;

/** Where a view's parts lie. Without `upperDir` and `workDir` the view is read-only. */
export interface BackingOptions {
  /** The `fs` directories of the layers, base first. */
  readonly layerDirs: readonly string[];
  readonly upperDir?: string;
  readonly workDir?: string;
  readonly privileged: boolean;
  /** Whether a change of a lower file's metadata may leave its data where it is. Default true. */
  readonly metacopy?: boolean;
  /** Whether a lower directory can be renamed (else EXDEV, and mv(1) copies). Default true. */
  readonly redirectDirectories?: boolean;
  /** Where copies and opens are counted. */
  readonly tally?: Tally | undefined;
  /** The mount goes on after another process served it: what only the kernel references must stay. */
  readonly inherited?: boolean;
}

function openDirectory(path: ByteString): number {
  return must(sys.open(path, O_PATH | O_DIRECTORY, 0), "open", path);
}

function deviceOf(fd: number): number {
  const stat = new Float64Array(STAT_SLOTS);
  must(sys.statx(fd, "" as ByteString, AT_EMPTY_PATH, stat), "statx", "view directory");
  return stat[STAT_DEV]!;
}

/** The umask of this process, read without changing it (other threads create files too). */
function processUmask(): number {
  const line = /^Umask:\s*([0-7]+)/m.exec(readFileSync("/proc/self/status", "latin1"));
  return line === null ? 0o777 : Number.parseInt(line[1]!, 8);
}

/** Opens `path` (of any length) below `base` without following a symlink: a descriptor or a negative errno. */
export function openBeneath(base: number, path: ByteString, flags: number): number {
  if (path.length <= PATH_CHUNK) return sys.openat2(base, path, flags, 0, STAY_BENEATH);
  let rest: string = path;
  let at = base;
  while (rest.length > PATH_CHUNK) {
    const cut = rest.lastIndexOf("/", PATH_CHUNK);
    const part = rest.slice(0, cut) as ByteString;
    const next = sys.openat2(at, part, O_PATH | O_DIRECTORY, 0, STAY_BENEATH);
    if (at !== base) sys.close(at);
    if (next < 0) return next;
    at = next;
    rest = rest.slice(cut + 1);
  }
  const fd = sys.openat2(at, rest as ByteString, flags, 0, STAY_BENEATH);
  sys.close(at);
  return fd;
}

/** The directories and descriptors of one view. */
export class Backing {
  readonly privileged: boolean;
  readonly attributes: OverlayAttributes;
  readonly writable: boolean;
  readonly usesMetacopy: boolean;
  readonly redirectsDirectories: boolean;
  readonly umask = processUmask();
  readonly uid = process.geteuid!();
  readonly gid = process.getegid!();
  /** O_PATH descriptors for the life of the view; -1 when read-only. */
  readonly upperFd: number = -1;
  readonly temporaryFd: number = -1;
  readonly indexFd: number = -1;
  readonly orphanFd: number = -1;
  /** Upper directories by node ID; layer directories by negative keys. */
  readonly directories = new DescriptorCache(DIRECTORY_DESCRIPTORS);
  /** Regular files by node ID. */
  readonly files = new DescriptorCache(FILE_DESCRIPTORS);
  /** False once the disk has refused to clone. */
  canClone = true;
  readonly #layerDirs: readonly string[];
  #temporary = 0;

  /**
   * @throws SyscallError a directory cannot be opened or made
   * @throws InvalidArgumentError upper and work directory are on different file systems
   */
  readonly tally: Tally | undefined;

  constructor(options: BackingOptions) {
    this.privileged = options.privileged;
    this.tally = options.tally;
    this.attributes = overlayAttributes(options.privileged);
    this.#layerDirs = options.layerDirs;
    this.usesMetacopy = options.metacopy !== false;
    this.redirectsDirectories = options.redirectDirectories !== false;
    this.writable = options.upperDir !== undefined && options.workDir !== undefined;
    if (options.upperDir === undefined || options.workDir === undefined) return;
    this.upperFd = openDirectory(toBytes(options.upperDir));
    const workFd = openDirectory(toBytes(options.workDir));
    if (deviceOf(this.upperFd) !== deviceOf(workFd)) {
      throw new InvalidArgumentError(
        `open view: ${options.upperDir} and ${options.workDir} are on different file systems; ` +
          "every change is renamed from one to the other",
      );
    }
    this.temporaryFd = this.#openArea(workFd, WORK_TEMPORARY);
    this.indexFd = this.#openArea(workFd, WORK_INDEX);
    this.orphanFd = this.#openArea(workFd, WORK_ORPHANS);
    sys.close(workFd);
    // Whatever an earlier process left half made, and files that only its mount referenced.
    this.emptyDirectory(this.temporaryFd);
    if (options.inherited !== true) this.emptyDirectory(this.orphanFd);
  }

  #openArea(workFd: number, name: ByteString): number {
    const made = sys.mkdirat(workFd, name, 0o700);
    if (made < 0 && made !== -EEXIST) must(made, "mkdir", name);
    return must(openBeneath(workFd, name, O_PATH | O_DIRECTORY), "open", name);
  }

  /** A name that nothing has in the temporary area. */
  temporaryName(): ByteString {
    return `t${++this.#temporary}` as ByteString;
  }

  /**
   * Puts a whiteout at a free name: one more link to a single device, as kernel overlayfs has them. A
   * device of its own costs twice as much, and thirty times as much where many files were deleted
   * within the last minute, since ext4 then searches long for an inode to use.
   */
  makeWhiteout(dirfd: number, name: ByteString): Result {
    const linked = sys.linkat(this.temporaryFd, WHITEOUT, dirfd, name, 0);
    if (linked >= 0 || linked === -EEXIST) return linked;
    // Not made yet, or it has as many links as the disk's file system allows.
    sys.unlinkat(this.temporaryFd, WHITEOUT, 0);
    if (sys.mknodat(this.temporaryFd, WHITEOUT, S_IFCHR, 0) >= 0) {
      const again = sys.linkat(this.temporaryFd, WHITEOUT, dirfd, name, 0);
      if (again >= 0) return again;
    }
    return sys.mknodat(dirfd, name, S_IFCHR, 0);
  }

  /** An O_PATH descriptor of a layer's `fs` (cached, borrowed), or a negative errno. */
  layerFd(layer: number): number {
    const key = -16 - layer;
    const cached = this.directories.get(key);
    if (cached >= 0) return cached;
    const fd = sys.open(toBytes(this.#layerDirs[layer] ?? ""), O_PATH | O_DIRECTORY, 0);
    return fd < 0 ? fd : this.directories.put(key, fd);
  }

  /** Opens a lower regular file for reading (the caller owns the descriptor), or a negative errno. */
  openLower(layer: number, path: ByteString): number {
    const base = this.layerFd(layer);
    if (base < 0) return base;
    // Layers are shared and immutable: reading must not turn into inode writes. Only the owner (or
    // root) may ask for that.
    const fd = openBeneath(base, path, O_RDONLY | O_NOFOLLOW | O_NOATIME);
    return fd === -EPERM ? openBeneath(base, path, O_RDONLY | O_NOFOLLOW) : fd;
  }

  /** An O_PATH descriptor of a lower regular file (the caller owns it), or a negative errno. */
  locateLower(layer: number, path: ByteString): number {
    const base = this.layerFd(layer);
    return base < 0 ? base : openBeneath(base, path, O_PATH | O_NOFOLLOW);
  }

  /** Removes an object of an area, a directory with all that is in it. Errors are left for the next start. */
  purge(areaFd: number, name: ByteString): void {
    const removed = sys.unlinkat(areaFd, name, 0);
    if (removed !== -EISDIR && removed !== -EPERM) return;
    if (sys.unlinkat(areaFd, name, AT_REMOVEDIR) >= 0) return;
    const fd = sys.openat(areaFd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0) return;
    this.emptyDirectory(fd);
    sys.close(fd);
    sys.unlinkat(areaFd, name, AT_REMOVEDIR);
  }

  /** Removes everything in a directory. Directories of the areas are a level or two deep. */
  emptyDirectory(fd: number): void {
    for (const name of this.list(fd)) this.purge(fd, name);
  }

  /** The names in a directory given by an O_PATH descriptor; none when it cannot be read. */
  list(fd: number): ByteString[] {
    const readable = sys.openat(fd, "." as ByteString, O_RDONLY | O_DIRECTORY, 0);
    if (readable < 0) return [];
    const listing = sys.readDirectory(readable);
    sys.close(readable);
    return typeof listing === "number" ? [] : listing.names;
  }

  /** Closes every descriptor. */
  close(): void {
    this.directories.dispose();
    this.files.dispose();
    for (const fd of [this.upperFd, this.temporaryFd, this.indexFd, this.orphanFd]) {
      if (fd >= 0) sys.close(fd);
    }
  }
}
