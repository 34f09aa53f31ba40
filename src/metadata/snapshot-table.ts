/** The table of snapshots: unpacked layers by chain ID. */

import type BetterSqlite3 from "better-sqlite3";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";
import { labelQuery } from "./label-query.js";
import { decodeLabels, encodeLabels, type Labels } from "./labels.js";

/** As containerd names them: committed never changes, active is writable, view is read-only. */
export type SnapshotKind = "committed" | "active" | "view";

/** One snapshot. The row of a committed one exists only after its directory is durable. */
export type SnapshotRow = {
  /** The chain ID of a committed layer; names of other clients are opaque. */
  readonly name: string;
  readonly parent?: string;
  readonly kind: SnapshotKind;
  /** The layer's own diff ID. */
  readonly diffId?: Digest;
  /** Disk usage of this layer alone. */
  readonly sizeBytes: number;
  readonly inodes: number;
  readonly labels: Labels;
  readonly createdNs: bigint;
  readonly updatedNs: bigint;
};

type Columns = {
  name: string;
  parent: string | null;
  kind: SnapshotKind;
  diff_id: Digest | null;
  size_bytes: bigint;
  inodes: bigint;
  labels: string;
  created_ns: bigint;
  updated_ns: bigint;
};

/** Snapshots. Every method is one statement and takes part in an open transaction. */
export class SnapshotTable {
  readonly #get;
  readonly #chain;
  readonly #label;
  readonly #list;
  readonly #children;
  readonly #count;
  readonly #insert;
  readonly #setLabels;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM snapshots WHERE name = ?");
    this.#chain = sql
      .prepare<[string], string>(
        `WITH RECURSIVE chain (name, parent, depth) AS (
           SELECT name, parent, 0 FROM snapshots WHERE name = ?
           UNION ALL
           SELECT lower.name, lower.parent, depth + 1
           FROM chain JOIN snapshots AS lower ON lower.name = chain.parent
         ) SELECT name FROM chain ORDER BY depth DESC`,
      )
      .pluck(true);
    this.#label = labelQuery<string>(sql, "snapshots", "name");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM snapshots ORDER BY name");
    this.#children = sql.prepare<[string], Columns>(
      "SELECT * FROM snapshots WHERE parent = ? ORDER BY name",
    );
    this.#count = sql.prepare<[], bigint>("SELECT count(*) FROM snapshots").pluck(true);
    this.#insert = sql.prepare<
      [string, string | null, string, string | null, number, number, string, bigint, bigint]
    >("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING");
    this.#setLabels = sql.prepare<[string, bigint, string]>(
      "UPDATE snapshots SET labels = ?, updated_ns = ? WHERE name = ?",
    );
    this.#delete = sql.prepare<[string]>("DELETE FROM snapshots WHERE name = ?");
  }

  get(name: string): SnapshotRow | undefined {
    const row = this.#get.get(name);
    return row && decode(row);
  }

  /** The names of a snapshot and of those that it stands on, base first; none when there is no such snapshot. */
  chain(name: string): string[] {
    return this.#chain.all(name);
  }

  /** One label of those of `names` that are there: null where it is not set. */
  label(names: readonly string[], label: string): Map<string, string | null> {
    return this.#label(names, label);
  }

  /** Every snapshot, sorted by name. */
  list(): SnapshotRow[] {
    return this.#list.all().map(decode);
  }

  /** The snapshots whose parent is `name`. */
  children(name: string): SnapshotRow[] {
    return this.#children.all(name).map(decode);
  }

  count(): number {
    return Number(this.#count.get() ?? 0n);
  }

  /** Adds a snapshot; one that is there already stays as it is. @returns false in that case */
  insert(
    row: Omit<SnapshotRow, "createdNs" | "updatedNs" | "labels"> & { labels?: Labels },
  ): boolean {
    const now = nowNs();
    const result = this.#insert.run(
      row.name,
      row.parent ?? null,
      row.kind,
      row.diffId ?? null,
      row.sizeBytes,
      row.inodes,
      encodeLabels(row.labels, `snapshot ${row.name}`),
      now,
      now,
    );
    return result.changes > 0;
  }

  /** Replaces the labels and moves `updatedNs`. @returns false when there is no such snapshot */
  setLabels(name: string, labels: Labels): boolean {
    const encoded = encodeLabels(labels, `snapshot ${name}`);
    return this.#setLabels.run(encoded, nowNs(), name).changes > 0;
  }

  /** Fails on a snapshot with children (a foreign key). @returns false when there was none */
  delete(name: string): boolean {
    return this.#delete.run(name).changes > 0;
  }
}

function decode(row: Columns): SnapshotRow {
  return {
    name: row.name,
    ...(row.parent === null ? {} : { parent: row.parent }),
    kind: row.kind,
    ...(row.diff_id === null ? {} : { diffId: row.diff_id }),
    sizeBytes: Number(row.size_bytes),
    inodes: Number(row.inodes),
    labels: decodeLabels(row.labels),
    createdNs: row.created_ns,
    updatedNs: row.updated_ns,
  };
}
