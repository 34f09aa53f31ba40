/** One label of many rows by one statement: an image may have a hundred layers. */

import type BetterSqlite3 from "better-sqlite3";

/**
 * Prepares the statement for a table whose column `key` names its rows.
 *
 * @returns reads a label of those rows that are there: null where it is not set
 */
export function labelQuery<K extends string>(
  sql: BetterSqlite3.Database,
  table: "blobs" | "snapshots",
  key: "digest" | "name",
): (rows: readonly K[], label: string) => Map<K, string | null> {
  const statement = sql
    .prepare<[string, string], [K, string | null]>(
      `SELECT ${key}, labels ->> ? FROM ${table} WHERE ${key} IN (SELECT value FROM json_each(?))`,
    )
    .raw(true);
  return (rows, label) =>
    new Map(statement.all(`$.${JSON.stringify(label)}`, JSON.stringify(rows)));
}
