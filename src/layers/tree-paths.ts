/**
 * Finds and makes the directories that a layer's entries lie in. Symlinks of the layer itself are
 * followed inside the tree, as after a chroot; the kernel never walks more than one component.
 */

import { isWhiteout } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, display, joinBytes } from "../system/bytes.js";
import { AT_SYMLINK_NOFOLLOW } from "../system/constants.js";
import { EEXIST, ENOENT, must } from "../system/errno.js";
import { STAT_MODE, STAT_RDEV, STAT_SLOTS } from "../system/native.js";
import type { DirectoryNode, DirectoryTree } from "./directory-tree.js";
import type { EntryContext } from "./entry-context.js";
import { parentPath } from "./entry-path.js";

const S_IFMT = 0o170000;
/** Type bits of a symlink's mode. */
export const S_IFLNK = 0o120000;
/** Type bits of a character device's mode. */
export const S_IFCHR = 0o020000;
/** Type bits of a directory's mode. */
export const S_IFDIR = 0o040000;
/** As the kernel's own path walk. */
const MAX_SYMLINKS = 40;

/** See the file comment. */
export class TreePaths {
  /** What `typeOf` found: STAT_SLOTS numbers. */
  readonly stat = new Float64Array(STAT_SLOTS);
  readonly #tree: DirectoryTree;
  readonly #context: EntryContext;
  /** The parent of the latest entry, because neighbours in an archive share it. */
  #parentPath: ByteString | undefined;
  #parent: DirectoryNode | undefined;

  readonly #onClear: (parent: DirectoryNode, name: ByteString) => void;

  /** @param onClear told before an object of this layer is removed for another */
  constructor(
    tree: DirectoryTree,
    context: EntryContext,
    onClear: (parent: DirectoryNode, name: ByteString) => void,
  ) {
    this.#tree = tree;
    this.#context = context;
    this.#onClear = onClear;
  }

  /** The directory that holds `path`, made with its parents if need be. */
  parentOf(path: ByteString): DirectoryNode {
    const parent = parentPath(path);
    if (parent === this.#parentPath && this.#parent !== undefined) return this.#parent;
    const node = this.walk(parent, true) as DirectoryNode;
    this.#parentPath = parent;
    this.#parent = node;
    return node;
  }

  /** Must be called when directories went away. */
  forgetParent(): void {
    this.#parent = undefined;
    this.#parentPath = undefined;
  }

  /** The directory at `path` if this layer has it. */
  find(path: ByteString): DirectoryNode | undefined {
    return this.walk(path, false);
  }

  /** Walks to a directory, through symlinks of this layer; missing ones are made if `create`. */
  walk(path: ByteString, create: true): DirectoryNode;
  walk(path: ByteString, create: boolean): DirectoryNode | undefined;
  walk(path: ByteString, create: boolean): DirectoryNode | undefined {
    const pending = path.split("/").reverse() as ByteString[];
    let node = this.#tree.root;
    let symlinks = 0;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      if (name === "" || name === ".") continue;
      // Only a symlink's target can still hold "..": it stops at the root, as in a chroot.
      const next = name === ".." ? (node.parent ?? node) : this.#enter(node, name, create);
      if (next === undefined) return undefined;
      if (typeof next !== "string") {
        node = next;
        continue;
      }
      if (++symlinks > MAX_SYMLINKS) throw this.#context.corrupt("too many symlinks on its way");
      if (next.startsWith("/")) node = this.#tree.root;
      pending.push(...(next.split("/").reverse() as ByteString[]));
    }
    return node;
  }

  /** One step: the directory `name` in `parent`, or the target of the symlink that has the name. */
  #enter(
    parent: DirectoryNode,
    name: ByteString,
    create: boolean,
  ): DirectoryNode | ByteString | undefined {
    const known = parent.children.get(name);
    if (known !== undefined) return known;
    if (create) {
      const made = this.#tree.make(parent, name);
      if (typeof made !== "number") return made;
      if (made !== -EEXIST) this.#context.check(made, "mkdirat");
    }
    const type = this.typeOf(parent, name);
    if (type === S_IFLNK) {
      return must(sys.readlinkat(this.#tree.fd(parent), name), "readlinkat", this.#context.where());
    }
    if (!create) return undefined;
    if (type !== S_IFCHR || !this.isWhiteout()) {
      throw this.#context.corrupt(
        `${JSON.stringify(display(joinBytes(parent.path, name)))} is no directory`,
      );
    }
    return this.makeFreshDirectory(parent, name);
  }

  /** Fills #stat; the type bits of `name`, or 0 when there is none. */
  typeOf(parent: DirectoryNode, name: ByteString): number {
    const result = sys.statx(this.#tree.fd(parent), name, AT_SYMLINK_NOFOLLOW, this.stat);
    if (result === -ENOENT) return 0;
    this.#context.check(result, "statx");
    return (this.stat[STAT_MODE] as number) & S_IFMT;
  }

  isWhiteout(): boolean {
    return isWhiteout(this.stat[STAT_MODE] as number, this.stat[STAT_RDEV] as number);
  }

  /** A directory in the place of this layer's own whiteout: it goes on hiding what is below. */
  makeFreshDirectory(parent: DirectoryNode, name: ByteString): DirectoryNode {
    this.#context.check(sys.unlinkat(this.#tree.fd(parent), name, 0), "unlinkat");
    const node = must(
      this.#tree.make(parent, name),
      "mkdirat",
      this.#context.where(),
    ) as DirectoryNode;
    node.isOpaque = true;
    node.isFresh = true;
    return node;
  }

  /** Removes whatever has the name, so that an entry can take it. */
  clear(parent: DirectoryNode, name: ByteString): void {
    this.#onClear(parent, name);
    const directory = parent.children.get(name);
    if (directory === undefined) {
      this.#context.check(sys.unlinkat(this.#tree.fd(parent), name, 0), "unlinkat");
      return;
    }
    this.forgetParent();
    this.#tree.remove(directory);
  }
}
