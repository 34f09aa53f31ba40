/**
 * The directories of a tree that is being written, mirrored in memory.
 *
 * The tree starts empty and has one writer, so this mirror is complete: a name without a node is no
 * directory, and no system call is needed to know it. Descriptors of recently used directories stay
 * open (a bounded number), so that entries are made with one-component names only; no path is ever
 * walked by the kernel, and none can lead out.
 */

import { sys } from "../system/addon.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
} from "../system/constants.js";
import { must } from "../system/errno.js";
import type { TarEntry } from "./tar-entry.js";

/** Far below the usual limit of 1024 descriptors, as several layers unpack side by side. */
const MAX_OPEN = 64;

const OPEN_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/** Mode of directories while entries are made in them; the final one comes at the end. */
export const BUILD_MODE = 0o700;

/** One directory. */
export class DirectoryNode {
  readonly parent: DirectoryNode | undefined;
  readonly name: ByteString;
  readonly children = new Map<ByteString, DirectoryNode>();
  /** The entry that described it; undefined while only entries below it named it. */
  entry: TarEntry | undefined;
  /** Hides what lower layers have in it. */
  isOpaque = false;
  /** A whiteout of its own name says that nothing of a lower directory continues here. */
  isFresh = false;
  /** Owned by DirectoryTree: an open descriptor, or -1. */
  fd = -1;

  constructor(parent: DirectoryNode | undefined, name: ByteString) {
    this.parent = parent;
    this.name = name;
  }

  /** Path from the root of the tree, without a leading slash. */
  get path(): ByteString {
    return this.parent === undefined ? ("" as ByteString) : joinBytes(this.parent.path, this.name);
  }
}

/** See the file comment. */
export class DirectoryTree {
  readonly root = new DirectoryNode(undefined, "" as ByteString);
  readonly #rootPath: ByteString;
  /** Nodes with open descriptors, least recently used first; the root is not among them. */
  readonly #open = new Set<DirectoryNode>();

  /** @throws SyscallError `rootPath` cannot be opened as a directory */
  constructor(rootPath: ByteString) {
    this.#rootPath = rootPath;
    this.root.fd = must(sys.openat(AT_FDCWD, rootPath, OPEN_FLAGS, 0), "open", rootPath);
  }

  /** A descriptor of the directory, valid until the next call of any method. */
  fd(node: DirectoryNode): number {
    if (node.fd < 0) {
      const parent = this.fd(node.parent as DirectoryNode);
      const fd = sys.openat(parent, node.name, OPEN_FLAGS, 0);
      // The path is only put together for a message: it costs the square of a tree's depth.
      if (fd < 0) must(fd, "openat", this.#hostPath(node));
      node.fd = fd;
    } else if (node.parent === undefined) {
      return node.fd;
    } else {
      this.#open.delete(node);
    }
    this.#open.add(node);
    if (this.#open.size > MAX_OPEN) this.#closeOldest();
    return node.fd;
  }

  #closeOldest(): void {
    for (const oldest of this.#open) {
      this.#release(oldest);
      return;
    }
  }

  #release(node: DirectoryNode): void {
    if (node.fd >= 0) sys.close(node.fd);
    node.fd = -1;
    this.#open.delete(node);
  }

  #hostPath(node: DirectoryNode): string {
    return joinBytes(this.#rootPath, node.path);
  }

  /**
   * Makes a directory.
   *
   * @returns its node, or a negative errno (-EEXIST: something else has the name)
   */
  make(parent: DirectoryNode, name: ByteString): DirectoryNode | number {
    const result = sys.mkdirat(this.fd(parent), name, BUILD_MODE);
    if (result < 0) return result;
    const node = new DirectoryNode(parent, name);
    parent.children.set(name, node);
    return node;
  }

  /** Removes a directory with all that is in it. */
  remove(node: DirectoryNode): void {
    for (const child of [...node.children.values()]) this.remove(child);
    const listing = sys.readDirectory(this.fd(node));
    if (typeof listing === "number") {
      must(listing, "getdents", this.#hostPath(node));
      return;
    }
    for (const name of listing.names) {
      must(sys.unlinkat(this.fd(node), name, 0), "unlinkat", this.#hostPath(node));
    }
    this.#release(node);
    const parent = node.parent as DirectoryNode;
    must(sys.unlinkat(this.fd(parent), node.name, AT_REMOVEDIR), "rmdir", this.#hostPath(node));
    parent.children.delete(node.name);
  }

  /** Calls `visit` for every directory, deepest first, siblings in order of creation; the root last. */
  forEachDeepestFirst(visit: (node: DirectoryNode) => void): void {
    const walk = (node: DirectoryNode): void => {
      for (const child of node.children.values()) walk(child);
      visit(node);
    };
    walk(this.root);
  }

  /** Closes all descriptors. Idempotent. */
  close(): void {
    for (const node of [...this.#open]) this.#release(node);
    if (this.root.fd >= 0) sys.close(this.root.fd);
    this.root.fd = -1;
  }
}
