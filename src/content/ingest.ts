/** An ingest: content on its way in. Nobody sees it before `commit` has verified it. */

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import type { Labels } from "../metadata/labels.js";
import { CorruptDataError, FailedPreconditionError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import type { Digest } from "./digest.js";
import { type MakeRoom, withRoom } from "./disk-full.js";
import { ioError } from "./io-error.js";

/** What is known of the content beforehand, and what becomes of it. */
export type IngestOptions = {
  /** The digest that the content must have. */
  readonly expected?: Digest;
  /** The size that the content must have, in bytes. */
  readonly expectedSize?: number;
  /** Keeps a partial ingest under this name, to be resumed by the next ingest of the same name. */
  readonly ref?: string;
  /** Recorded with the blob. */
  readonly mediaType?: string;
  /** The blob becomes a resource of this lease in the transaction that makes it visible. */
  readonly lease?: string;
};

/** A blob that came in; `existed` when the store had it already. */
export type IngestedBlob = {
  readonly digest: Digest;
  readonly size: number;
  readonly existed: boolean;
};

/** What an ingest needs of its store. */
export type IngestHost = {
  /** Makes a complete, closed and durable file a blob; the file is gone afterwards. False: it was one. */
  admit(
    file: string,
    blob: { digest: Digest; size: number; mediaType?: string; labels?: Labels; lease?: string },
  ): Promise<boolean>;
  /** Records that an existing blob is wanted (lease, labels untouched). */
  confirm(digest: Digest, size: number, lease: string | undefined): void;
  /** Asked when the disk is full; absent: the ingest fails. */
  readonly makeRoom?: MakeRoom | undefined;
  /** Removes a partial file, if it is still there. */
  discard(file: string): Promise<void>;
  /** Called once, however the ingest ends. */
  release(): void;
};

/**
 * Content being written. Writes must be awaited one by one. Whatever fails (write, verification,
 * commit) also aborts: the partial file is gone when the error arrives.
 */
export class Ingest {
  readonly #host: IngestHost;
  readonly #options: IngestOptions;
  readonly #file: string;
  /** Absent when the blob is here already: then the bytes are only verified. */
  readonly #handle: FileHandle | undefined;
  readonly #hash: Hash = createHash("sha256");
  #offset = 0;
  #open = true;

  constructor(
    host: IngestHost,
    options: IngestOptions,
    file: string,
    handle: FileHandle | undefined,
  ) {
    this.#host = host;
    this.#options = options;
    this.#file = file;
    this.#handle = handle;
  }

  /** Bytes so far; not 0 at the start of a resumed ingest. */
  get offset(): number {
    return this.#offset;
  }

  /** Hashes what an earlier ingest of the same `ref` left behind. For the store only. */
  async resume(): Promise<void> {
    try {
      for await (const chunk of createReadStream(this.#file)) {
        this.#hash.update(chunk as Buffer);
        this.#offset += (chunk as Buffer).length;
      }
    } catch (error) {
      throw await this.#fail(error, "resume");
    }
  }

  /**
   * Appends bytes; `chunk` may be reused once the promise is fulfilled.
   *
   * @throws CorruptDataError more bytes than `expectedSize`
   * @throws ResourceExhaustedError the disk is full, and no room could be made
   */
  async write(chunk: Uint8Array): Promise<void> {
    this.#assertOpen("write to");
    const { expectedSize } = this.#options;
    if (expectedSize !== undefined && this.#offset + chunk.length > expectedSize) {
      throw await this.#fail(
        new CorruptDataError(`${this.#subject()}: more than the expected ${expectedSize} bytes`),
        "write",
      );
    }
    try {
      // The write runs on another thread while this one hashes.
      const written = this.#handle && this.#append(this.#handle, chunk);
      this.#hash.update(chunk);
      await written;
      this.#offset += chunk.length;
      faultPoint("ingest.written");
    } catch (error) {
      throw await this.#fail(error, "write");
    }
  }

  /**
   * Verifies the content and makes it a blob; when this returns it is durable and visible. The blob
   * may have appeared meanwhile: then this one is dropped, and the result is the same.
   *
   * @throws CorruptDataError digest or size differ from what was expected; names both
   * @throws ResourceExhaustedError the disk is full
   */
  async commit(labels?: Labels): Promise<IngestedBlob> {
    this.#assertOpen("commit");
    const digest = `sha256:${this.#hash.digest("hex")}` as Digest;
    const size = this.#offset;
    let existed = true;
    try {
      this.#verify(digest, size);
      const { lease, mediaType } = this.#options;
      if (this.#handle === undefined) {
        this.#host.confirm(digest, size, lease);
      } else {
        await this.#handle.sync();
        await this.#handle.close();
        faultPoint("ingest.synced");
        existed = !(await this.#host.admit(this.#file, {
          digest,
          size,
          ...(mediaType === undefined ? {} : { mediaType }),
          ...(labels === undefined ? {} : { labels }),
          ...(lease === undefined ? {} : { lease }),
        }));
      }
    } catch (error) {
      throw await this.#fail(error, "commit");
    }
    this.#end();
    return { digest, size, existed };
  }

  /** Gives up and removes what was written. Idempotent; does nothing after a commit. */
  async abort(): Promise<void> {
    if (!this.#open) return;
    await this.#handle?.close().catch(() => {});
    try {
      if (this.#handle !== undefined) await this.#host.discard(this.#file);
    } finally {
      this.#end();
    }
  }

  /** Stops for now and keeps the bytes for the next ingest of the same `ref`; without one, aborts. */
  async suspend(): Promise<void> {
    if (this.#options.ref === undefined) return await this.abort();
    if (!this.#open) return;
    await this.#handle?.close().catch(() => {});
    this.#end();
  }

  async #append(handle: FileHandle, chunk: Uint8Array): Promise<void> {
    const { makeRoom } = this.#host;
    const position = this.#offset;
    for (let done = 0; done < chunk.length; ) {
      // A short write happens when the disk fills up in its middle; the next one reports ENOSPC.
      const { bytesWritten } = await withRoom(makeRoom, () =>
        handle.write(chunk, done, chunk.length - done, position + done),
      );
      done += bytesWritten;
    }
  }

  #verify(digest: Digest, size: number): void {
    const { expected, expectedSize } = this.#options;
    if (expectedSize !== undefined && size !== expectedSize) {
      throw new CorruptDataError(
        `${this.#subject()}: ${size} bytes, expected ${expectedSize}; the source is truncated or damaged`,
      );
    }
    if (expected !== undefined && digest !== expected) {
      throw new CorruptDataError(
        `blob ${expected}: its content has the digest ${digest}; the source is damaged`,
        { details: { expected, actual: digest } },
      );
    }
  }

  #subject(): string {
    return `blob ${this.#options.expected ?? this.#options.ref ?? "of unknown digest"}`;
  }

  #assertOpen(operation: string): void {
    if (this.#open) return;
    throw new FailedPreconditionError(`${operation} ${this.#subject()}: the ingest has ended`);
  }

  /** Aborts and returns the error to throw. */
  async #fail(error: unknown, operation: string): Promise<unknown> {
    await this.abort().catch(() => {});
    return ioError(error, `${operation} ${this.#subject()}`, this.#file);
  }

  #end(): void {
    this.#open = false;
    this.#host.release();
  }
}
