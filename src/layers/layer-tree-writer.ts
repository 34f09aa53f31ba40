/**
 * Writes the entries of one layer as a plain tree with kernel-overlay whiteouts, safely whatever the
 * entries say: nothing outside the tree is ever touched, because every system call gets a directory
 * descriptor of the tree and one name.
 *
 * How entries of one layer act on each other:
 * - the last entry of a name wins; a directory over a directory keeps what is in it;
 * - a parent that is a symlink of this layer is followed inside the tree, as in a chroot;
 * - parents that no entry named are made with 0755, root, time 0, and reported;
 * - a directory that replaces another object of this layer starts empty, whatever lies below;
 * - a whiteout hides lower layers only: what this layer itself creates under the name stays, and a
 *   directory of that name becomes opaque, whichever came first.
 *
 * Nothing is synced; who commits the tree calls syncfs once.
 */

import { isWhiteout, overlayAttributes } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBuffer, toBytes } from "../system/bytes.js";
import { O_CLOEXEC, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } from "../system/constants.js";
import { EEXIST, EPERM, must } from "../system/errno.js";
import { BUILD_MODE, type DirectoryNode, DirectoryTree } from "./directory-tree.js";
import { EntryContext } from "./entry-context.js";
import { EntryMetadata } from "./entry-metadata.js";
import { baseName, cleanEntryPath } from "./entry-path.js";
import { BodyCursor, copyFileBody } from "./file-body.js";
import { HardLinks, type LowerLink } from "./hard-links.js";
import { type TarEntry, TYPE_MODE } from "./tar-entry.js";
import { S_IFCHR, TreePaths } from "./tree-paths.js";

const CREATE_FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
/** A message per left-out attribute of a big layer would drown the log. */
const MAX_WARNINGS = 20;

/** Settings of a LayerTreeWriter. */
export interface LayerTreeWriterOptions {
  /** An existing empty directory; becomes the root of the layer's tree. */
  readonly directory: string;
  /** Whether this process may chown, make devices and set trusted.* attributes. */
  readonly privileged: boolean;
  /** The layer's name in errors. */
  readonly subject?: string;
  /**
   * Whether hard links may name files of the layers below: an empty file then stands for each, and
   * `lowerLinks` lists them. By default such links are refused.
   */
  readonly mayLinkBelow?: boolean;
}

/** What a finished tree holds. */
export interface WrittenTree {
  /** Objects made, replaced ones included. */
  readonly entries: number;
  /** Directories that only entries below them named, parents first; "" is the root itself. */
  readonly impliedDirectories: ByteString[];
  /** Hard links that are still to be joined to files of the layers below. */
  readonly lowerLinks: LowerLink[];
  /** What had to be left out, for a person. */
  readonly warnings: string[];
}

/** See the file comment. After an error only `abort` may be called. */
export class LayerTreeWriter {
  readonly #tree: DirectoryTree;
  readonly #metadata: EntryMetadata;
  readonly #options: LayerTreeWriterOptions;
  readonly #context: EntryContext;
  readonly #paths: TreePaths;
  readonly #links: HardLinks;
  readonly #warnings: string[] = [];
  #entries = 0;

  /** The file whose body is coming. */
  #file: { fd: number; entry: TarEntry; body: BodyCursor } | undefined;

