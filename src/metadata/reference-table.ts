/** The table of image references: name → target descriptor. */

import type BetterSqlite3 from "better-sqlite3";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";
import { decodeLabels, encodeLabels, type Labels } from "./labels.js";

/** What a reference points to: a manifest or an index. */
export type ReferenceTarget = {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
};

/** One name of an image. Names are opaque here; `images` normalises them. */
export type ReferenceRow = {
  readonly name: string;
  readonly target: ReferenceTarget;
  readonly labels: Labels;
  readonly createdNs: bigint;
  readonly updatedNs: bigint;
};

type Columns = {
  name: string;
  target_media_type: string;
  target_digest: Digest;
  target_size: bigint;
  labels: string;
  created_ns: bigint;
  updated_ns: bigint;
};

/** Image references. Every method is one statement and takes part in an open transaction. */
export class ReferenceTable {
  readonly #get;
  readonly #list;
  readonly #byTarget;
  readonly #put;
  readonly #delete;

  #version = 0;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM image_references WHERE name = ?");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM image_references ORDER BY name");
    this.#byTarget = sql.prepare<[string], Columns>(
      "SELECT * FROM image_references WHERE target_digest = ? ORDER BY name",
    );
    this.#put = sql.prepare<[string, string, string, number, string, bigint, bigint]>(
      `INSERT INTO image_references VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET
         target_media_type = excluded.target_media_type,
         target_digest = excluded.target_digest,
         target_size = excluded.target_size,
         labels = excluded.labels,
         updated_ns = excluded.updated_ns`,
    );
    this.#delete = sql.prepare<[string]>("DELETE FROM image_references WHERE name = ?");
  }

  /** Another number after each change: what was read while it stayed belongs together. */
  get version(): number {
    return this.#version;
  }

  get(name: string): ReferenceRow | undefined {
    const row = this.#get.get(name);
    return row && decode(row);
  }

  /** Every reference, sorted by name. */
  list(): ReferenceRow[] {
    return this.#list.all().map(decode);
  }

  /** The references that point to `digest`, sorted by name. */
  listByTarget(digest: Digest): ReferenceRow[] {
    return this.#byTarget.all(digest).map(decode);
  }

  /** Creates the reference or points it elsewhere; labels replace the old ones. */
  put(name: string, target: ReferenceTarget, labels: Labels = {}): ReferenceRow {
    const now = nowNs();
    const encoded = encodeLabels(labels, `image ${name}`);
    this.#version++;
    this.#put.run(name, target.mediaType, target.digest, target.size, encoded, now, now);
    return this.get(name)!;
  }

  /** @returns false when there was none */
  delete(name: string): boolean {
    this.#version++;
    return this.#delete.run(name).changes > 0;
  }
}

function decode(row: Columns): ReferenceRow {
  return {
    name: row.name,
    target: {
      mediaType: row.target_media_type,
      digest: row.target_digest,
      size: Number(row.target_size),
    },
    labels: decodeLabels(row.labels),
    createdNs: row.created_ns,
    updatedNs: row.updated_ns,
  };
}
