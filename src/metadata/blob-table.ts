/** The table of blobs: which content is complete, and what is known of it. */

import type BetterSqlite3 from "better-sqlite3";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";
import { labelQuery } from "./label-query.js";
import { decodeLabels, encodeLabels, type Labels } from "./labels.js";

/** A complete, verified blob. The row exists only after its file is durable. */
export type BlobRow = {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** As the first referrer named it; absent when nothing did. */
  readonly mediaType?: string;
  readonly labels: Labels;
  readonly createdNs: bigint;
};

type Columns = {
  digest: Digest;
  size: bigint;
  media_type: string | null;
  labels: string;
  created_ns: bigint;
};

/** Blobs. Every method is one statement and takes part in an open transaction. */
export class BlobTable {
  readonly #get;
  readonly #label;
  readonly #list;
  readonly #totalBytes;
  readonly #insert;
  readonly #setLabels;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM blobs WHERE digest = ?");
    this.#label = labelQuery<Digest>(sql, "blobs", "digest");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM blobs ORDER BY digest");
    this.#totalBytes = sql
      .prepare<[], bigint>("SELECT coalesce(sum(size), 0) FROM blobs")
      .pluck(true);
    this.#insert = sql.prepare<[string, number, string | null, string, bigint]>(
      "INSERT INTO blobs VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
    );
    this.#setLabels = sql.prepare<[string, string]>("UPDATE blobs SET labels = ? WHERE digest = ?");
    this.#delete = sql.prepare<[string]>("DELETE FROM blobs WHERE digest = ?");
  }

  get(digest: Digest): BlobRow | undefined {
    const row = this.#get.get(digest);
    return row && decode(row);
  }

  /** One label of those of `digests` that are there: null where it is not set. */
  label(digests: readonly Digest[], label: string): Map<Digest, string | null> {
    return this.#label(digests, label);
  }

  /** Every blob, sorted by digest. */
  list(): BlobRow[] {
    return this.#list.all().map(decode);
  }

  /** The sum of all sizes, in bytes. */
  totalBytes(): number {
    return Number(this.#totalBytes.get() ?? 0n);
  }

  /** Adds a blob; a blob that is there already stays as it is. @returns false in that case */
  insert(blob: Omit<BlobRow, "createdNs" | "labels"> & { labels?: Labels }): boolean {
    const labels = encodeLabels(blob.labels, `blob ${blob.digest}`);
    const type = blob.mediaType ?? null;
    return this.#insert.run(blob.digest, blob.size, type, labels, nowNs()).changes > 0;
  }

  /** Replaces the labels. @returns false when there is no such blob */
  setLabels(digest: Digest, labels: Labels): boolean {
    return this.#setLabels.run(encodeLabels(labels, `blob ${digest}`), digest).changes > 0;
  }

  /** @returns false when there was none */
  delete(digest: Digest): boolean {
    return this.#delete.run(digest).changes > 0;
  }
}

function decode(row: Columns): BlobRow {
  return {
    digest: row.digest,
    size: Number(row.size),
    ...(row.media_type === null ? {} : { mediaType: row.media_type }),
    labels: decodeLabels(row.labels),
    createdNs: row.created_ns,
  };
}
