/** What the handler of one request works with. */

import { DirectoryReply } from "./directory-reply.js";
import {
  type Attributes,
  type Entry,
  emptyAttributes,
  type FileSystem,
  type FileSystemStatistics,
  type OpenResult,
  type Result,
  type SetAttributes,
} from "./file-system.js";
import { ReplyBuffer } from "./reply.js";
import { RequestBuffer } from "./request.js";

/**
 * What a handler returns: the length of the body that it put into the reply, a negative errno,
 * NO_REPLY, or a promise of 0 or a negative errno (the reply then has no body).
 */
export type Outcome = number | Promise<Result>;

/** The request gets no reply at all (FORGET). Larger than any body. */
export const NO_REPLY = 0x3fffffff;

/** Buffers and output objects: one set per thread, for all its sessions, since requests are handled one at a time. */
export class Workspace {
  readonly request = new RequestBuffer();
  readonly reply = new ReplyBuffer();
  readonly directory = new DirectoryReply(this.reply);
  readonly attributes: Attributes = emptyAttributes();
  readonly entry: Entry = { node: 0, generation: 0, attributes: emptyAttributes() };
  readonly open: OpenResult = { handle: 0, openFlags: 0, backingId: 0 };
  readonly statistics: FileSystemStatistics = {
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    bsize: 4096,
    namelen: 255,
    frsize: 4096,
  };
  readonly set: SetAttributes = {
    valid: 0,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
  };
}

/** A session as its handlers see it. */
export interface Exchange {
  readonly fileSystem: FileSystem;
  readonly work: Workspace;
  /** Whether the kernel sends the longer struct fuse_setxattr_in (FUSE_SETXATTR_EXT). */
  readonly hasExtendedSetxattr: boolean;
  /** Answers INIT. */
  negotiate(): Outcome;
  /** The caller of a request has got a signal. */
  interrupt(unique: number): void;
}
