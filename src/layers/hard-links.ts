/** Hard links of a layer: within its tree, or to a file of a layer below that is copied up for it. */

import { sys } from "../system/addon.js";
import { type ByteString, display, toBytes } from "../system/bytes.js";
import { O_CLOEXEC, O_NOFOLLOW, SEEK_END } from "../system/constants.js";
import { EEXIST, must } from "../system/errno.js";
import {
  STAT_GID,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_UID,
} from "../system/native.js";
import type { DirectoryNode, DirectoryTree } from "./directory-tree.js";
import type { EntryContext } from "./entry-context.js";
import type { EntryMetadata } from "./entry-metadata.js";
import { baseName, cleanEntryPath, parentPath } from "./entry-path.js";
import { copyFileBody } from "./file-body.js";
import type { TarEntry } from "./tar-entry.js";
import { S_IFCHR, S_IFDIR, S_IFLNK, type TreePaths } from "./tree-paths.js";

/** What hard links need of the writer. */
export interface HardLinkHost {
  readonly tree: DirectoryTree;
  readonly paths: TreePaths;
  readonly metadata: EntryMetadata;
  readonly context: EntryContext;
  readonly lowerFile?: ((path: ByteString) => string | undefined) | undefined;
  /** Makes an empty file, open for writing; the caller closes it. */
  createFile(parent: DirectoryNode, name: ByteString, entry: TarEntry): number;
  /** Applies a file's metadata once its data is there. */
  describeFile(fd: number, entry: TarEntry): void;
}

const CAPABILITY = "security.capability" as ByteString;

/** See the file comment. */
export class HardLinks {
  readonly #host: HardLinkHost;
  readonly #tree: DirectoryTree;
  readonly #paths: TreePaths;
  readonly #context: EntryContext;

  constructor(host: HardLinkHost) {
    this.#host = host;
    this.#tree = host.tree;
    this.#paths = host.paths;
    this.#context = host.context;
  }

  /** Makes `name` in `parent` a link to the file that `entry.linkTarget` names. */
  add(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    const target = cleanEntryPath(entry.linkTarget, this.#context.subject);
    const targetName = baseName(target);
    const targetParent = this.#requireLinkTarget(target, targetName, entry);
    if (targetParent === parent && targetName === name) return;
    const link = () =>
      sys.linkat(this.#tree.fd(targetParent), targetName, this.#tree.fd(parent), name, 0);
    let result = link();
    if (result === -EEXIST) {
      this.#paths.clear(parent, name);
      result = link();
    }
    this.#context.check(result, "linkat");
    this.#describeLink(parent, name, entry);
  }

  /** The directory with the link's target, which is brought up from a lower layer if need be. */
  #requireLinkTarget(target: ByteString, name: ByteString, entry: TarEntry): DirectoryNode {
    const shown = JSON.stringify(display(target));
    const parent = this.#paths.find(parentPath(target));
    const type = parent === undefined || name === "" ? 0 : this.#paths.typeOf(parent, name);
    if (type === S_IFDIR) throw this.#context.corrupt(`hard link to the directory ${shown}`);
    const isThere = type !== 0 && !(type === S_IFCHR && this.#paths.isWhiteout());
    if (isThere) return parent as DirectoryNode;
    const lower = type === 0 ? this.#host.lowerFile?.(target) : undefined;
    if (lower === undefined) {
      throw this.#context.corrupt(`hard link to ${shown}, which is not in the layer`);
    }
    return this.#copyUp(target, lower, entry);
  }

  #copyUp(target: ByteString, hostPath: string, entry: TarEntry): DirectoryNode {
    const parent = this.#paths.walk(parentPath(target), true);
    const from = must(sys.open(toBytes(hostPath), O_NOFOLLOW | O_CLOEXEC, 0), "open", hostPath);
    try {
      const size = must(sys.lseek(from, 0, SEEK_END), "lseek", hostPath);
      const fd = this.#host.createFile(parent, baseName(target), entry);
      try {
        copyFileBody(from, fd, size, this.#context.where());
        // A link's header repeats its target's, so it describes the copy.
        this.#host.describeFile(fd, { ...entry, type: "file", size });
      } finally {
        sys.close(fd);
      }
    } finally {
      sys.close(from);
    }
    return parent;
  }

  /**
   * The last entry of an inode describes it, links included, as in Go's tools. Links of sane archives
   * repeat their target's header, so there is nothing to do and no capability to lose by a chown.
   */
  #describeLink(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    const type = this.#paths.typeOf(parent, name);
    const stat = this.#paths.stat;
    const mode = (stat[STAT_MODE] as number) & 0o7777;
    const isSame =
      stat[STAT_UID] === entry.uid &&
      stat[STAT_GID] === entry.gid &&
      (type === S_IFLNK || mode === entry.mode) &&
      stat[STAT_MTIME_SEC] === entry.mtimeSec &&
      stat[STAT_MTIME_NSEC] === entry.mtimeNsec;
    if (isSame) return;
    const described = type === S_IFLNK ? { ...entry, type: "symlink" as const } : entry;
    this.#redescribe(parent, name, described, mode);
  }

  /** A chown takes a capability away, and links' headers seldom repeat attributes: it is put back. */
  #redescribe(parent: DirectoryNode, name: ByteString, entry: TarEntry, mode: number): void {
    const fd = this.#tree.fd(parent);
    const capability = sys.getxattrat(fd, name, CAPABILITY);
    this.#host.metadata.apply(fd, name, entry, mode, this.#context.where);
    const isRestated = entry.xattrs.some((xattr) => xattr.name === CAPABILITY);
    if (typeof capability === "number" || isRestated) return;
    this.#context.check(sys.setxattrat(fd, name, CAPABILITY, capability, 0), "setxattr");
  }
}
