import type { ContentStore } from "../content/content-store.js";
import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";

/** SKELETON. What a collection removed. */
export type GarbageReport = { readonly blobs: Digest[]; readonly snapshots: string[] };
export declare class GarbageCollector {
  constructor(o: {
    database: Database;
    content: ContentStore;
    /** Called in the same tick as the rows go: move the directories away at once, delete them later. */
    discardSnapshots(names: readonly string[]): Promise<void>;
    /** Snapshots (chain IDs) being made or used just now, kept though nothing refers to them yet. */
    busySnapshots?(): Iterable<string>;
  });
  /** Runs after the one under way, if any. */
  run(): Promise<GarbageReport>;
}
