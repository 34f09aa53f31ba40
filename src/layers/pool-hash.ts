/** SHA-256 of a stream, computed on the thread pool beside everything else. */

import { createHash } from "node:crypto";
import { writeSync } from "node:fs";
import type { Digest } from "../content/digest.js";
import { codecs } from "../system/addon.js";
import { must } from "../system/errno.js";
import type { Sha256State } from "../system/native-codecs.js";

const DIGEST_BYTES = 32;

/** See the file comment. */
export class PoolHash {
  readonly #state: Sha256State | undefined = codecs.createSha256();
  /** Where the addon cannot: hashed at once. */
  readonly #plain = this.#state === undefined ? createHash("sha256") : undefined;
  #tail: Promise<unknown> = Promise.resolve();

  /** Takes the next bytes, `data[start, start + length)`, which must be left alone until it resolves. */
  update(data: Buffer, start = 0, length = data.length): Promise<void> {
    const state = this.#state;
    if (state === undefined) this.#plain?.update(data.subarray(start, start + length));
    return this.#afterOthers(async () => {
      if (state === undefined) return;
      must(await codecs.hashAsync(state, data, start, length), "hash", "layer");
    });
  }

  /**
   * Takes the next bytes and appends them to a file; they and the descriptor are to be left alone until it
   * resolves.
   *
   * @throws SyscallError the file cannot be written; `path` is named
   */
  updateAndAppend(data: Buffer, fd: number, path: string): Promise<void> {
    const state = this.#state;
    if (state === undefined) this.#plain?.update(data);
    return this.#afterOthers(async () => {
      if (state === undefined) appendSync(fd, data);
      else must(await codecs.writeHashedAsync(state, fd, data, 0, data.length), "write", path);
    });
  }

  #afterOthers(work: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(work);
    // Whoever waits for this update, or for the digest, hears of a failure.
    done.catch(() => {});
    this.#tail = done;
    return done;
  }

  /** Resolves when nothing is under way any more, whatever became of it. */
  async settled(): Promise<void> {
    await this.#tail.catch(() => {});
  }

  /** The digest of all. To be called once. */
  async digest(): Promise<Digest> {
    await this.#tail;
    const digest = Buffer.alloc(DIGEST_BYTES);
    if (this.#state !== undefined) must(codecs.finishHash(this.#state, digest), "hash", "layer");
    const hex = this.#plain?.digest("hex") ?? digest.toString("hex");
    return `sha256:${hex}` as Digest;
  }
}

function appendSync(fd: number, data: Buffer): void {
  for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
}
