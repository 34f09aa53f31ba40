/**
 * Writing the bytes of one regular file: a stream that may leave out holes, or a copy of another
 * file that keeps its holes and shares its blocks where the disk can.
 */

import { sys } from "../system/addon.js";
import { SEEK_DATA, SEEK_END, SEEK_HOLE } from "../system/constants.js";
import { EINTR, EINVAL, ENOSYS, ENOTTY, ENXIO, EOPNOTSUPP, EXDEV, must } from "../system/errno.js";
import { CorruptDataError } from "../system/errors.js";
import type { SparseExtent, TarEntry } from "./tar-entry.js";

/** Where the next bytes of a streamed body go. */
export class BodyCursor {
  readonly #fd: number;
  readonly #subject: string;
  readonly #size: number;
  readonly #extents: readonly SparseExtent[];
  #extent = 0;
  /** Bytes written of the current extent. */
  #written = 0;

  /** @param fd borrowed, an empty file open for writing */
  constructor(fd: number, entry: TarEntry, subject: string) {
    this.#fd = fd;
    this.#subject = subject;
    this.#size = entry.size;
    this.#extents = entry.sparse ?? (entry.size > 0 ? [{ offset: 0, length: entry.size }] : []);
  }

  /** True when all bytes have come. */
  get isComplete(): boolean {
    return this.#extent === this.#extents.length;
  }

  /**
   * Writes `chunk[start, end)` to the places where it belongs.
   *
   * @throws CorruptDataError more bytes than the entry announced
   * @throws SyscallError the disk refuses (ENOSPC, EIO …)
   */
  write(chunk: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end) {
      const extent = this.#extents[this.#extent];
      if (extent === undefined) {
        throw new CorruptDataError(
          `${this.#subject}: more data than the ${this.#size} bytes named`,
        );
      }
      const length = Math.min(end - at, extent.length - this.#written);
      const offset = extent.offset + this.#written;
      const count = sys.pwrite(this.#fd, chunk, at, length, offset);
      if (count === -EINTR) continue;
      must(count, "pwrite", this.#subject);
      at += count;
      this.#written += count;
      if (this.#written === extent.length) this.#nextExtent();
    }
  }

  #nextExtent(): void {
    this.#extent++;
    this.#written = 0;
  }

  /** Gives the file its full size when it ends in a hole. */
  finish(): void {
    const last = this.#extents.at(-1);
    if ((last === undefined ? 0 : last.offset + last.length) < this.#size) {
      must(sys.ftruncate(this.#fd, this.#size), "ftruncate", this.#subject);
    }
  }
}

/** Reasons to copy by other means: the file system, or the pair of them, cannot. */
const CANNOT: readonly number[] = [-EOPNOTSUPP, -EXDEV, -EINVAL, -ENOSYS, -ENOTTY];

/**
 * Copies `size` bytes of one file into another, empty one: by sharing blocks, else by copying its
 * data runs in the kernel, else through memory.
 *
 * @throws CorruptDataError the source is shorter than `size`
 * @throws SyscallError
 */
export function copyFileBody(fromFd: number, toFd: number, size: number, subject: string): void {
  if (size === 0) return;
  // A missing tail would look like a hole below.
  if (must(sys.lseek(fromFd, 0, SEEK_END), "lseek", subject) < size) throw shorter(subject);
  const cloned = sys.ficlone(toFd, fromFd);
  if (cloned < 0 && !CANNOT.includes(cloned)) must(cloned, "ficlone", subject);
  if (cloned < 0) copyDataRuns(fromFd, toFd, size, subject);
  must(sys.ftruncate(toFd, size), "ftruncate", subject);
}

function copyDataRuns(fromFd: number, toFd: number, size: number, subject: string): void {
  let at = 0;
  while (at < size) {
    let start = sys.lseek(fromFd, at, SEEK_DATA);
    if (start === -ENXIO) return;
    let end = size;
    // A file system without holes says EINVAL: all of the file is data.
    if (start === -EINVAL) start = at;
    else end = Math.min(size, must(sys.lseek(fromFd, start, SEEK_HOLE), "lseek", subject));
    must(start, "lseek", subject);
    copyRange(fromFd, toFd, start, end, subject);
    at = end;
  }
}

function copyRange(
  fromFd: number,
  toFd: number,
  start: number,
  end: number,
  subject: string,
): void {
  let at = start;
  while (at < end) {
    const count = sys.copyFileRange(fromFd, at, toFd, at, end - at);
    if (CANNOT.includes(count)) {
      copyThroughMemory(fromFd, toFd, at, end, subject);
      return;
    }
    must(count, "copy_file_range", subject);
    if (count === 0) throw shorter(subject);
    at += count;
  }
}

function copyThroughMemory(
  fromFd: number,
  toFd: number,
  start: number,
  end: number,
  subject: string,
): void {
  const buffer = Buffer.allocUnsafe(Math.min(1 << 20, end - start));
  let at = start;
  while (at < end) {
    const want = Math.min(buffer.length, end - at);
    const count = must(sys.pread(fromFd, buffer, 0, want, at), "pread", subject);
    if (count === 0) throw shorter(subject);
    for (let done = 0; done < count; ) {
      done += must(sys.pwrite(toFd, buffer, done, count - done, at + done), "pwrite", subject);
    }
    at += count;
  }
}

function shorter(subject: string): CorruptDataError {
  return new CorruptDataError(`${subject}: the file became shorter while it was copied`);
}
