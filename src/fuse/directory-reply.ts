/** Encodes the entries of one READDIR or READDIRPLUS reply, up to the size that the kernel asked for. */

import type { ByteString } from "../system/bytes.js";
import { DIRENT_BYTES, ENTRY_OUT_BYTES, OUT_HEADER_BYTES } from "./constants.js";
import type { DirectorySink, Entry } from "./file-system.js";
import type { ReplyBuffer } from "./reply.js";

/** The sink that a file system's `readdir` fills. Reused: `begin` empties it. */
export class DirectoryReply implements DirectorySink {
  readonly #reply: ReplyBuffer;
  #limit = 0;
  #plus = false;
  /** Bytes put so far. */
  length = 0;

  constructor(reply: ReplyBuffer) {
    this.#reply = reply;
  }

  /** Starts a reply of at most `limit` bytes. */
  begin(limit: number, plus: boolean): void {
    this.#limit = limit;
    this.#plus = plus;
    this.length = 0;
  }

  add(name: ByteString, ino: number, mode: number, cookie: number): boolean {
    const prefix = this.#plus ? ENTRY_OUT_BYTES : 0;
    const size = prefix + direntBytes(name);
    if (this.length + size > this.#limit) return false;
    const at = OUT_HEADER_BYTES + this.length;
    if (this.#plus) this.#reply.putNoEntry(at);
    this.#reply.putDirent(at + prefix, ino, cookie, (mode >> 12) & 15, name);
    this.length += size;
    return true;
  }

  addPlus(name: ByteString, cookie: number, entry: Entry): boolean {
    if (!this.#plus) throw new Error("addPlus in answer to a plain READDIR");
    const size = ENTRY_OUT_BYTES + direntBytes(name);
    if (this.length + size > this.#limit) return false;
    const at = OUT_HEADER_BYTES + this.length;
    const attributes = entry.attributes;
    // The kernel takes no reference for "." and ".." and would never forget one.
    const node = name === "." || name === ".." ? 0 : entry.node;
    this.#reply.putEntry(at, entry, node);
    this.#reply.putDirent(
      at + ENTRY_OUT_BYTES,
      attributes.ino,
      cookie,
      (attributes.mode >> 12) & 15,
      name,
    );
    this.length += size;
    return true;
  }
}

/** Bytes of struct fuse_dirent with its name, padded to 8. */
function direntBytes(name: ByteString): number {
  return (DIRENT_BYTES + name.length + 7) & ~7;
}
