import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content-store.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";

let root: string;
let database: Database | undefined;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "varve-full-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", root]);
});

afterEach(async () => {
  database?.close();
  execFileSync("umount", ["-l", root]);
  await rm(root, { recursive: true, force: true });
});

it("an ingest on a full disk names path and remedy, and leaves the space free again", async () => {
  database = openDatabase(path.join(root, "varve.db"));
  const store = new ContentStore(root, database);
  await store.open();
  const ingest = await store.ingest();
  const write = async () => {
    for (let n = 0; n < 64; n++) await ingest.write(Buffer.alloc(64 * 1024, n));
  };
  await expect(write()).rejects.toThrow(
    expect.objectContaining({
      code: "RESOURCE_EXHAUSTED",
      message: expect.stringMatching(/no space left for .*free some/),
    }),
  );
  expect(await readdir(path.join(root, "ingest"))).toEqual([]);
  await store.writeBlob(Buffer.alloc(256 * 1024));
  expect(database.blobs.list()).toHaveLength(1);
});
