/**
 * Garbage collection: mark what is reachable, sweep the rest.
 *
 * Roots are image references, views, what containerd shares, leases that have not expired, remembered
 * build steps, records with a non-empty gc.root label, and what callers hold in hand just now. Edges lead from a manifest or an index to what it
 * names, from a config to its chain, from a snapshot to its parent, and along containerd's
 * gc.ref labels. Mark and sweep are one transaction, so nothing can become referenced in between;
 * rows go first, the caller removes the files.
 */

import type { Database } from "./database.js";
import { type Digest, isDigest } from "./digest.js";
import { GC_ROOT_LABEL, GC_SHALLOW_LABEL, type Labels } from "./labels.js";
import type { SnapshotRow } from "./snapshot-table.js";

/** What a blob refers to, by its content. */
export type BlobReferences = {
  readonly blobs: readonly Digest[];
  /** Chain IDs: names of snapshots. */
  readonly snapshots: readonly string[];
};

/** How a collection looks outside of the database. */
export type GarbageQuery = {
  /** Parses a blob; nothing for one that is no manifest, index or config. Synchronous: see above. */
  references(digest: Digest): BlobReferences;
  /** Additional roots: content and snapshots that are in hand. */
  readonly busyBlobs?: Iterable<Digest>;
  readonly busySnapshots?: Iterable<string>;
};

/** Roots that do not count: what would be garbage if they went? */
export type IgnoredRoots = {
  /** Names of references. */
  readonly references?: ReadonlySet<string>;
  /** Keys of build steps. */
  readonly buildSteps?: ReadonlySet<string>;
};

/** Rows that nothing reaches. Snapshots come children first. */
export type Garbage = {
  readonly blobs: Digest[];
  readonly snapshots: string[];
  /** What their files take. */
  readonly bytes: number;
};

const CONTENT_REF_LABEL = "containerd.io/gc.ref.content";
const SNAPSHOT_REF_LABEL = "containerd.io/gc.ref.snapshot";

/** Deletes expired leases and the rows that nothing reaches; the files are the caller's, in the same tick. */
export function sweepGarbage(database: Database, query: GarbageQuery): Garbage {
  return database.transaction(() => {
    database.leases.deleteExpired();
    const garbage = findGarbage(database, query);
    for (const digest of garbage.blobs) database.blobs.delete(digest);
    for (const name of garbage.snapshots) database.snapshots.delete(name);
    database.uses.retain((imageId) => database.blobs.get(imageId) !== undefined);
    return garbage;
  });
}

/** The rows that nothing reaches, or would reach without the ignored roots. Changes nothing. */
export function findGarbage(
  database: Database,
  query: GarbageQuery,
  ignored: IgnoredRoots = {},
): Garbage {
  const mark = new Mark(database, query);
  mark.roots(ignored);
  mark.run();
  const blobs = database.blobs.list().filter((row) => !mark.blobs.has(row.digest));
  const snapshots = unmarkedSnapshots(database, mark.snapshots);
  const sizes = [...blobs.map((row) => row.size), ...snapshots.map((row) => row.sizeBytes)];
  return {
    blobs: blobs.map((row) => row.digest),
    snapshots: snapshots.map((row) => row.name),
    bytes: sizes.reduce((sum, size) => sum + size, 0),
  };
}

/** The blobs and snapshots that the given blobs reach, themselves included; also those not here. */
export function reach(
  database: Database,
  references: GarbageQuery["references"],
  roots: Iterable<Digest>,
): { readonly blobs: ReadonlySet<Digest>; readonly snapshots: ReadonlySet<string> } {
  const mark = new Mark(database, { references });
  for (const digest of roots) mark.blob(digest);
  mark.run();
  return mark;
}

function unmarkedSnapshots(database: Database, marked: ReadonlySet<string>): SnapshotRow[] {
  const found = new Set<string>();
  const rows: SnapshotRow[] = [];
  const add = (row: SnapshotRow) => {
    if (found.has(row.name)) return;
    found.add(row.name);
    for (const child of database.snapshots.children(row.name)) add(child);
    rows.push(row);
  };
  // Parents of marked snapshots are marked, so the children of an unmarked one are unmarked too.
  for (const row of database.snapshots.list()) if (!marked.has(row.name)) add(row);
  return rows;
}

class Mark {
  readonly blobs = new Set<Digest>();
  readonly snapshots = new Set<string>();
  readonly #database: Database;
  readonly #query: GarbageQuery;
  readonly #queue: Digest[] = [];

  constructor(database: Database, query: GarbageQuery) {
    this.#database = database;
    this.#query = query;
  }

  roots(ignored: IgnoredRoots): void {
    const { references, views, leases, blobs, snapshots, buildSteps, containerd } = this.#database;
    for (const row of references.list()) {
      if (ignored.references?.has(row.name) !== true) this.blob(row.target.digest);
    }
    for (const step of buildSteps.list()) {
      if (ignored.buildSteps?.has(step.key) !== true) this.blob(step.manifestDigest);
    }
    for (const view of views.list()) {
      this.blob(view.manifestDigest);
      this.blob(view.imageId);
      if (view.chainId !== undefined) this.#snapshot(view.chainId);
    }
    for (const lease of leases.list()) {
      if (leases.isExpired(lease)) continue;
      for (const resource of leases.resources(lease.id)) {
        if (resource.type === "snapshot") this.#snapshot(resource.id);
        else if (resource.type === "content" && isDigest(resource.id)) this.blob(resource.id);
        // An image resource keeps nothing by itself: its reference is a root while it exists.
      }
    }
    for (const row of blobs.list()) if (isRoot(row.labels)) this.blob(row.digest);
    for (const row of snapshots.list()) {
      // Active and view snapshots belong to a client that removes them itself.
      if (row.kind !== "committed" || isRoot(row.labels)) this.#snapshot(row.name);
    }
    for (const { chainId } of containerd.list()) if (chainId !== undefined) this.#snapshot(chainId);
    for (const digest of this.#query.busyBlobs ?? []) this.blob(digest);
    for (const name of this.#query.busySnapshots ?? []) this.#snapshot(name);
  }

  run(): void {
    for (let digest = this.#queue.pop(); digest !== undefined; digest = this.#queue.pop()) {
      const row = this.#database.blobs.get(digest);
      if (row === undefined || row.labels[GC_SHALLOW_LABEL] !== undefined) continue;
      this.#labels(row.labels);
      const edges = this.#query.references(digest);
      for (const blob of edges.blobs) this.blob(blob);
      for (const name of edges.snapshots) this.#snapshot(name);
    }
  }

  blob(digest: Digest): void {
    if (this.blobs.has(digest)) return;
    this.blobs.add(digest);
    this.#queue.push(digest);
  }

  #snapshot(name: string): void {
    let next: string | undefined = name;
    while (next !== undefined && !this.snapshots.has(next)) {
      this.snapshots.add(next);
      const row = this.#database.snapshots.get(next);
      if (row !== undefined) this.#labels(row.labels);
      next = row?.parent;
    }
  }

  #labels(labels: Labels): void {
    for (const [key, value] of Object.entries(labels)) {
      if (key.startsWith(SNAPSHOT_REF_LABEL)) this.#snapshot(value);
      else if (key.startsWith(CONTENT_REF_LABEL) && isDigest(value)) this.blob(value);
    }
  }
}

function isRoot(labels: Labels): boolean {
  return (labels[GC_ROOT_LABEL] ?? "") !== "";
}
