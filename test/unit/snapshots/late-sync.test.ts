import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { LateSync } from "../../../src/snapshots/late-sync.js";

let directory: string;
let database: Database;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "varve-late-sync-"));
  database = openDatabase(path.join(directory, "varve.db"));
  database.snapshots.insert({ name: "one", kind: "committed", sizeBytes: 0, inodes: 0 });
});

afterEach(() => {
  database.close();
  rmSync(directory, { recursive: true });
});

it("marks go by themselves, once no layer is being unpacked any more", async () => {
  const asked: string[][] = [];
  const lateSync = new LateSync({
    directory,
    database,
    log: { debug: () => {}, info: () => {}, warn: () => {} },
    isBusy: () => asked.push(database.unsynced.list()) < 3,
  });
  lateSync.mark("one");
  while (database.unsynced.list().length > 0) await sleep(10);
  expect(asked).toEqual([["one"], ["one"], ["one"]]);
});
