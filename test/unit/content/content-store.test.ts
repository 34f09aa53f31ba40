import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content-store.js";
import { type Digest, digestOf, hexOf } from "../../../src/content/digest.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";

let root: string;
let database: Database;
let store: ContentStore;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "varve-content-"));
  database = openDatabase(path.join(root, "varve.db"));
  store = new ContentStore(root, database);
  await store.open();
});

afterEach(async () => {
  database.close();
  await rm(root, { recursive: true, force: true });
});

const data = Buffer.from("some content");
const digest = digestOf(data);
const ingests = () => readdir(path.join(root, "ingest"));
const blobs = () => readdir(path.join(root, "blobs", "sha256"));
const code = (value: string) => expect.objectContaining({ code: value });

describe("an ingest", () => {
  it("makes its bytes a blob under their digest", async () => {
    const ingest = await store.ingest();
    await ingest.write(data.subarray(0, 4));
    await ingest.write(data.subarray(4));
    expect(await ingest.commit({ k: "v" })).toEqual({ digest, size: data.length, existed: false });
    expect(await readFile(store.path(digest))).toEqual(data);
    expect(store.info(digest)).toMatchObject({ digest, size: data.length, labels: { k: "v" } });
    expect(await ingests()).toEqual([]);
  });

  it("is not visible before its commit, nor after an abort", async () => {
    const ingest = await store.ingest();
    await ingest.write(data);
    expect(store.has(digest)).toBe(false);
    await ingest.abort();
    expect(await ingests()).toEqual([]);
    expect(await blobs()).toEqual([]);
    await expect(ingest.commit()).rejects.toThrow(code("FAILED_PRECONDITION"));
  });

  it("refuses content of another digest, names both, and leaves nothing", async () => {
    const ingest = await store.ingest({ expected: digestOf("other") });
    await ingest.write(data);
    const error = await ingest.commit().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect((error as Error).message).toContain(digest);
    expect((error as Error).message).toContain(digestOf("other"));
    expect(await ingests()).toEqual([]);
    expect(await blobs()).toEqual([]);
  });

  it("refuses too few bytes at the commit and too many at once", async () => {
    const short = await store.ingest({ expectedSize: data.length + 1 });
    await short.write(data);
    await expect(short.commit()).rejects.toThrow(code("CORRUPT_DATA"));
    const long = await store.ingest({ expectedSize: data.length - 1 });
    await expect(long.write(data)).rejects.toThrow(code("CORRUPT_DATA"));
    expect(await ingests()).toEqual([]);
  });

  it("accepts what is here already, still verifying it", async () => {
    await store.writeBlob(data);
    const again = await store.ingest({ expected: digest });
    await again.write(data);
    expect(await again.commit()).toEqual({ digest, size: data.length, existed: true });
    const wrong = await store.ingest({ expected: digest });
    await wrong.write(Buffer.from("some c0ntent"));
    await expect(wrong.commit()).rejects.toThrow(code("CORRUPT_DATA"));
    expect(await readFile(store.path(digest))).toEqual(data);
  });

  it("may run many times at once for one digest", async () => {
    const big = randomBytes(300_000);
    const results = await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const ingest = await store.ingest(n % 2 === 0 ? { expected: digestOf(big) } : {});
        for (let at = 0; at < big.length; at += 50_000) {
          await ingest.write(big.subarray(at, at + 50_000));
        }
        return await ingest.commit();
      }),
    );
    expect(new Set(results.map((result) => result.digest))).toEqual(new Set([digestOf(big)]));
    expect(await readFile(store.path(digestOf(big)))).toEqual(big);
    expect(await ingests()).toEqual([]);
    expect([...store.busyDigests()]).toEqual([]);
  });

  it("puts the blob under its lease in the same transaction", async () => {
    const lease = database.leases.create().id;
    await store.writeBlob(data, { lease });
    expect(database.leases.resources(lease)).toEqual([{ type: "content", id: digest }]);
    await expect(store.writeBlob(Buffer.from("x"), { lease: "none" })).rejects.toThrow(
      code("NOT_FOUND"),
    );
    expect(store.has(digestOf("x"))).toBe(false);
  });

  it("holds its digest against garbage collection until it ends", async () => {
    const ingest = await store.ingest({ expected: digest });
    expect([...store.busyDigests()]).toEqual([digest]);
    await ingest.abort();
    expect([...store.busyDigests()]).toEqual([]);
  });

  it("replaces a file that lost bytes", async () => {
    await store.writeBlob(data);
    await truncate(store.path(digest), 3);
    await store.writeBlob(data);
    expect(await readFile(store.path(digest))).toEqual(data);
  });
});

