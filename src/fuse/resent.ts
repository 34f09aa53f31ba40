/**
 * Requests that the kernel sends again to a session that took over from one that died.
 *
 * The dead one may have done what was asked and not come to say so. Most requests can simply be done
 * twice. Those that cannot are told by what they meet: while such a request is under way the kernel
 * locks the directories concerned, so a name that it wants to make and finds, or wants to remove and
 * misses, is the work of its first time. An exchange of two names looks the same before and after; it
 * leaves a note of which was which.
 */

import { readFileSync, writeFileSync } from "node:fs";
import type { ByteString } from "../system/bytes.js";
import {
  O_CREAT,
  O_EXCL,
  RENAME_EXCHANGE,
  RENAME_WHITEOUT,
  S_IFCHR,
  S_IFMT,
} from "../system/constants.js";
import { EEXIST, ENODATA, ENOENT } from "../system/errno.js";
import {
  FOPEN_KEEP_CACHE,
  FUSE_CREATE,
  FUSE_LINK,
  FUSE_MKDIR,
  FUSE_MKNOD,
  FUSE_REMOVEXATTR,
  FUSE_RENAME,
  FUSE_RENAME2,
  FUSE_RMDIR,
  FUSE_SETXATTR,
  FUSE_SYMLINK,
  FUSE_UNLINK,
} from "./constants.js";
import type { Exchange, Outcome } from "./exchange.js";
import type { NodeId } from "./file-system.js";
import type { Operation } from "./operations.js";
import { ARG, emptyEntry, emptyOpen } from "./outcome.js";
import type { RequestBuffer } from "./request.js";

/** Upper half of FUSE_UNIQUE_RESEND, the bit that marks the identifier of a request sent again. */
const RESENT_HIGH = 0x80000000;

/** True for a request that the kernel had sent before. */
export function isResent(request: RequestBuffer): boolean {
  return request.uniqueHigh >= RESENT_HIGH;
}

/** A request's identifier, the same each time it is sent. Exact, as the kernel counts from 0. */
export function withoutMark({ uniqueHigh, uniqueLow }: RequestBuffer): number {
  return (uniqueHigh % RESENT_HIGH) * 2 ** 32 + uniqueLow;
}

/** Does a request that may have been done before. */
export function handleResent(
  x: Exchange,
  operation: Operation,
  note: ExchangeNote | undefined,
): Outcome {
  const { request } = x.work;
  const { opcode } = request;
  if ((opcode === FUSE_RENAME || opcode === FUSE_RENAME2) && isRenamed(x, note)) return 0;
  const outcome = operation.handle(x);
  if (outcome === -ENOENT && (opcode === FUSE_UNLINK || opcode === FUSE_RMDIR)) return 0;
  if (outcome === -ENODATA && opcode === FUSE_REMOVEXATTR) return 0;
  if (outcome !== -EEXIST) return outcome;
  if (opcode === FUSE_CREATE) return createdAndOpened(x, outcome);
  return opcode === FUSE_SETXATTR ? 0 : existing(x, outcome);
}

/** The entry that an earlier try of MKNOD, MKDIR, SYMLINK or LINK made. */
function existing(x: Exchange, outcome: Outcome): Outcome {
  const { request } = x.work;
  const name = madeName(request);
  if (name === undefined) return outcome;
  const entry = emptyEntry(x);
  const result = x.fileSystem.lookup(request.node, name, entry);
  return result < 0 || entry.node === 0 ? outcome : x.work.reply.entry(entry);
}

/** The file that an earlier try of CREATE made, opened. struct fuse_create_in: flags 0; name 16 */
function createdAndOpened(x: Exchange, outcome: Outcome): Outcome {
  const { fileSystem } = x;
  const { reply, request } = x.work;
  const entry = emptyEntry(x);
  const found = fileSystem.lookup(request.node, request.entryName(ARG + 16), entry);
  if (found < 0 || entry.node === 0 || fileSystem.open === undefined) return outcome;
  const flags = request.u32(ARG) & ~(O_CREAT | O_EXCL);
  const opened = emptyOpen(x, FOPEN_KEEP_CACHE);
  const { incarnation } = entry.attributes;
  const result = fileSystem.open(entry.node, incarnation, flags, false, opened);
  if (result >= 0) return reply.entryAndOpen(entry, opened);
  fileSystem.forget(entry.node, 1);
  return result;
}

function madeName(request: RequestBuffer): ByteString | undefined {
  if (request.opcode === FUSE_SYMLINK) return request.firstName(ARG);
  if (request.opcode === FUSE_MKNOD) return request.entryName(ARG + 16);
  if (request.opcode === FUSE_MKDIR || request.opcode === FUSE_LINK) {
    return request.entryName(ARG + 8);
  }
  return undefined;
}

/** Where a RENAME (struct fuse_rename_in) or RENAME2 (flags 8) moves something from, and its flags. */
function decodeRename(request: RequestBuffer) {
  const extended = request.opcode === FUSE_RENAME2;
  return {
    parent: request.node,
    name: request.firstName(ARG + (extended ? 16 : 8)),
    flags: extended ? request.u32(ARG + 8) : 0,
  };
}

function isRenamed(x: Exchange, note: ExchangeNote | undefined): boolean {
  const { flags, parent, name } = decodeRename(x.work.request);
  if ((flags & RENAME_EXCHANGE) !== 0) return note?.saysDone(x) === true;
  const source = nodeAt(x, parent, name);
  if (source === 0) return true;
  const { mode, rdev } = x.work.entry.attributes;
  return (flags & RENAME_WHITEOUT) !== 0 && (mode & S_IFMT) === S_IFCHR && rdev === 0;
}

/** The node of a name, without a reference to it; 0 when there is none, -1 when that is not known. */
function nodeAt(x: Exchange, parent: NodeId, name: ByteString): NodeId {
  const entry = emptyEntry(x);
  const result = x.fileSystem.lookup(parent, name, entry);
  if (result < 0) return -1;
  if (entry.node !== 0) x.fileSystem.forget(entry.node, 1);
  return entry.node;
}

/** Which two nodes the last exchange of names was to swap. Kept in a file that outlives the process. */
export class ExchangeNote {
  readonly #path: string;

  /** @param path on a file system that this thread does not serve; tmpfs will do */
  constructor(path: string) {
    this.#path = path;
  }

  /** To be called before each request; writes for an exchange only. */
  before(x: Exchange): void {
    const { request } = x.work;
    if (request.opcode !== FUSE_RENAME2 || (request.u32(ARG + 8) & RENAME_EXCHANGE) === 0) return;
    const { parent, name } = decodeRename(request);
    const line = `${withoutMark(request)} ${nodeAt(x, parent, name)}`;
    writeFileSync(this.#path, line, { mode: 0o600 });
  }

  /** True when the exchange at hand, sent again, has taken place. */
  saysDone(x: Exchange): boolean {
    const { request } = x.work;
    const { parent, name } = decodeRename(request);
    const [unique, node] = this.#read().split(" ");
    return Number(unique) === withoutMark(request) && Number(node) !== nodeAt(x, parent, name);
  }

  #read(): string {
    try {
      return readFileSync(this.#path, "latin1");
    } catch {
      // Killed before the first exchange began.
      return "";
    }
  }
}
