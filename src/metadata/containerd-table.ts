/** The table of snapshots that containerd keeps here: a key space of its own, apart from images. */

import type BetterSqlite3 from "better-sqlite3";
import { AlreadyExistsError } from "../system/errors.js";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";
import { decodeLabels, encodeLabels, type Labels } from "./labels.js";
import type { SnapshotKind } from "./snapshot-table.js";

/** One snapshot of containerd's. */
export type ContainerdRow = {
  /** Names its directory; never used again after a removal. */
  readonly id: number;
  /** containerd's name for it, opaque. Active, view and committed ones share one name space. */
  readonly key: string;
  /** The parent's ID, a committed snapshot. */
  readonly parentId?: number;
  /** The parent's key. */
  readonly parent?: string;
  readonly kind: SnapshotKind;
  /** Disk usage of a committed layer, known when its chain index is built; both or none. */
  readonly sizeBytes?: number;
  readonly inodes?: number;
  /** The snapshot of ours whose directory this one shares; absent: it has its own. */
  readonly chainId?: Digest;
  readonly labels: Labels;
  readonly createdNs: bigint;
  readonly updatedNs: bigint;
};

type Columns = {
  id: bigint;
  key: string;
  parent_id: bigint | null;
  parent: string | null;
  kind: SnapshotKind;
  size_bytes: bigint | null;
  inodes: bigint | null;
  chain_id: Digest | null;
  labels: string;
  created_ns: bigint;
  updated_ns: bigint;
};

const SELECT = `
  SELECT one.*, parent.key AS parent FROM containerd_snapshots AS one
  LEFT JOIN containerd_snapshots AS parent ON parent.id = one.parent_id`;

/** containerd's snapshots. Every method is one statement and takes part in an open transaction. */
export class ContainerdTable {
  readonly #get;
  readonly #getById;
  readonly #list;
  readonly #children;
  readonly #insert;
  readonly #insertShared;
  readonly #commit;
  readonly #setUsage;
  readonly #setLabels;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>(`${SELECT} WHERE one.key = ?`);
    this.#getById = sql.prepare<[number], Columns>(`${SELECT} WHERE one.id = ?`);
    this.#list = sql.prepare<[], Columns>(`${SELECT} ORDER BY one.id`);
    this.#children = sql.prepare<[number], Columns>(
      `${SELECT} WHERE one.parent_id = ? ORDER BY one.id`,
    );
    this.#insert = sql.prepare<[string, number | null, SnapshotKind, string, bigint, bigint]>(
      `INSERT INTO containerd_snapshots (key, parent_id, kind, labels, created_ns, updated_ns)
       VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`,
    );
    this.#insertShared = sql.prepare<
      [string, number | null, number, number, Digest, string, bigint, bigint]
    >(
      `INSERT INTO containerd_snapshots
         (key, parent_id, kind, size_bytes, inodes, chain_id, labels, created_ns, updated_ns)
       VALUES (?, ?, 'committed', ?, ?, ?, ?, ?, ?)`,
    );
    this.#commit = sql.prepare<[string, number | null, string, bigint, bigint, number]>(
      `UPDATE OR IGNORE containerd_snapshots
       SET key = ?, parent_id = ?, kind = 'committed', labels = ?, created_ns = ?, updated_ns = ?
       WHERE id = ?`,
    );
    this.#setUsage = sql.prepare<[number, number, number]>(
      "UPDATE containerd_snapshots SET size_bytes = ?, inodes = ? WHERE id = ?",
    );
    this.#setLabels = sql.prepare<[string, bigint, number]>(
      "UPDATE containerd_snapshots SET labels = ?, updated_ns = ? WHERE id = ?",
    );
    this.#delete = sql.prepare<[number]>("DELETE FROM containerd_snapshots WHERE id = ?");
  }

  get(key: string): ContainerdRow | undefined {
    const row = this.#get.get(key);
    return row && decode(row);
  }

  getById(id: number): ContainerdRow | undefined {
    const row = this.#getById.get(id);
    return row && decode(row);
  }

  /** Every snapshot, the oldest first. */
  list(): ContainerdRow[] {
    return this.#list.all().map(decode);
  }

  /** The snapshots on top of one. */
  children(id: number): ContainerdRow[] {
    return this.#children.all(id).map(decode);
  }

  /** @throws AlreadyExistsError the key is taken; InvalidArgumentError a label is too long */
  insert(row: {
    key: string;
    parentId: number | undefined;
    kind: SnapshotKind;
    labels: Labels;
  }): ContainerdRow {
    const now = nowNs();
    const labels = encodeLabels(row.labels, `snapshot ${row.key}`);
    const { changes } = this.#insert.run(row.key, row.parentId ?? null, row.kind, labels, now, now);
    if (changes === 0) throw taken(row.key);
    return this.get(row.key)!;
  }

  /** Adds a committed snapshot that shares a directory of ours. */
  insertShared(row: {
    key: string;
    parentId: number | undefined;
    chainId: Digest;
    sizeBytes: number;
    inodes: number;
    labels: Labels;
  }): ContainerdRow {
    const now = nowNs();
    const { key, parentId = null, sizeBytes, inodes, chainId } = row;
    const labels = encodeLabels(row.labels, `snapshot ${key}`);
    this.#insertShared.run(key, parentId, sizeBytes, inodes, chainId, labels, now, now);
    return this.get(key)!;
  }

  /**
   * Makes a snapshot the committed one `name`, created now.
   *
   * @throws AlreadyExistsError the name is taken; InvalidArgumentError a label is too long
   */
  commit(id: number, name: string, parentId: number | undefined, labels: Labels): ContainerdRow {
    const now = nowNs();
    const encoded = encodeLabels(labels, `snapshot ${name}`);
    const { changes } = this.#commit.run(name, parentId ?? null, encoded, now, now, id);
    if (changes === 0) throw taken(name);
    return this.get(name)!;
  }

  /** Records what a committed layer occupies. */
  setUsage(id: number, sizeBytes: number, inodes: number): void {
    this.#setUsage.run(sizeBytes, inodes, id);
  }

  /** Replaces the labels and moves `updatedNs`. */
  setLabels(row: ContainerdRow, labels: Labels): void {
    this.#setLabels.run(encodeLabels(labels, `snapshot ${row.key}`), nowNs(), row.id);
  }

  /** Fails on a snapshot with children (a foreign key). */
  delete(id: number): void {
    this.#delete.run(id);
  }
}

function taken(key: string): AlreadyExistsError {
  return new AlreadyExistsError(`snapshot ${JSON.stringify(key)}: already exists`);
}

function decode(row: Columns): ContainerdRow {
  const { parent_id: parentId, parent, size_bytes: size, inodes } = row;
  return {
    id: Number(row.id),
    key: row.key,
    ...(parentId === null ? {} : { parentId: Number(parentId) }),
    ...(parent === null ? {} : { parent }),
    kind: row.kind,
    ...(size === null ? {} : { sizeBytes: Number(size) }),
    ...(inodes === null ? {} : { inodes: Number(inodes) }),
    ...(row.chain_id === null ? {} : { chainId: row.chain_id }),
    labels: decodeLabels(row.labels),
    createdNs: row.created_ns,
    updatedNs: row.updated_ns,
  };
}
