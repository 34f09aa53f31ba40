/** What a session offers its file system of the kernel's side of the connection. */

import { syscallError } from "../system/errno.js";
import type { FuseChannel } from "../system/native.js";
import type { Kernel, NodeId, Result } from "./file-system.js";
import { invalidateInodeMessage } from "./notification.js";
import type { RequestBuffer } from "./request.js";
import { withoutMark } from "./resent.js";
import type { Warnings } from "./warnings.js";

/** See `Kernel`. */
export class KernelSide implements Kernel {
  readonly hasPassthrough: boolean;
  readonly #channel: FuseChannel;
  readonly #request: RequestBuffer;
  readonly #warnings: Warnings;

  constructor(
    channel: FuseChannel,
    hasPassthrough: boolean,
    request: RequestBuffer,
    warnings: Warnings,
  ) {
    this.#channel = channel;
    this.#request = request;
    this.#warnings = warnings;
    this.hasPassthrough = hasPassthrough;
  }

  get request(): number {
    return withoutMark(this.#request);
  }

  openBacking(fd: number): Result {
    const id = this.#channel.backingOpen(fd);
    if (id < 0) {
      const error = syscallError(id, "ioctl", "FUSE_DEV_IOC_BACKING_OPEN");
      this.#warnings.warn("no passthrough for a file, its data goes through the daemon", error);
    }
    return id;
  }

  closeBacking(id: number): void {
    this.#channel.backingClose(id);
  }

  expireAttributes(node: NodeId, incarnation: number): void {
    // In place: without pages to drop the kernel takes no lock that a request could hold.
    const message = invalidateInodeMessage(node, -1, 0, incarnation);
    this.#channel.send(message, message.length);
  }
}
