/** Garbage collection over everything: rows, blob files, snapshot directories. */

import { Mutex } from "async-mutex";
import type { ContentStore } from "../content/content-store.js";
import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import {
  findGarbage,
  type Garbage,
  type GarbageQuery,
  type IgnoredRoots,
  reach,
  sweepGarbage,
} from "../metadata/garbage-collection.js";
import { faultPoint } from "../system/fault-points.js";
import { ReferenceReader } from "./image-graph.js";

/** What the collector works on. */
export type GarbageCollectorOptions = {
  readonly database: Database;
  readonly content: ContentStore;
  /**
   * Removes the directories of snapshots whose rows were deleted in this very tick. Must move them
   * out of the way before its first await, so that a new unpack of the same chain cannot be hit.
   */
  discardSnapshots(names: readonly string[]): Promise<void>;
  /** Snapshots in hand just now (an unpack, a commit), kept though nothing refers to them yet. */
  busySnapshots?(): Iterable<string>;
};

/** Runs collections, one after another. */
export class GarbageCollector {
  readonly #options: GarbageCollectorOptions;
  readonly #reader: ReferenceReader;
  readonly #mutex = new Mutex();

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    this.#reader = new ReferenceReader(options.content);
  }

  /** Removes what nothing refers to; waits for a run that is under way, then runs itself. */
  async run(): Promise<Garbage> {
    return await this.#mutex.runExclusive(() => this.#collect());
  }

  /** What a run would remove if the ignored roots were gone. */
  preview(ignored: IgnoredRoots): Garbage {
    return findGarbage(this.#options.database, this.#query(), ignored);
  }

  /** The blobs and snapshots that `roots` keep, themselves included; also those that are not here. */
  reach(roots: Iterable<Digest>): ReturnType<typeof reach> {
    return reach(this.#options.database, this.#query().references, roots);
  }

  #query(): GarbageQuery {
    return {
      references: (digest) => this.#reader.read(digest),
      busyBlobs: this.#options.content.busyDigests(),
      busySnapshots: this.#options.busySnapshots?.() ?? [],
    };
  }

  async #collect(): Promise<Garbage> {
    const { database, content } = this.#options;
    const swept = sweepGarbage(database, this.#query());
    faultPoint("gc.recorded");
    this.#reader.forget(swept.blobs);
    // Both calls rename synchronously, before anything else can run; the waiting comes after.
    const files = content.discardFiles(swept.blobs);
    const directories = this.#options.discardSnapshots(swept.snapshots);
    const results = await Promise.allSettled([files, directories]);
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return swept;
  }
}
