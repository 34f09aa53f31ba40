/** Tells the kernel what it did not ask for. */

import type { ByteString } from "../system/bytes.js";
import { ENODEV, syscallError } from "../system/errno.js";
import type { FuseChannel } from "../system/native.js";
import type { NodeId, Result } from "./file-system.js";
import { invalidateEntryMessage, invalidateInodeMessage, resendMessage } from "./notification.js";
import type { Warnings } from "./warnings.js";

/** The notifications of one connection. Each resolves with 0 or a negative errno, -ENODEV after `end`. */
export class Notifier {
  /** Whether the kernel knows the mark for an expiry. */
  hasExpireOnly = false;
  /** Notifications on the way: each holds the connection open. */
  pending = 0;
  readonly #channel: FuseChannel;
  #isOver = false;

  constructor(channel: FuseChannel) {
    this.#channel = channel;
  }

  /**
   * The kernel shall look `name` in `parent` up again; -ENOENT when it knows no such entry. With
   * `expireOnly` what is open or mounted there stays attached.
   */
  invalidateEntry(parent: NodeId, name: ByteString, expireOnly = false): Promise<Result> {
    return this.#send(invalidateEntryMessage(parent, name, expireOnly && this.hasExpireOnly));
  }

  /** The kernel shall drop attributes of `node`, and its pages from `offset` on; see `invalidateInodeMessage`. */
  invalidateInode(node: NodeId, offset: number, length: number): Promise<Result> {
    return this.#send(invalidateInodeMessage(node, offset, length));
  }

  /** The kernel shall send again what has no answer yet. */
  async resend(warnings: Warnings): Promise<void> {
    const result = await this.#send(resendMessage());
    if (result < 0) warnings.warn("resend failed", syscallError(result, "write", "/dev/fuse"));
  }

  /** The connection is closed. */
  end(): void {
    this.#isOver = true;
  }

  async #send(message: Buffer): Promise<Result> {
    if (this.#isOver) return -ENODEV;
    this.pending++;
    try {
      return await this.#channel.notifyAsync(message);
    } finally {
      this.pending--;
    }
  }
}