describe("a resumable ingest", () => {
  it("goes on where the last one stopped, also after a restart", async () => {
    const first = await store.ingest({ ref: "layer 1", expected: digest });
    await first.write(data.subarray(0, 5));
    await first.suspend();
    const reopened = new ContentStore(root, database);
    await reopened.open();
    const second = await reopened.ingest({ ref: "layer 1", expected: digest });
    expect(second.offset).toBe(5);
    await second.write(data.subarray(5));
    expect(await second.commit()).toMatchObject({ digest, size: data.length });
  });

  it("is refused while another of the same name runs", async () => {
    const first = await store.ingest({ ref: "r" });
    await expect(store.ingest({ ref: "r" })).rejects.toThrow(code("UNAVAILABLE"));
    await first.abort();
    await (await store.ingest({ ref: "r" })).abort();
  });

  it("starts anew after its content turned out wrong", async () => {
    const first = await store.ingest({ ref: "r", expected: digest });
    await first.write(Buffer.from("rubbish"));
    await expect(first.commit()).rejects.toThrow(code("CORRUPT_DATA"));
    const second = await store.ingest({ ref: "r", expected: digest });
    expect(second.offset).toBe(0);
    await second.abort();
  });
});

describe("readBlob", () => {
  it("reads no more than it may", async () => {
    await store.writeBlob(data);
    expect(await store.readBlob(digest, data.length)).toEqual(data);
    await expect(store.readBlob(digest, data.length - 1)).rejects.toThrow(
      code("RESOURCE_EXHAUSTED"),
    );
  });

  it("notices that the file was changed", async () => {
    await store.writeBlob(data);
    await writeFile(store.path(digest), "some c0ntent");
    await expect(store.readBlob(digest, 100)).rejects.toThrow(code("CORRUPT_DATA"));
  });

  it("does not find what is not here", async () => {
    await expect(store.readBlob(digest, 100)).rejects.toThrow(code("NOT_FOUND"));
  });
});

describe("adoptFile", () => {
  it("renames a finished file in", async () => {
    const file = path.join(root, "made");
    await writeFile(file, data);
    await store.adoptFile(file, digest, data.length, { mediaType: "m" });
    expect(store.info(digest)).toMatchObject({ mediaType: "m", size: data.length });
    await expect(readFile(file)).rejects.toThrow(/ENOENT/);
  });

  it("drops the file when the blob is here", async () => {
    await store.writeBlob(data);
    const file = path.join(root, "made");
    await writeFile(file, data);
    await store.adoptFile(file, digest, data.length);
    await expect(readFile(file)).rejects.toThrow(/ENOENT/);
  });

  it("refuses a size that is not the file's", async () => {
    const file = path.join(root, "made");
    await writeFile(file, data);
    await expect(store.adoptFile(file, digest, 1)).rejects.toThrow(code("CORRUPT_DATA"));
  });
});

describe("opening the store", () => {
  it("removes what dead processes left and keeps the rest", async () => {
    await store.writeBlob(data);
    await writeFile(path.join(root, "ingest", "0123"), "partial");
    await writeFile(path.join(root, "ingest", "trash-9"), "removed, but not yet gone");
    await writeFile(path.join(root, "blobs", "sha256", hexOf(digestOf("no row"))), "no row");
    const recovery = await new ContentStore(root, database).open();
    expect(recovery).toEqual({ missing: [], removedFiles: 3 });
    expect(await ingests()).toEqual([]);
    expect(await blobs()).toEqual([hexOf(digest)]);
  });

  it("reports blobs whose file is gone or cut short, and forgets them", async () => {
    const other = await store.writeBlob(Buffer.from("other"));
    await store.writeBlob(data);
    await rm(store.path(digest));
    await truncate(store.path(other.digest), 1);
    const { missing } = await new ContentStore(root, database).open();
    expect([...missing].sort()).toEqual([digest, other.digest].sort());
    expect(database.blobs.list()).toEqual([]);
    expect(await blobs()).toEqual([]);
  });
});

describe("deleting", () => {
  it("removes row and file", async () => {
    await store.writeBlob(data);
    expect(await store.delete(digest)).toBe(true);
    expect(await store.delete(digest)).toBe(false);
    expect(await blobs()).toEqual([]);
    expect(await ingests()).toEqual([]);
  });

  it("does not hit a blob that comes back at the same moment", async () => {
    await store.writeBlob(data);
    for (let round = 0; round < 20; round++) {
      await Promise.all([store.delete(digest), store.writeBlob(data)]);
      const isHere = store.has(digest as Digest);
      if (isHere) expect(await readFile(store.path(digest))).toEqual(data);
      else await store.writeBlob(data);
    }
  });
});
