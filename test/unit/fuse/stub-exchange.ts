/** Runs operations of the table against a partial file system, without a kernel. */

import { type Exchange, type Outcome, Workspace } from "../../../src/fuse/exchange.js";
import type { FileSystem } from "../../../src/fuse/file-system.js";
import { OPERATIONS } from "../../../src/fuse/operations.js";
import { deliver } from "./request-encoder.js";

/** Hands one message to its operation, as the session does after its checks. */
export class StubExchange implements Exchange {
  readonly work = new Workspace();
  readonly fileSystem: FileSystem;
  hasExtendedSetxattr = true;

  constructor(fileSystem: Partial<FileSystem>) {
    this.fileSystem = fileSystem as FileSystem;
  }

  negotiate(): Outcome {
    return 0;
  }

  interrupt(): void {}

  run(message: Buffer): Outcome {
    deliver(this.work.request, message);
    const operation = OPERATIONS[this.work.request.opcode];
    if (operation === undefined) throw new Error(`no opcode ${this.work.request.opcode}`);
    return operation.handle(this);
  }

  /** The body that the last operation put: `length` bytes behind the header. */
  body(length: number): Buffer {
    return this.work.reply.buffer.subarray(16, 16 + length);
  }
}
