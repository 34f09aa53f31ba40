import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nowNs } from "../../../src/metadata/clock.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { chainIdsOf, digestOf } from "../../../src/metadata/digest.js";

let directory: string;
let file: string;
let database: Database | undefined;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "varve-db-"));
  file = path.join(directory, "varve.db");
});

afterEach(async () => {
  database?.close();
  await rm(directory, { recursive: true, force: true });
});

const digest = digestOf("a manifest");
const target = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: 10 };

describe("openDatabase", () => {
  it("keeps everything across a reopening", () => {
    database = openDatabase(file);
    database.transaction(() => database!.references.put("a:1", target, { k: "v" }));
    database.close();
    database = openDatabase(file);
    expect(database.references.get("a:1")).toMatchObject({
      name: "a:1",
      target,
      labels: { k: "v" },
    });
  });

  it("refuses a file that is no database", async () => {
    await writeFile(file, "this is not a database, ".repeat(100));
    expect(() => openDatabase(file)).toThrow(expect.objectContaining({ code: "CORRUPT_DATA" }));
  });

  it("refuses a damaged database", async () => {
    database = openDatabase(file);
    database.transaction(() => {
      for (let n = 0; n < 500; n++) database!.references.put(`image:${n}`, target);
    });
    database.close();
    execFileSync(
      "dd",
      ["if=/dev/urandom", `of=${file}`, "bs=4096", "seek=2", "count=12", "conv=notrunc"],
      {
        stdio: "ignore",
      },
    );
    expect(() => openDatabase(file)).toThrow(expect.objectContaining({ code: "CORRUPT_DATA" }));
    database = undefined;
  });

  it("refuses a schema newer than its own and leaves the file alone", () => {
    openDatabase(file).close();
    const sql = new BetterSqlite3(file);
    sql.pragma("user_version = 1000");
    sql.close();
    expect(() => openDatabase(file)).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        message: expect.stringContaining("1000"),
      }),
    );
  });

  it("commits durably and in a write-ahead log", () => {
    openDatabase(file).close();
    const sql = new BetterSqlite3(file);
    expect(sql.pragma("journal_mode", { simple: true })).toBe("wal");
    sql.close();
  });

  it("flushes its log beside other work, as often as it is asked, and leaves no descriptor", async () => {
    const descriptors = readdirSync("/proc/self/fd").length;
    database = openDatabase(file);
    database.lazyTransaction(() => database!.references.put("a:1", target));
    await Promise.all([database.flush(), database.flush()]);
    database.lazyTransaction(() => database!.references.put("b:1", target));
    await database.flush();
    database.close();
    expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
    database = openDatabase(file);
    expect(database.references.list().map((row) => row.name)).toEqual(["a:1", "b:1"]);
  });
});

describe("transactions", () => {
  it("leave nothing behind when the work throws", () => {
    database = openDatabase(file);
    const work = () =>
      database!.transaction(() => {
        database!.references.put("a:1", target);
        throw new Error("no");
      });
    expect(work).toThrow("no");
    expect(database.references.list()).toEqual([]);
  });

  it("nest: an inner failure that is caught undoes the inner work only", () => {
    database = openDatabase(file);
    const { references } = database;
    database.transaction(() => {
      references.put("outer:1", target);
      expect(() =>
        database!.transaction(() => {
          references.put("inner:1", target);
          throw new Error("no");
        }),
      ).toThrow("no");
    });
    expect(references.list().map((row) => row.name)).toEqual(["outer:1"]);
  });
});

