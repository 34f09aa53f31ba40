/** Opening and comparing the data of files in a view: in its upper, its work directory or a layer. */

import type { ChainIndex } from "../overlay/chain-index.js";
import { sys } from "../system/addon.js";
import { type ByteString, display } from "../system/bytes.js";
import { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from "../system/constants.js";
import { must } from "../system/errno.js";
import { DiskTree } from "./layer-scan.js";
import type { ContentSource, DiffOptions } from "./upper-tree.js";

/** Layers whose root directories stay open; a chain may have a thousand. */
const MAX_OPEN_LAYERS = 64;
const COMPARE_CHUNK = 256 * 1024;
/** O_NONBLOCK: should a fifo have taken the place of a file meanwhile, opening it must not hang. */
const OPEN_FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;

/** See the file comment. Close it after use. */
export class ContentReader {
  readonly #index: ChainIndex;
  readonly #upper: DiskTree;
  readonly #work: DiskTree;
  readonly #layerDirs: readonly string[];
  readonly #layers = new Map<number, DiskTree>();
  readonly #buffers = [
    Buffer.allocUnsafe(COMPARE_CHUNK),
    Buffer.allocUnsafe(COMPARE_CHUNK),
  ] as const;

  constructor(options: DiffOptions) {
    this.#index = options.index;
    this.#layerDirs = options.layerDirs;
    this.#upper = new DiskTree(options.upperDir);
    try {
      this.#work = new DiskTree(options.workDir);
    } catch (error) {
      this.#upper.close();
      throw error;
    }
  }

  /**
   * Opens the data of a file for reading. The caller closes the descriptor.
   *
   * @throws SyscallError the file is gone or unreadable
   */
  open(source: ContentSource): number {
    const { disk, path } = this.#place(source);
    return must(disk.tryOpen(path, OPEN_FLAGS), "openat2", disk.describe(path));
  }

  /** Reads small files of the upper directory on the thread pool. @see Syscalls.readFilesAsync */
  readUpperFiles(paths: Buffer, numbers: Float64Array, out: Buffer): Promise<number> | number {
    return sys.readFilesAsync(this.#upper.rootFd, paths, numbers, out);
  }

  /** Where the data is, for messages. */
  describe(source: ContentSource): string {
    const { disk, path } = this.#place(source);
    return disk.describe(path);
  }

  #place(source: ContentSource): { disk: DiskTree; path: ByteString } {
    if (source.kind === "upper") return { disk: this.#upper, path: source.path };
    if (source.kind === "work") return { disk: this.#work, path: source.path };
    const disk = this.#layer(this.#index.layer(source.inode));
    return { disk, path: this.#index.contentPath(source.inode) };
  }

  #layer(position: number): DiskTree {
    let disk = this.#layers.get(position);
    if (disk !== undefined) return disk;
    if (this.#layers.size >= MAX_OPEN_LAYERS) this.#closeLayers();
    disk = new DiskTree(this.#layerDirs[position] as string);
    this.#layers.set(position, disk);
    return disk;
  }

  /** True when two files hold the same `size` bytes (one that is shorter does not). */
  isEqual(one: ContentSource, other: ContentSource, size: number): boolean {
    if (size === 0 || this.#isSame(one, other)) return true;
    const oneFd = this.open(one);
    try {
      const otherFd = this.open(other);
      try {
        return this.#isEqualData(oneFd, otherFd, size, display(this.#place(one).path));
      } finally {
        sys.close(otherFd);
      }
    } finally {
      sys.close(oneFd);
    }
  }

  #isSame(one: ContentSource, other: ContentSource): boolean {
    if (one.kind !== "lower" || other.kind !== "lower") return false;
    if (one.inode === other.inode) return true;
    const index = this.#index;
    return (
      index.layer(one.inode) === index.layer(other.inode) &&
      index.contentPath(one.inode) === index.contentPath(other.inode)
    );
  }

  #isEqualData(oneFd: number, otherFd: number, size: number, subject: string): boolean {
    const [a, b] = this.#buffers;
    for (let offset = 0; offset < size; ) {
      const want = Math.min(COMPARE_CHUNK, size - offset);
      const oneCount = readFully(oneFd, a, want, offset, subject);
      const otherCount = readFully(otherFd, b, want, offset, subject);
      if (oneCount !== want || otherCount !== want) return false;
      if (a.compare(b, 0, want, 0, want) !== 0) return false;
      offset += want;
    }
    return true;
  }

  #closeLayers(): void {
    for (const disk of this.#layers.values()) disk.close();
    this.#layers.clear();
  }

  close(): void {
    this.#closeLayers();
    this.#upper.close();
    this.#work.close();
  }
}

/**
 * Reads `length` bytes at `offset` into the start of `target`, less only at the end of the file.
 *
 * @throws SyscallError
 */
export function readFully(
  fd: number,
  target: Buffer,
  length: number,
  offset: number,
  subject: string,
): number {
  let done = 0;
  while (done < length) {
    const count = must(sys.pread(fd, target, done, length - done, offset + done), "pread", subject);
    if (count === 0) break;
    done += count;
  }
  return done;
}
