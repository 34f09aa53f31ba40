/**
 * Holding a session's writers: while a pause lasts, requests that would change what the file system
 * shows wait, as for a slow disk; everything else goes on.
 *
 * A write(2) of more than one request's worth comes in pieces. One whose first pieces have been
 * served when the pause begins may end, so that no file is held half written.
 */

import { setTimeout as delay } from "node:timers/promises";
import { O_ACCMODE, O_RDONLY, O_TRUNC } from "../system/constants.js";
import { FailedPreconditionError } from "../system/errors.js";
import { isBusy } from "./caller-thread.js";
import {
  IN_HEADER_BYTES as ARG,
  FUSE_COPY_FILE_RANGE,
  FUSE_COPY_FILE_RANGE_64,
  FUSE_CREATE,
  FUSE_FALLOCATE,
  FUSE_LINK,
  FUSE_MKDIR,
  FUSE_MKNOD,
  FUSE_OPEN,
  FUSE_REMOVEXATTR,
  FUSE_RENAME,
  FUSE_RENAME2,
  FUSE_RMDIR,
  FUSE_SETATTR,
  FUSE_SETXATTR,
  FUSE_SYMLINK,
  FUSE_TMPFILE,
  FUSE_UNLINK,
  FUSE_WRITE,
  MAX_TRANSFER_BYTES,
  PAGE_BYTES,
} from "./constants.js";
import type { NodeId } from "./file-system.js";
import type { RequestBuffer } from "./request.js";
import type { Waiting } from "./waiting.js";

const CHANGES: ReadonlySet<number> = new Set([
  FUSE_SETATTR,
  FUSE_SYMLINK,
  FUSE_MKNOD,
  FUSE_MKDIR,
  FUSE_UNLINK,
  FUSE_RMDIR,
  FUSE_RENAME,
  FUSE_RENAME2,
  FUSE_LINK,
  FUSE_WRITE,
  FUSE_SETXATTR,
  FUSE_REMOVEXATTR,
  FUSE_CREATE,
  FUSE_TMPFILE,
  FUSE_FALLOCATE,
  FUSE_COPY_FILE_RANGE,
  FUSE_COPY_FILE_RANGE_64,
]);

/** The next piece of a write comes within microseconds, on a busy machine within milliseconds. */
const NEXT_PIECE_MS = 50;
/** Whoever writes a megabyte at a time looks like one write without end. */
const LONGEST_WRITE_MS = 500;
/**
 * A machine may be busier than these say. But as often as this thread had a core, whoever writes may have had one,
 * too, so that its looks count as well; and who would run if there were a core for him is waited for until it is long.
 */
const NEXT_PIECE_TURNS = 20;
const LONGEST_WRITE_TURNS = 200;
/** Files whose last write may have been a piece. */
const MAX_TRACKED = 64;

/** Where a write may go on, whose it is, and when its last piece came. */
interface Piece {
  readonly end: number;
  readonly tid: number;
  readonly atMs: number;
  readonly atTurn: number;
}

/** See the file comment. One per session. */
export class Pause {
  readonly #underWay: Waiting;
  readonly #pieces = new Map<NodeId, Piece>();
  /** Shared with who paused. */
  #waiting: Int32Array | undefined;
  #released: Promise<void> | undefined;
  #release: () => void = () => {};
  #isSettling = false;
  /** How often this thread looked whether a next piece has come. */
  #turn = 0;

  constructor(underWay: Waiting) {
    this.#underWay = underWay;
  }

  /**
   * Resolves when nobody can begin to change anything any more, and what had been begun is done.
   *
   * @param waiting shared memory; its first number becomes 1 as soon as somebody waits
   * @throws FailedPreconditionError it lasts already
   */
  async begin(waiting: Int32Array): Promise<void> {
    // What takes long (copying up a large file) is not begun anew while nobody may write.
    await this.#underWay.settled();
    if (this.#released !== undefined) throw new FailedPreconditionError("pause: paused already");
    this.#waiting = waiting;
    this.#released = new Promise((resolve) => {
      this.#release = resolve;
    });
    const earlier = this.#underWay.settled();
    this.#isSettling = true;
    const start = { ms: performance.now(), turn: this.#turn };
    for (const [node, { atMs }] of this.#pieces) {
      if (start.ms - atMs > LONGEST_WRITE_MS) this.#pieces.delete(node);
    }
    while (this.#isBetweenPieces() && !this.#isLong(start)) {
      await delay(1);
      this.#turn++;
    }
    this.#isSettling = false;
    await earlier;
  }

  /** Lets everybody go on, in the order in which they came. Idempotent. */
  end(): void {
    this.#released = undefined;
    this.#release();
  }

  /** False before and after. */
  get isOn(): boolean {
    return this.#released !== undefined;
  }

  /** What the request at hand must wait for; undefined when it may be served now. */
  holds(request: RequestBuffer): Promise<void> | undefined {
    if (request.opcode === FUSE_WRITE && this.#isPiece(request)) return undefined;
    if (this.#released === undefined || !isChange(request)) return undefined;
    Atomics.store(this.#waiting!, 0, 1);
    return this.#released;
  }

  /**
   * Follows writes that come in pieces; true for one that may pass although a pause has begun.
   * struct fuse_write_in: offset 8, size 16
   */
  #isPiece(request: RequestBuffer): boolean {
    const size = request.u32(ARG + 16);
    const offset = request.u64(ARG + 8);
    const { node } = request;
    const isNext = this.#isSettling && this.#pieces.get(node)?.end === offset;
    if (this.#released !== undefined && !isNext) return false;
    this.#pieces.delete(node);
    const end = offset + size;
    // The kernel cuts at pages, as late as it can.
    if (size > MAX_TRANSFER_BYTES - PAGE_BYTES && end % PAGE_BYTES === 0)
      this.#follow(node, end, request.caller.pid);
    return isNext;
  }

  #follow(node: NodeId, end: number, tid: number): void {
    this.#pieces.set(node, { end, tid, atMs: performance.now(), atTurn: this.#turn });
    if (this.#pieces.size > MAX_TRACKED) this.#pieces.delete(this.#pieces.keys().next().value!);
  }

  #isLong(since: { ms: number; turn: number }): boolean {
    const turns = this.#turn - since.turn;
    return performance.now() - since.ms > LONGEST_WRITE_MS && turns > LONGEST_WRITE_TURNS;
  }

  #isBetweenPieces(): boolean {
    const nowMs = performance.now();
    for (const [node, { tid, atMs, atTurn }] of this.#pieces) {
      const isLate = nowMs - atMs > NEXT_PIECE_MS && this.#turn - atTurn > NEXT_PIECE_TURNS;
      if (isLate && !isBusy(tid)) this.#pieces.delete(node);
    }
    return this.#pieces.size > 0;
  }
}

function isChange(request: RequestBuffer): boolean {
  if (request.opcode !== FUSE_OPEN) return CHANGES.has(request.opcode);
  // struct fuse_open_in: flags 0. An open for writing may copy the file up.
  const flags = request.u32(ARG);
  return (flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0;
}
