/**
 * Encodes FUSE replies into one reusable buffer: a 16-byte header (struct fuse_out_header), then
 * the body. Methods that put a body return its length in bytes. Host byte order; no I/O here.
 */

import {
  ATTR_BYTES,
  ATTR_OUT_BYTES,
  ENTRY_OUT_BYTES,
  INIT_OUT_BYTES,
  MAX_TRANSFER_BYTES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  PAGE_BYTES,
  STATFS_OUT_BYTES,
} from "./constants.js";
import type { Attributes, Entry, FileSystemStatistics, OpenResult } from "./file-system.js";
import { allocateAligned } from "./latin1-buffer.js";
import { INCARNATION_SHIFT } from "./request.js";

/** Room for the largest reply: MAX_TRANSFER_BYTES of data behind the header, rounded to a page. */
export const REPLY_BUFFER_BYTES = MAX_TRANSFER_BYTES + 4096;

/**
 * How long the kernel may believe entries and attributes: it never asks again (it clamps 2^31
 * seconds to its longest time-out). Right because nobody but this file system changes them, and
 * what it changes by itself it notifies.
 */
export const FOREVER_SEC = 2147483648;

const WORD = 4294967296;
/** First word of the body. */
const BODY = OUT_HEADER_BYTES / 4;

/** What the INIT reply says (struct fuse_init_out). */
export interface InitReply {
  minor: number;
  maxReadahead: number;
  flags: number;
  flags2: number;
  maxBackground: number;
  congestionThreshold: number;
  maxWrite: number;
  timeGranularityNs: number;
  maxPages: number;
  maxStackDepth: number;
}

/** The reply in the making. One per thread: a body is valid until the next one is put. */
export class ReplyBuffer {
  /** What a session sends from. */
  readonly buffer = allocateAligned(REPLY_BUFFER_BYTES);
  readonly #words = new Uint32Array(this.buffer.buffer);
  readonly #pageViews: Buffer[] = [];

  /** Writes the header of a reply with `bodyBytes` behind it; `error` is 0 or a negative errno. */
  header(uniqueLow: number, uniqueHigh: number, bodyBytes: number, error: number): void {
    const words = this.#words;
    words[0] = OUT_HEADER_BYTES + bodyBytes;
    words[1] = error;
    words[2] = uniqueLow;
    words[3] = uniqueHigh;
  }

