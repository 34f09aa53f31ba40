/**
 * Decodes FUSE requests in place: fields are read straight from the buffer that the kernel filled,
 * in the host's byte order, and nothing is allocated but the strings of names. No I/O here.
 *
 * A request is a 40-byte header (struct fuse_in_header), an argument structure, then names, each
 * ended by NUL, or data. Offsets below count from the start of the message. The buffer is longer
 * than most requests and holds older ones behind its `length`, so every read must stay below it:
 * `begin` and the table's minimum lengths see to that for structures, `name` and `payload` for
 * what follows them.
 */

import type { ByteString } from "../system/bytes.js";
import { ENAMETOOLONG } from "../system/errno.js";
import { IN_HEADER_BYTES, MAX_TRANSFER_BYTES, NAME_MAX, WRITE_IN_BYTES } from "./constants.js";
import type { Caller } from "./file-system.js";
import { allocateAligned } from "./latin1-buffer.js";

/** Room for the largest request: a WRITE of MAX_TRANSFER_BYTES with its headers, rounded to a page. */
export const REQUEST_BUFFER_BYTES = MAX_TRANSFER_BYTES + 4096;

/** 2^32, the weight of a 64-bit field's upper word. */
const WORD = 4294967296;
/** 2^53, the first integer that a number may not hold exactly. */
const UNSAFE = 9007199254740992;
/** Bits of the upper word of a node ID on the wire that belong to the ID; its incarnation is above. */
export const INCARNATION_SHIFT = 21;
const NODE_MASK = 2 ** INCARNATION_SHIFT - 1;
/** How many incarnations the wire can tell apart. */
export const INCARNATIONS = 2 ** (32 - INCARNATION_SHIFT);
/** Lengths of most writes are multiples of it: tar writes blocks of 512 bytes. */
const UNIT_BYTES = 512;
/** Where a WRITE's data starts. */
const WRITE_DATA = IN_HEADER_BYTES + WRITE_IN_BYTES;

/** A request whose lengths contradict each other. Never leaves src/fuse: it becomes EIO and a log line. */
export class MalformedRequest extends Error {}

/** A request that is well formed and cannot be granted. Never leaves src/fuse: its caller gets `errno`. */
export class RefusedRequest extends Error {
  /** Positive. */
  readonly errno: number;

  constructor(errno: number) {
    super(`refused with errno ${errno}`);
    this.errno = errno;
  }
}

/** The request at hand. One per thread: valid until the next `begin`. */
export class RequestBuffer {
  /** What a session receives into. */
  readonly buffer = allocateAligned(REQUEST_BUFFER_BYTES);
  readonly #words = new Uint32Array(this.buffer.buffer);
  /** Views of WRITE data by length in units, made once each: slicing costs more than decoding. */
  readonly #views: Buffer[] = [];

  /** Bytes of the whole message. */
  length = 0;
  opcode = 0;
  /** Halves of the identifier that the reply must carry. */
  uniqueLow = 0;
  uniqueHigh = 0;
  /** Both halves: exact, as the kernel counts from 0. */
  get unique(): number {
    return this.uniqueLow + this.uniqueHigh * WORD;
  }
  node = 0;
  /** Which of the kernel's inodes of this node asks; see `Attributes.incarnation`. */
  incarnation = 0;
  readonly caller: Caller = { uid: 0, gid: 0, pid: 0 };

  /**
   * Takes in the header of a message of `received` bytes, at least IN_HEADER_BYTES.
   *
   * @throws MalformedRequest its own length field disagrees
   */
  begin(received: number): void {
    this.length = received;
    const words = this.#words;
    this.opcode = words[1]!;
    this.uniqueLow = words[2]!;
    this.uniqueHigh = words[3]!;
    if (words[0] !== received) {
      throw new MalformedRequest(`request of ${received} bytes says it has ${words[0]}`);
    }
    this.node = this.nodeAt(16);
    this.incarnation = words[5]! >>> INCARNATION_SHIFT;
    this.caller.uid = words[6]!;
    this.caller.gid = words[7]!;
    this.caller.pid = words[8]!;
  }

  /** The unsigned 32-bit field at byte `offset` (a multiple of 4). */
  u32(offset: number): number {
    return this.#words[offset >> 2]!;
  }

  /** The unsigned 64-bit field at byte `offset`; 2^53 and above come out inexact, see `isSafe`. */
  u64(offset: number): number {
    const index = offset >> 2;
    return this.#words[index]! + this.#words[index + 1]! * WORD;
  }

  /** The node ID at byte `offset`, whatever its incarnation: below 2^53, so exact. */
  nodeAt(offset: number): number {
    const index = offset >> 2;
    return this.#words[index]! + (this.#words[index + 1]! & NODE_MASK) * WORD;
  }

  /** The signed 64-bit field at byte `offset` (times before 1970). */
  s64(offset: number): number {
    const index = offset >> 2;
    return this.#words[index]! + (this.#words[index + 1]! | 0) * WORD;
  }

  /**
   * The name of a directory entry, from `start` to the NUL that ends the message.
   *
   * @throws MalformedRequest see `lastName`
   * @throws RefusedRequest ENAMETOOLONG: the kernel itself only stops at 1024 bytes or more
   */
  entryName(start: number): ByteString {
    if (this.length - 1 - start > NAME_MAX) throw new RefusedRequest(ENAMETOOLONG);
    return this.lastName(start);
  }

  /**
   * The bytes from `start` to the NUL that ends the message.
   *
   * @throws MalformedRequest empty, without its NUL, or with one inside
   */
  lastName(start: number): ByteString {
    const end = this.length - 1;
    if (end <= start || this.buffer.indexOf(0, start) !== end) {
      throw new MalformedRequest(`request ${this.opcode} with a bad name`);
    }
    return this.buffer.latin1Slice(start, end) as ByteString;
  }

  /**
   * The name from `start` to the next NUL, when more follows. `afterName` is then where.
   *
   * @throws MalformedRequest empty, or without a NUL
   */
  firstName(start: number): ByteString {
    const end = this.buffer.indexOf(0, start);
    if (end <= start || end >= this.length) {
      throw new MalformedRequest(`request ${this.opcode} with a bad name`);
    }
    this.afterName = end + 1;
    return this.buffer.latin1Slice(start, end) as ByteString;
  }

  /** Set by `firstName`. */
  afterName = 0;

  /**
   * The last `size` bytes of the message, which must start at `start`. Borrowed: the next request
   * overwrites it.
   *
   * @throws MalformedRequest the message has another length
   */
  payload(start: number, size: number): Buffer {
    if (start + size !== this.length) {
      throw new MalformedRequest(
        `request ${this.opcode} of ${this.length} bytes says that ${size} follow byte ${start}`,
      );
    }
    if (start !== WRITE_DATA || size % UNIT_BYTES !== 0) {
      return this.buffer.subarray(start, this.length);
    }
    const units = size / UNIT_BYTES;
    const known = this.#views[units];
    if (known !== undefined) return known;
    const view = this.buffer.subarray(start, start + size);
    this.#views[units] = view;
    return view;
  }
}

/** Whether a decoded 64-bit field is exact. */
export function isSafe(value: number): boolean {
  return value < UNSAFE;
}