describe("the tables", () => {
  it("replace a reference's target and labels but keep its creation time", () => {
    database = openDatabase(file);
    const first = database.references.put("a:1", target, { x: "1" });
    const other = { ...target, digest: digestOf("other") };
    const second = database.references.put("a:1", other);
    expect(second.target).toEqual(other);
    expect(second.labels).toEqual({});
    expect(second.createdNs).toBe(first.createdNs);
    expect(second.updatedNs).toBeGreaterThanOrEqual(first.updatedNs);
    expect(database.references.listByTarget(digest)).toEqual([]);
  });

  it("keep the first of two equal blobs", () => {
    database = openDatabase(file);
    expect(database.blobs.insert({ digest, size: 5, labels: { a: "1" } })).toBe(true);
    expect(database.blobs.insert({ digest, size: 5 })).toBe(false);
    expect(database.blobs.get(digest)?.labels).toEqual({ a: "1" });
    expect(database.blobs.totalBytes()).toBe(5);
  });

  it("hold sizes beyond 32 bits", () => {
    database = openDatabase(file);
    database.blobs.insert({ digest, size: 2 ** 40 + 1 });
    expect(database.blobs.get(digest)?.size).toBe(2 ** 40 + 1);
  });

  it("do not let a snapshot go that has children", () => {
    database = openDatabase(file);
    const [base, top] = chainIdsOf([digestOf("1"), digestOf("2")]) as [
      typeof digest,
      typeof digest,
    ];
    const row = { kind: "committed", sizeBytes: 1, inodes: 1 } as const;
    database.snapshots.insert({ ...row, name: base });
    database.snapshots.insert({ ...row, name: top, parent: base });
    expect(() => database!.snapshots.delete(base)).toThrow(/FOREIGN KEY/);
    expect(database.snapshots.children(base).map((child) => child.name)).toEqual([top]);
    expect(database.snapshots.delete(top)).toBe(true);
    expect(database.snapshots.delete(base)).toBe(true);
  });

  it("tell a whole chain of snapshots, base first, and what is noted of many at once", () => {
    database = openDatabase(file);
    const { blobs, snapshots } = database;
    const names = chainIdsOf(["1", "2", "3", "4"].map(digestOf));
    type Four = [typeof digest, typeof digest, typeof digest, typeof digest];
    const [base, middle, top, missing] = names as Four;
    const row = { kind: "committed", sizeBytes: 1, inodes: 1 } as const;
    snapshots.insert({ ...row, name: base, labels: { a: "1" } });
    snapshots.insert({ ...row, name: middle, parent: base });
    snapshots.insert({ ...row, name: top, parent: middle, labels: { b: "2" } });
    expect(snapshots.chain(top)).toEqual([base, middle, top]);
    expect(snapshots.chain(base)).toEqual([base]);
    expect(snapshots.chain(missing)).toEqual([]);
    expect(snapshots.label([top, missing, base], "a")).toEqual(
      new Map([
        [base, "1"],
        [top, null],
      ]),
    );
    const label = 'some.org/a "name" of $[0]';
    blobs.insert({ digest, size: 5, labels: { [label]: "3" } });
    expect(blobs.label([digest, digestOf("another")], label)).toEqual(new Map([[digest, "3"]]));
    expect(blobs.label([], label).size).toBe(0);
  });

  it("refuse a second view of the same name", () => {
    database = openDatabase(file);
    const view = {
      name: "v",
      image: "a:1",
      imageId: digest,
      manifestDigest: digest,
      readOnly: false,
      target: "/mnt",
      mounted: true,
    };
    database.views.insert({ id: "1", ...view });
    const again = () => database!.views.insert({ id: "2", ...view });
    expect(again).toThrow(expect.objectContaining({ code: "ALREADY_EXISTS" }));
    expect(database.views.setMounted("1", "/other", "boot")).toBe(true);
    const other = { target: "/other", bootId: "boot", restart: "no" };
    expect(database.views.getByName("v")).toMatchObject({ mounted: true, ...other });
    expect(database.views.setRestart("1", "always")).toBe(true);
    expect(database.views.setUnmounted("1")).toBe(true);
    expect(database.views.get("1")).toMatchObject({ ...other, mounted: false, restart: "always" });
  });

  it("refuse labels that containerd's clients would not accept", () => {
    database = openDatabase(file);
    const put = () => database!.references.put("a:1", target, { key: "x".repeat(4094) });
    expect(put).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });

  it("drop expired leases with their resources, and only those", () => {
    database = openDatabase(file);
    const { leases } = database;
    leases.create({ id: "gone", lifetimeMs: -1 });
    leases.create({ id: "stays", lifetimeMs: 60_000 });
    leases.create({ id: "forever" });
    leases.addResource("gone", { type: "content", id: digest });
    leases.addResource("stays", { type: "content", id: digest });
    expect(leases.deleteExpired()).toBe(1);
    expect(
      leases
        .list()
        .map((lease) => lease.id)
        .sort(),
    ).toEqual(["forever", "stays"]);
    expect(leases.holders({ type: "content", id: digest })).toEqual(["stays"]);
    expect(() => leases.addResource("gone", { type: "content", id: digest })).toThrow(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
    expect(() => leases.create({ id: "stays" })).toThrow(
      expect.objectContaining({ code: "ALREADY_EXISTS" }),
    );
  });
});

describe("nowNs", () => {
  it("agrees with the system's clock to well under a millisecond", () => {
    for (let round = 0; round < 50; round++) {
      const before = BigInt(Date.now()) * 1_000_000n;
      const now = nowNs();
      const after = BigInt(Date.now() + 1) * 1_000_000n;
      expect(now).toBeGreaterThanOrEqual(before);
      expect(now).toBeLessThan(after);
    }
  });

  it("is finer than a millisecond", () => {
    const values = new Set(Array.from({ length: 100 }, () => nowNs() % 1_000_000n));
    expect(values.size).toBeGreaterThan(50);
  });
});