  /** @throws SyscallError the directory cannot be opened */
  constructor(options: LayerTreeWriterOptions) {
    this.#options = options;
    this.#context = new EntryContext(options.subject ?? `layer tree ${options.directory}`);
    this.#tree = new DirectoryTree(toBytes(options.directory));
    this.#metadata = new EntryMetadata(options.privileged, (message) => this.#warn(message));
    this.#paths = new TreePaths(this.#tree, this.#context, (parent, name) =>
      this.#links.forget(parent, name),
    );
    this.#links = new HardLinks({
      tree: this.#tree,
      paths: this.#paths,
      metadata: this.#metadata,
      context: this.#context,
      mayLeadBelow: options.mayLinkBelow === true,
      createFile: (parent, name, entry) => this.#createFile(parent, name, entry),
    });
    this.#isolateRoot();
  }

  /** Undoes what the root got from the directory it stands in: group, set-gid bit, ACLs. */
  #isolateRoot(): void {
    const fd = this.#tree.fd(this.#tree.root);
    for (const acl of ["system.posix_acl_default", "system.posix_acl_access"]) {
      sys.removexattrat(fd, NO_NAME, acl as ByteString);
    }
    this.#metadata.takeOwnership(fd, this.#options.directory);
    must(sys.fchmod(fd, BUILD_MODE), "fchmod", this.#options.directory);
  }

  #warn(message: string): void {
    if (this.#warnings.length < MAX_WARNINGS) this.#warnings.push(message);
    else if (this.#warnings.length === MAX_WARNINGS) this.#warnings.push("(more left out)");
  }

  /**
   * Makes the object of `entry`, replacing what has its name. The body of a file follows through
   * `write`, all of it before the next call of another method.
   *
   * @throws CorruptDataError a path that leads out, a parent that is no directory, a hard link to
   *   nothing, a whiteout device
   * @throws SyscallError the file system refuses
   */
  add(entry: TarEntry): void {
    const path = this.#begin(entry.path);
    this.#entries++;
    if (path === "") {
      if (entry.type !== "directory") throw this.#context.corrupt("the root must be a directory");
      this.#tree.root.entry = entry;
      return;
    }
    const parent = this.#paths.parentOf(path);
    const name = baseName(path);
    switch (entry.type) {
      case "file":
        this.#startFile(parent, name, entry);
        break;
      case "directory":
        this.#addDirectory(parent, name, entry);
        break;
      case "symlink":
        this.#addSymlink(parent, name, entry);
        break;
      case "hardlink":
        this.#links.add(parent, name, entry);
        break;
      default:
        this.#addSpecial(parent, name, entry);
    }
  }

  /** Continues the body of the latest file with `chunk[start, end)`; ignored after other entries. */
  write(chunk: Buffer, start = 0, end = chunk.length): void {
    const file = this.#file;
    if (file === undefined) return;
    file.body.write(chunk, start, end);
    if (file.body.isComplete) this.#finishFile();
  }

  /**
   * Makes a regular file with the bytes of another one, sharing blocks where the disk can and
   * keeping holes.
   *
   * @param sourceFd borrowed, open for reading
   */
  addFile(entry: TarEntry, sourceFd: number): void {
    const path = this.#begin(entry.path);
    this.#entries++;
    const fd = this.#createFile(this.#paths.parentOf(path), baseName(path), entry);
    try {
      copyFileBody(sourceFd, fd, entry.size, this.#context.where());
      this.#describeFile(fd, entry);
    } finally {
      sys.close(fd);
    }
  }

  /** Hides `path` in the layers below. */
  whiteout(path: ByteString): void {
    const clean = this.#begin(path);
    this.#entries++;
    if (clean === "") throw this.#context.corrupt("a whiteout of the root");
    const parent = this.#paths.parentOf(clean);
    const name = baseName(clean);
    const directory = parent.children.get(name);
    if (directory !== undefined) {
      directory.isOpaque = true;
      directory.isFresh = true;
      return;
    }
    const result = sys.mknodat(this.#tree.fd(parent), name, S_IFCHR, 0);
    // What this layer created hides the lower name by being there.
    if (result !== -EEXIST) this.#context.check(result, "mknodat");
  }

  /** Hides all that the layers below have in directory `path`, which is made if need be. */
  opaque(path: ByteString): void {
    const clean = this.#begin(path);
    this.#entries++;
    this.#paths.walk(clean, true).isOpaque = true;
  }

  /** Removes a directory of this layer again, if there is one, as though it had never been added. */
  discard(path: ByteString): void {
    const node = this.#paths.find(this.#begin(path));
    if (node === undefined || node.parent === undefined) return;
    this.#paths.forgetParent();
    this.#tree.remove(node);
  }

  /**
   * Gives the directories their owners, modes and times, and closes the tree.
   *
   * @throws CorruptDataError the last file is incomplete
   */
  finish(): WrittenTree {
    this.#requireNoFile();
    const implied: ByteString[] = [];
    this.#tree.forEachDeepestFirst((node) => {
      this.#finishDirectory(node);
      if (node.entry === undefined && !node.isFresh) implied.push(node.path);
    });
    this.abort();
    return {
      entries: this.#entries,
      impliedDirectories: implied.reverse(),
      lowerLinks: this.#links.lowerLinks,
      warnings: this.#warnings,
    };
  }

  /** Closes all descriptors and leaves the tree as it is. Idempotent. */
  abort(): void {
    if (this.#file !== undefined) sys.close(this.#file.fd);
    this.#file = undefined;
    this.#tree.close();
  }

  #begin(path: ByteString): ByteString {
    this.#requireNoFile();
    this.#context.path = path;
    return cleanEntryPath(path, this.#context.subject);
  }

  #requireNoFile(): void {
    if (this.#file !== undefined) throw this.#context.corrupt("its data is incomplete");
  }

  #addDirectory(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    let node: DirectoryNode | number = parent.children.get(name) ?? this.#tree.make(parent, name);
    if (node === -EEXIST) {
      this.#paths.typeOf(parent, name);
      if (this.#paths.isWhiteout()) {
        node = this.#paths.makeFreshDirectory(parent, name);
      } else {
        this.#paths.clear(parent, name);
        node = this.#tree.make(parent, name);
        // What it replaces had taken the place of any lower directory, whose entries are gone.
        if (typeof node !== "number") {
          node.isOpaque = true;
          node.isFresh = true;
        }
      }
    }
    const directory = must(node, "mkdirat", this.#context.where()) as DirectoryNode;
    directory.entry = entry;
  }

  #finishDirectory(node: DirectoryNode): void {
    const entry = node.entry ?? IMPLIED;
    this.#context.path = node.path;
    const fd = this.#tree.fd(node);
    if (node.isOpaque) {
      const { opaque } = overlayAttributes(this.#options.privileged);
      this.#context.check(sys.setxattrat(fd, NO_NAME, opaque, OPAQUE_VALUE, 0), "setxattr");
    }
    const created = node.parent === undefined ? BUILD_MODE : this.#metadata.createdMode(BUILD_MODE);
    this.#metadata.apply(fd, NO_NAME, entry, created, this.#context.where);
  }

  #createFile(parent: DirectoryNode, name: ByteString, entry: TarEntry): number {
    const mode = entry.mode & 0o777;
    let fd = sys.openat(this.#tree.fd(parent), name, CREATE_FLAGS, mode);
    if (fd === -EEXIST) {
      this.#paths.clear(parent, name);
      fd = sys.openat(this.#tree.fd(parent), name, CREATE_FLAGS, mode);
    }
    return this.#context.check(fd, "openat");
  }

  #startFile(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    const fd = this.#createFile(parent, name, entry);
    this.#file = { fd, entry, body: new BodyCursor(fd, entry, this.#context.subject) };
    if (this.#file.body.isComplete) this.#finishFile();
  }

  #finishFile(): void {
    const file = this.#file;
    if (file === undefined) return;
    file.body.finish();
    this.#describeFile(file.fd, file.entry);
    sys.close(file.fd);
    this.#file = undefined;
  }

  #describeFile(fd: number, entry: TarEntry): void {
    const created = this.#metadata.createdMode(entry.mode);
    this.#metadata.apply(fd, NO_NAME, entry, created, this.#context.where);
  }

  #addSymlink(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    let result = sys.symlinkat(entry.linkTarget, this.#tree.fd(parent), name);
    if (result === -EEXIST) {
      this.#paths.clear(parent, name);
      result = sys.symlinkat(entry.linkTarget, this.#tree.fd(parent), name);
    }
    this.#context.check(result, "symlinkat");
    this.#metadata.apply(this.#tree.fd(parent), name, entry, 0, this.#context.where);
  }

  #addSpecial(parent: DirectoryNode, name: ByteString, entry: TarEntry): void {
    const mode = TYPE_MODE[entry.type as "fifo"] | (entry.mode & 0o777);
    if (isWhiteout(mode, entry.rdev)) {
      throw this.#context.corrupt(
        "character device 0:0 is reserved: the overlay takes it for a whiteout",
      );
    }
    let result = sys.mknodat(this.#tree.fd(parent), name, mode, entry.rdev);
    if (result === -EEXIST) {
      this.#paths.clear(parent, name);
      result = sys.mknodat(this.#tree.fd(parent), name, mode, entry.rdev);
    }
    if (result === -EPERM && !this.#options.privileged) {
      // As other rootless tools do: the name stays visible, the device cannot exist.
      this.#warn(
        `${this.#context.where()}: device left out (not root); an empty file stands for it`,
      );
      this.#startFile(parent, name, { ...entry, type: "file", size: 0 });
      return;
    }
    this.#context.check(result, "mknodat");
    const created = this.#metadata.createdMode(entry.mode);
    this.#metadata.apply(this.#tree.fd(parent), name, entry, created, this.#context.where);
  }
}

const NO_NAME = "" as ByteString;
const OPAQUE_VALUE = toBuffer("y" as ByteString);

/** What stands for a directory that no entry described. */
const IMPLIED: TarEntry = {
  path: "" as ByteString,
  type: "directory",
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeSec: 0,
  mtimeNsec: 0,
  linkTarget: NO_NAME,
  rdev: 0,
  xattrs: [],
};
