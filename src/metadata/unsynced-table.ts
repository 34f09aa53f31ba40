/** The table of snapshots whose files the kernel has not been asked to write to the disk yet. */

import type BetterSqlite3 from "better-sqlite3";

/** Marks on snapshots. Every method is one statement and takes part in an open transaction. */
export class UnsyncedTable {
  readonly #insert;
  readonly #has;
  readonly #namesNotOf;
  readonly #names;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#insert = sql.prepare<[string, string]>(
      "INSERT INTO unsynced_snapshots VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
    );
    this.#has = sql
      .prepare<[string], bigint>("SELECT 1 FROM unsynced_snapshots WHERE name = ?")
      .pluck(true);
    this.#names = sql.prepare<[], string>("SELECT name FROM unsynced_snapshots").pluck(true);
    this.#namesNotOf = sql
      .prepare<[string], string>("SELECT name FROM unsynced_snapshots WHERE boot_id <> ?")
      .pluck(true);
    this.#delete = sql.prepare<[string]>("DELETE FROM unsynced_snapshots WHERE name = ?");
  }

  /** Marks a snapshot; the mark goes with the snapshot's row. */
  insert(name: string, bootId: string): void {
    this.#insert.run(name, bootId);
  }

  has(name: string): boolean {
    return this.#has.get(name) !== undefined;
  }

  /** All marked snapshots. */
  list(): string[] {
    return this.#names.all();
  }

  /** Those that were written before the machine started last: a power cut may have hit them. */
  listOfOtherBoots(bootId: string): string[] {
    return this.#namesNotOf.all(bootId);
  }

  delete(name: string): void {
    this.#delete.run(name);
  }
}
