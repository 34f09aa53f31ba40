import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ContainerdTable } from "../../../src/metadata/containerd-table.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { MIGRATIONS } from "../../../src/metadata/schema.js";

let directory: string;
let database: Database;
let table: ContainerdTable;

const file = () => path.join(directory, "varve.db");

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-containerd-table-"));
  database = openDatabase(file());
  table = database.containerd;
});

afterEach(() => {
  database.close();
  rmSync(directory, { recursive: true });
});

const insert = (key: string, parentId?: number) =>
  table.insert({ key, kind: "active", parentId, labels: {} });

describe("containerd's snapshots", () => {
  it("are created and updated at one moment, to the nanosecond", () => {
    const rows = ["a", "b", "c"].map((key) => insert(key));
    for (const row of rows) expect(row.updatedNs).toBe(row.createdNs);
    expect(rows.every((row) => row.createdNs % 1_000_000n === 0n)).toBe(false);
  });

  it("have keys that are any text", () => {
    const key = 'k8s.io/3/extract-1 sha256:b9\u{1f40b}"\\';
    expect(table.get(insert(key).key)).toMatchObject({ key, kind: "active" });
  });

  it("share one name space, whatever their kind", () => {
    const { id } = insert("a");
    insert("b");
    expect(() => insert("a")).toThrow(expect.objectContaining({ code: "ALREADY_EXISTS" }));
    expect(() => table.commit(id, "b", undefined, {})).toThrow(
      expect.objectContaining({ code: "ALREADY_EXISTS" }),
    );
    expect(table.get("a")).toMatchObject({ kind: "active" });
  });

  it("change name, labels and times when they are committed", () => {
    const before = table.insert({
      key: "a",
      kind: "active",
      parentId: undefined,
      labels: { x: "1" },
    });
    const after = table.commit(before.id, "done", undefined, { y: "2" });
    expect(after).toMatchObject({
      id: before.id,
      key: "done",
      kind: "committed",
      labels: { y: "2" },
    });
    expect(after.createdNs).toBeGreaterThan(before.createdNs);
    expect(after.updatedNs).toBe(after.createdNs);
    expect(table.get("a")).toBeUndefined();
  });

  it("know their parent by its present name, and cannot lose it", () => {
    const parent = insert("base");
    const child = insert("child", parent.id);
    table.commit(parent.id, "renamed", undefined, {});
    expect(table.get("child")).toMatchObject({ parentId: parent.id, parent: "renamed" });
    expect(table.children(parent.id).map(({ key }) => key)).toEqual(["child"]);
    expect(() => table.delete(parent.id)).toThrow(/FOREIGN KEY/);
    table.delete(child.id);
    table.delete(parent.id);
    expect(table.list()).toEqual([]);
  });

  it("never get a number that one before them had", () => {
    const { id } = insert("a");
    table.delete(id);
    expect(insert("b").id).toBeGreaterThan(id);
  });

  it("have no usage before it is known", () => {
    const { id } = insert("a");
    expect(table.getById(id)).not.toHaveProperty("sizeBytes");
    table.setUsage(id, 4096, 2);
    expect(table.getById(id)).toMatchObject({ sizeBytes: 4096, inodes: 2 });
  });
});

describe("a database of the first schema", () => {
  it("gets the table when it is opened, and keeps what it has", () => {
    database.close();
    rmSync(directory, { recursive: true });
    directory = mkdtempSync(path.join(os.tmpdir(), "varve-containerd-table-"));
    const sql = new BetterSqlite3(file());
    sql.exec(MIGRATIONS[0]!);
    sql.exec("INSERT INTO leases VALUES ('kept', 1, NULL, '{}')");
    sql.pragma("user_version = 1");
    sql.close();
    database = openDatabase(file());
    expect(database.containerd.list()).toEqual([]);
    expect(database.leases.get("kept")).toMatchObject({ id: "kept" });
  });
});
