/** The table of build steps: which image a parent and an instruction led to. */

import type BetterSqlite3 from "better-sqlite3";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";

/** A remembered step. While the row exists its image is kept, though no reference names it. */
export type BuildStepRow = {
  /** Digest of the parent and the instruction. */
  readonly key: string;
  /** The image that the step made. */
  readonly manifestDigest: Digest;
  readonly createdNs: bigint;
  readonly usedNs: bigint;
};

type Columns = { key: string; manifest_digest: Digest; created_ns: bigint; used_ns: bigint };

/** Build steps. Every method is one statement and takes part in an open transaction. */
export class BuildStepTable {
  readonly #get;
  readonly #list;
  readonly #put;
  readonly #touch;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM build_steps WHERE key = ?");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM build_steps ORDER BY used_ns, key");
    this.#put = sql.prepare<[string, string, bigint, bigint]>(
      `INSERT INTO build_steps VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET
         manifest_digest = excluded.manifest_digest,
         created_ns = excluded.created_ns,
         used_ns = excluded.used_ns`,
    );
    this.#touch = sql.prepare<[bigint, string]>("UPDATE build_steps SET used_ns = ? WHERE key = ?");
    this.#delete = sql.prepare<[string]>("DELETE FROM build_steps WHERE key = ?");
  }

  get(key: string): BuildStepRow | undefined {
    const row = this.#get.get(key);
    return row && decode(row);
  }

  /** Every step, the least recently used first. */
  list(): BuildStepRow[] {
    return this.#list.all().map(decode);
  }

  /** Remembers a step; what was remembered under the key is replaced. */
  put(key: string, manifestDigest: Digest): void {
    const now = nowNs();
    this.#put.run(key, manifestDigest, now, now);
  }

  /** Notes that the step is used now. */
  touch(key: string): void {
    this.#touch.run(nowNs(), key);
  }

  /** @returns false when there was none */
  delete(key: string): boolean {
    return this.#delete.run(key).changes > 0;
  }
}

function decode(row: Columns): BuildStepRow {
  return {
    key: row.key,
    manifestDigest: row.manifest_digest,
    createdNs: row.created_ns,
    usedNs: row.used_ns,
  };
}
