/**
 * Hard links of a layer. A name that this layer lacks may be a file of the layers below, which are
 * unknown while a layer is unpacked: then an empty file stands for the link, and whoever joins the
 * layer to its parents replaces it (see lower-links.ts).
 */

import { sys } from "../system/addon.js";
import { type ByteString, display, joinBytes } from "../system/bytes.js";
import { EEXIST } from "../system/errno.js";
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
import type { TarEntry } from "./tar-entry.js";
import { S_IFCHR, S_IFDIR, S_IFLNK, type TreePaths } from "./tree-paths.js";

/** What hard links need of the writer. */
export interface HardLinkHost {
  readonly tree: DirectoryTree;
  readonly paths: TreePaths;
  readonly metadata: EntryMetadata;
  readonly context: EntryContext;
  /** False: a link to what this layer lacks is refused at once. */
  readonly mayLeadBelow: boolean;
  /** Makes an empty file, open for writing; the caller closes it. */
  createFile(parent: DirectoryNode, name: ByteString, entry: TarEntry): number;
}

/** A link to a file of the layers below. */
export interface LowerLink {
  /** Where the empty file is that stands for it. */
  readonly path: ByteString;
  /** The cleaned path of the file that it names. */
  readonly target: ByteString;
  /** Its header, which describes the file. */
  readonly entry: TarEntry;
  /** Layer and entry, for errors. */
  readonly where: string;
}

const CAPABILITY = "security.capability" as ByteString;

const shown = (path: ByteString) => JSON.stringify(display(path));

/** See the file comment. */
export class HardLinks {
  readonly #host: HardLinkHost;
  readonly #tree: DirectoryTree;
  readonly #paths: TreePaths;
  readonly #context: EntryContext;
  readonly #below = new Map<ByteString, LowerLink>();

  constructor(host: HardLinkHost) {
    this.#host = host;
    this.#tree = host.tree;
    this.#paths = host.paths;
    this.#context = host.context;
  }

  /** Links to files below, in the archive's order. */
  get lowerLinks(): LowerLink[] {
    return [...this.#below.values()];
  }

  /** Must be called when `name` in `parent` is about to be removed. */
  forget(parent: DirectoryNode, name: ByteString): void {
    if (this.#below.size === 0) return;
    const path = joinBytes(parent.path, name);
    for (const known of this.#below.keys()) {
      if (known === path || known.startsWith(`${path}/`)) this.#below.delete(known);
    }
  }

  /** Makes `name` in `parent` a link to the file that `entry.linkTarget` names. */
  add(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    const target = cleanEntryPath(entry.linkTarget, this.#context.subject);
    const targetName = baseName(target);
    const targetParent = this.#findTarget(target, targetName);
    if (targetParent === undefined) {
      this.#addBelow(parent, name, target, entry);
      return;
    }
    if (targetParent === parent && targetName === name) return;
    const placeholder = this.#below.get(joinBytes(targetParent.path, targetName));
    if (placeholder !== undefined) {
      this.#addBelow(parent, name, placeholder.target, entry);
      return;
    }
    const link = () =>
      sys.linkat(this.#tree.fd(targetParent), targetName, this.#tree.fd(parent), name, 0);
    let result = link();
    if (result === -EEXIST) {
      const own = joinBytes(parent.path, name);
      const isInside = joinBytes(targetParent.path, targetName).startsWith(`${own}/`);
      if (isInside) throw this.#context.corrupt(`hard link to ${shown(target)}, which it replaces`);
      this.#paths.clear(parent, name);
      result = link();
    }
    this.#context.check(result, "linkat");
    this.#describeLink(parent, name, entry);
  }

  /** The directory with the link's target; undefined when only the layers below can have it. */
  #findTarget(target: ByteString, name: ByteString): DirectoryNode | undefined {
    const parent = this.#paths.find(parentPath(target));
    const type = parent === undefined || name === "" ? 0 : this.#paths.typeOf(parent, name);
    if (type === S_IFDIR) {
      throw this.#context.corrupt(`hard link to the directory ${shown(target)}`);
    }
    const isWhiteout = type === S_IFCHR && this.#paths.isWhiteout();
    if (type !== 0 && !isWhiteout) return parent;
    if (isWhiteout || name === "" || !this.#host.mayLeadBelow || this.#isHidden(target)) {
      throw this.#missing(target);
    }
    return undefined;
  }

  #missing(target: ByteString): Error {
    return this.#context.corrupt(`hard link to ${shown(target)}, which is not in the layer`);
  }

  /** True when an opaque directory of this layer is above `target`. */
  #isHidden(target: ByteString): boolean {
    let path = target;
    let node: DirectoryNode | undefined;
    while (node === undefined) {
      path = parentPath(path);
      node = this.#paths.find(path);
    }
    for (; node !== undefined; node = node.parent) if (node.isOpaque) return true;
    return false;
  }

  #addBelow(parent: DirectoryNode, name: ByteString, target: ByteString, entry: TarEntry): void {
    const path = joinBytes(parent.path, name);
    if (path === target) throw this.#missing(target);
    const fd = this.#host.createFile(parent, name, entry);
    sys.close(fd);
    this.#below.set(path, { path, target, entry, where: this.#context.where() });
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
