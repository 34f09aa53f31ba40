/**
 * The content store: immutable blobs under their digest.
 *
 * Vocabulary: a *blob* is a complete, verified file `blobs/sha256/<hex>` with a row in the database;
 * an *ingest* is a partial file in `ingest/`. Invariants: a row exists only after its file is
 * durable; a file is removed only after its row; a file without a row, or an ingest of a dead
 * process, is waste that `open` removes.
 */

import { randomBytes } from "node:crypto";
import { renameSync, statSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import type { BlobRow } from "../metadata/blob-table.js";
import type { Database } from "../metadata/database.js";
import type { Labels } from "../metadata/labels.js";
import {
  CorruptDataError,
  NotFoundError,
  ResourceExhaustedError,
  UnavailableError,
} from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { type Digest, digestOf, hexOf } from "./digest.js";
import type { MakeRoom } from "./disk-full.js";
import { Ingest, type IngestedBlob, type IngestOptions } from "./ingest.js";
import { ioError } from "./io-error.js";

/** A resumable ingest that nobody came back for is removed at start after this time. */
const RESUMABLE_LIFETIME_MS = 24 * 3600 * 1000;

/** What `open` found out of order. */
export type ContentRecovery = {
  /** Blobs that the database promised but the disk lost; their rows are gone now. */
  readonly missing: Digest[];
  /** How many files of unfinished work were removed. */
  readonly removedFiles: number;
};

/** What belongs to a blob that enters the store. */
export type BlobOptions = {
  readonly mediaType?: string;
  readonly labels?: Labels;
  /** Becomes a resource of this lease in the same transaction. */
  readonly lease?: string;
};

/** Blobs on disk with their rows. One instance per root. */
export class ContentStore {
  readonly root: string;
  readonly #database: Database;
  readonly #blobDir: string;
  readonly #ingestDir: string;
  readonly #makeRoom: MakeRoom | undefined;
  /** How many ingests and adoptions have each digest in hand; garbage collection keeps them. */
  readonly #busy = new Map<Digest, number>();
  readonly #busyRefs = new Set<string>();

  /** @param makeRoom called when an ingest finds the disk full; then it goes on */
  constructor(root: string, database: Database, makeRoom?: MakeRoom) {
    this.root = root;
    this.#database = database;
    this.#makeRoom = makeRoom;
    this.#blobDir = path.join(root, "blobs", "sha256");
    this.#ingestDir = path.join(root, "ingest");
  }

  /**
   * Makes the directories, removes what dead processes left behind, and compares files with rows.
   * Call once before anything else; the caller guarantees that no other process uses this root.
   */
  async open(): Promise<ContentRecovery> {
    try {
      await mkdir(this.#blobDir, { recursive: true, mode: 0o700 });
      await mkdir(this.#ingestDir, { recursive: true, mode: 0o700 });
      let removedFiles = await this.#sweepIngests();
      const sizes = new Map<string, number>();
      for (const name of await readdir(this.#blobDir)) {
        const row = this.#database.blobs.get(`sha256:${name}` as Digest);
        const file = path.join(this.#blobDir, name);
        if (row === undefined) {
          await rm(file, { recursive: true, force: true });
          removedFiles++;
        } else sizes.set(name, (await stat(file)).size);
      }
      const missing = this.#database.blobs
        .list()
        .filter((row) => sizes.get(hexOf(row.digest)) !== row.size)
        .map((row) => row.digest);
      this.#database.transaction(() => {
        for (const digest of missing) this.#database.blobs.delete(digest);
      });
      await this.#unlink(missing);
      return { missing, removedFiles };
    } catch (error) {
      throw ioError(error, "open the content store", this.root);
    }
  }

  async #sweepIngests(): Promise<number> {
    let removed = 0;
    for (const name of await readdir(this.#ingestDir)) {
      const file = path.join(this.#ingestDir, name);
      const keep =
        name.startsWith("ref-") && Date.now() - (await stat(file)).mtimeMs < RESUMABLE_LIFETIME_MS;
      if (keep) continue;
      await rm(file, { recursive: true, force: true });
      removed++;
    }
    return removed;
  }

  /** Where the blob's file is, or would be. */
  path(digest: Digest): string {
    return path.join(this.#blobDir, hexOf(digest));
  }

  /** True for a complete blob. */
  has(digest: Digest): boolean {
    return this.#database.blobs.get(digest) !== undefined;
  }

  /** @throws NotFoundError */
  info(digest: Digest): BlobRow {
    const row = this.#database.blobs.get(digest);
    if (row !== undefined) return row;
    throw new NotFoundError(`blob ${digest}: not in the content store`, { details: { digest } });
  }

  /**
   * Reads a small blob (a manifest or a config) into memory and verifies it.
   *
   * @throws NotFoundError
   * @throws ResourceExhaustedError it is larger than `maxBytes`
   * @throws CorruptDataError the file no longer has this digest
   */
  async readBlob(digest: Digest, maxBytes: number): Promise<Buffer> {
    const { size } = this.info(digest);
    if (size > maxBytes) {
      throw new ResourceExhaustedError(
        `read blob ${digest}: ${size} bytes, at most ${maxBytes} are allowed here`,
      );
    }
    let data: Buffer;
    try {
      data = await readFile(this.path(digest));
    } catch (error) {
      throw ioError(error, `read blob ${digest}`, this.path(digest));
    }
    const actual = digestOf(data);
    if (actual === digest) return data;
    throw new CorruptDataError(
      `read blob ${digest}: the file ${this.path(digest)} is damaged (its digest is ${actual}); ` +
        "run varve check --repair, then pull or load its image again",
      { details: { expected: digest, actual } },
    );
  }

  /**
   * Starts to take content in. With `expected` of a blob that is here already, the bytes are only
   * verified. Ends with `commit`, `abort` or `suspend`.
   *
   * @throws UnavailableError another ingest of the same `ref` is under way
   */
  async ingest(options: IngestOptions = {}): Promise<Ingest> {
    const { ref, expected } = options;
    if (ref !== undefined && this.#busyRefs.has(ref)) {
      throw new UnavailableError(
        `ingest ${JSON.stringify(ref)}: another ingest of it is under way`,
      );
    }
    const name = ref === undefined ? randomName("") : `ref-${hexOf(digestOf(ref))}`;
    const file = path.join(this.#ingestDir, name);
    if (ref !== undefined) this.#busyRefs.add(ref);
    if (expected !== undefined) this.#hold(expected);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      if (ref !== undefined) this.#busyRefs.delete(ref);
      if (expected !== undefined) this.#release(expected);
    };
    const known = expected !== undefined && this.#isIntact(expected);
    try {
      const handle = known ? undefined : await open(file, ref === undefined ? "wx" : "a+", 0o600);
      faultPoint("ingest.begun");
      const ingest = new Ingest({ ...this.#ingestHost(), release }, options, file, handle);
      if (ref !== undefined && !known) await ingest.resume();
      return ingest;
    } catch (error) {
      release();
      throw ioError(error, "start an ingest", file);
    }
  }

  #ingestHost() {
    return {
      admit: (file: string, blob: BlobOptions & { digest: Digest; size: number }) =>
        this.#admit(file, blob),
      confirm: (digest: Digest, size: number, lease: string | undefined) =>
        this.#insert({ digest, size, ...(lease === undefined ? {} : { lease }) }),
      makeRoom: this.#makeRoom,
      discard: (file: string) => rm(file, { force: true }),
    };
  }

  /** Takes in bytes from memory; same promises and errors as an ingest. */
  async writeBlob(
    data: Uint8Array,
    options: IngestOptions & { labels?: Labels } = {},
  ): Promise<IngestedBlob> {
    const ingest = await this.ingest({ ...options, expected: options.expected ?? digestOf(data) });
    await ingest.write(data);
    return await ingest.commit(options.labels);
  }

  /** A name for a file that `adoptFile` is to take, in a directory that is swept at start. */
  newFile(): string {
    return path.join(this.#ingestDir, randomName(""));
  }

  /**
   * Makes a finished file a blob by renaming it; `file` must be on the root's file system. The
   * digest is believed, not computed: it comes from the code that wrote the file. Durable on return.
   */
  async adoptFile(
    file: string,
    digest: Digest,
    size: number,
    options: BlobOptions = {},
  ): Promise<void> {
    try {
      const actual = (await stat(file)).size;
      if (actual !== size) {
        throw new CorruptDataError(`adopt ${file} as ${digest}: ${actual} bytes, expected ${size}`);
      }
      await syncPath(file);
      await this.#admit(file, { ...options, digest, size });
    } catch (error) {
      throw ioError(error, `adopt ${file} as ${digest}`, file);
    }
  }

  /** Replaces a blob's labels. @throws NotFoundError */
  setLabels(digest: Digest, labels: Labels): void {
    this.#database.transaction(() => {
      this.info(digest);
      this.#database.blobs.setLabels(digest, labels);
    });
  }

  /** Makes a blob a resource of a lease. @returns false when there is no such blob */
  protect(digest: Digest, lease: string): boolean {
    return this.#database.transaction(() => {
      if (!this.has(digest)) return false;
      this.#database.leases.addResource(lease, { type: "content", id: digest });
      return true;
    });
  }

  /**
   * Removes row and file. The caller knows that nothing refers to it.
   *
   * @returns false when it is absent, or an ingest has it in hand
   */
  async delete(digest: Digest): Promise<boolean> {
    if (this.#busy.has(digest)) return false;
    const existed = this.#database.transaction(() => this.#database.blobs.delete(digest));
    if (existed) await this.discardFiles([digest]);
    return existed;
  }

  /** The digests that an ingest has in hand just now: garbage collection must keep them. */
  busyDigests(): Iterable<Digest> {
    return this.#busy.keys();
  }

  /**
   * Removes the files of blobs whose rows were deleted in this very tick. Before the first await the
   * files lose their names, so that a new ingest of the same digest cannot be hit.
   */
  async discardFiles(digests: readonly Digest[]): Promise<void> {
    const trash: string[] = [];
    for (const digest of digests) {
      const file = path.join(this.#ingestDir, randomName("trash-"));
      try {
        renameSync(this.path(digest), file);
        trash.push(file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
        throw ioError(error, `remove blob ${digest}`, this.path(digest));
      }
    }
    if (trash.length > 0) faultPoint("gc.renamed");
    for (const file of trash) await rm(file, { force: true });
  }

  async #admit(
    file: string,
    blob: BlobOptions & { digest: Digest; size: number },
  ): Promise<boolean> {
    // 1. The file is complete and synced. 2. It gets its name. 3. The name is synced. 4. The row
    // makes it visible. A crash before 4 leaves a file without a row, which `open` removes.
    this.#hold(blob.digest);
    try {
      if (this.#isIntact(blob.digest)) {
        this.#insert(blob);
        await rm(file, { force: true });
        return false;
      }
      await rename(file, this.path(blob.digest));
      faultPoint("ingest.renamed");
      await syncPath(this.#blobDir);
      this.#insert(blob);
      faultPoint("ingest.recorded");
      return true;
    } finally {
      this.#release(blob.digest);
    }
  }

  #insert(blob: BlobOptions & { digest: Digest; size: number }): void {
    this.#database.transaction(() => {
      this.#database.blobs.insert(blob);
      if (blob.lease === undefined) return;
      this.#database.leases.addResource(blob.lease, { type: "content", id: blob.digest });
    });
  }

  /** True when row and file are here and agree on the size. */
  #isIntact(digest: Digest): boolean {
    const row = this.#database.blobs.get(digest);
    if (row === undefined) return false;
    return statSync(this.path(digest), { throwIfNoEntry: false })?.size === row.size;
  }

  async #unlink(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) await rm(this.path(digest), { force: true });
  }

  #hold(digest: Digest): void {
    this.#busy.set(digest, (this.#busy.get(digest) ?? 0) + 1);
  }

  #release(digest: Digest): void {
    const count = this.#busy.get(digest) ?? 0;
    if (count > 1) this.#busy.set(digest, count - 1);
    else this.#busy.delete(digest);
  }
}

function randomName(prefix: string): string {
  return `${prefix}${randomBytes(12).toString("hex")}`;
}

/** Makes a file's content, or a directory's entries, durable. */
export async function syncPath(target: string): Promise<void> {
  const handle = await open(target, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