  /** The first `size` bytes of the body, for a READ to fill. At most MAX_TRANSFER_BYTES. */
  body(size: number): Buffer {
    if (size % PAGE_BYTES !== 0) {
      return this.buffer.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + size);
    }
    const pages = size / PAGE_BYTES;
    const known = this.#pageViews[pages];
    if (known !== undefined) return known;
    const view = this.buffer.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + size);
    this.#pageViews[pages] = view;
    return view;
  }

  /** Puts bytes (an xattr value) as the whole body. */
  bytes(data: Buffer): number {
    data.copy(this.buffer, OUT_HEADER_BYTES);
    return data.length;
  }

  /** Puts a string of bytes (a symlink target) as the whole body. */
  text(text: string): number {
    return this.buffer.latin1Write(text, OUT_HEADER_BYTES);
  }

  /** struct fuse_entry_out. */
  entry(entry: Entry): number {
    this.putEntry(OUT_HEADER_BYTES, entry, entry.node);
    return ENTRY_OUT_BYTES;
  }

  /** struct fuse_entry_out followed by struct fuse_open_out (CREATE, TMPFILE). */
  entryAndOpen(entry: Entry, open: OpenResult): number {
    this.putEntry(OUT_HEADER_BYTES, entry, entry.node);
    this.#putOpen(BODY + ENTRY_OUT_BYTES / 4, open);
    return ENTRY_OUT_BYTES + OPEN_OUT_BYTES;
  }

  /** struct fuse_attr_out. */
  attributes(attributes: Attributes): number {
    const words = this.#words;
    words[BODY] = attributes.isVolatile ? 0 : FOREVER_SEC;
    words[BODY + 1] = 0;
    words[BODY + 2] = 0;
    words[BODY + 3] = 0;
    this.#putAttributes(BODY + 4, attributes);
    return ATTR_OUT_BYTES;
  }

  /** struct fuse_open_out. */
  open(open: OpenResult): number {
    this.#putOpen(BODY, open);
    return OPEN_OUT_BYTES;
  }

  /** One 64-bit number (struct fuse_lseek_out, fuse_copy_file_range_out). */
  u64(value: number): number {
    this.#put64(BODY, value);
    return 8;
  }

  /** One 32-bit number and padding (struct fuse_write_out, fuse_getxattr_out). */
  u32(value: number): number {
    this.#words[BODY] = value;
    this.#words[BODY + 1] = 0;
    return 8;
  }

  /** struct fuse_statfs_out. */
  statistics(statistics: FileSystemStatistics): number {
    const words = this.#words;
    this.#put64(BODY, statistics.blocks);
    this.#put64(BODY + 2, statistics.bfree);
    this.#put64(BODY + 4, statistics.bavail);
    this.#put64(BODY + 6, statistics.files);
    this.#put64(BODY + 8, statistics.ffree);
    words[BODY + 10] = statistics.bsize;
    words[BODY + 11] = statistics.namelen;
    words[BODY + 12] = statistics.frsize;
    words.fill(0, BODY + 13, BODY + STATFS_OUT_BYTES / 4);
    return STATFS_OUT_BYTES;
  }

  /** struct fuse_init_out of major version 7. */
  init(init: InitReply): number {
    const words = this.#words;
    words.fill(0, BODY, BODY + INIT_OUT_BYTES / 4);
    words[BODY] = 7;
    words[BODY + 1] = init.minor;
    words[BODY + 2] = init.maxReadahead;
    words[BODY + 3] = init.flags;
    this.#put16(OUT_HEADER_BYTES + 16, init.maxBackground);
    this.#put16(OUT_HEADER_BYTES + 18, init.congestionThreshold);
    words[BODY + 5] = init.maxWrite;
    words[BODY + 6] = init.timeGranularityNs;
    this.#put16(OUT_HEADER_BYTES + 28, init.maxPages);
    words[BODY + 8] = init.flags2;
    words[BODY + 9] = init.maxStackDepth;
    return INIT_OUT_BYTES;
  }

  /** Writes struct fuse_entry_out at byte `offset`, with `node` as its node ID. */
  putEntry(offset: number, entry: Entry, node: number): void {
    const words = this.#words;
    const at = offset >> 2;
    const { incarnation, isVolatile } = entry.attributes;
    this.#put64(at, node);
    if (incarnation !== 0 && node !== 0) words[at + 1]! |= incarnation << INCARNATION_SHIFT;
    this.#put64(at + 2, entry.generation);
    words[at + 4] = FOREVER_SEC;
    words[at + 5] = 0;
    words[at + 6] = isVolatile ? 0 : FOREVER_SEC;
    words[at + 7] = 0;
    words[at + 8] = 0;
    words[at + 9] = 0;
    this.#putAttributes(at + 10, entry.attributes);
  }

  /** Writes an all-zero struct fuse_entry_out at byte `offset`: a name without a lookup. */
  putNoEntry(offset: number): void {
    this.#words.fill(0, offset >> 2, (offset + ENTRY_OUT_BYTES) >> 2);
  }

  /** Writes struct fuse_dirent and its padded name at byte `offset` (a multiple of 8). */
  putDirent(offset: number, ino: number, cookie: number, type: number, name: string): void {
    const words = this.#words;
    const at = offset >> 2;
    const length = name.length;
    this.#put64(at, ino);
    this.#put64(at + 2, cookie);
    words[at + 4] = length;
    words[at + 5] = type;
    if ((length & 7) !== 0) {
      // Zero the last 8 bytes first: what an older reply left there is not the kernel's business.
      const last = at + 6 + ((length >> 3) << 1);
      words[last] = 0;
      words[last + 1] = 0;
    }
    this.buffer.latin1Write(name, offset + 24);
  }

  #put64(index: number, value: number): void {
    // ToUint32 of a number takes it modulo 2^32, for negative ones in two's complement as C does.
    this.#words[index] = value;
    this.#words[index + 1] = Math.floor(value / WORD);
  }

  #put16(offset: number, value: number): void {
    new Uint16Array(this.buffer.buffer, offset, 1)[0] = value;
  }

  #putOpen(at: number, open: OpenResult): void {
    this.#put64(at, open.handle);
    this.#words[at + 2] = open.openFlags;
    this.#words[at + 3] = open.backingId;
  }

  /** struct fuse_attr, ATTR_BYTES long. */
  #putAttributes(at: number, a: Attributes): void {
    const words = this.#words;
    this.#put64(at, a.ino);
    this.#put64(at + 2, a.size);
    this.#put64(at + 4, a.blocks);
    this.#put64(at + 6, a.atimeSec);
    this.#put64(at + 8, a.mtimeSec);
    this.#put64(at + 10, a.ctimeSec);
    words[at + 12] = a.atimeNsec;
    words[at + 13] = a.mtimeNsec;
    words[at + 14] = a.ctimeNsec;
    words[at + 15] = a.mode;
    words[at + 16] = a.nlink;
    words[at + 17] = a.uid;
    words[at + 18] = a.gid;
    words[at + 19] = a.rdev;
    words[at + 20] = a.blksize;
    words[at + ATTR_BYTES / 4 - 1] = 0;
  }
}
