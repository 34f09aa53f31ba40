import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { chainIdsOf, type Digest, digestOf } from "../../../src/metadata/digest.js";
import { type BlobReferences, sweepGarbage } from "../../../src/metadata/garbage-collection.js";

let directory: string;
let database: Database;
let edges: Map<Digest, BlobReferences>;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "varve-gc-"));
  database = openDatabase(path.join(directory, "varve.db"));
  edges = new Map();
});

afterEach(async () => {
  database.close();
  await rm(directory, { recursive: true, force: true });
});

const references = (digest: Digest) => edges.get(digest) ?? { blobs: [], snapshots: [] };
const sweep = (busy: { busyBlobs?: Digest[]; busySnapshots?: string[] } = {}) =>
  sweepGarbage(database, { references, ...busy });

function addBlob(text: string, refers: Partial<BlobReferences> = {}, labels = {}): Digest {
  const digest = digestOf(text);
  database.blobs.insert({ digest, size: text.length, labels });
  edges.set(digest, { blobs: [], snapshots: [], ...refers });
  return digest;
}

function addChain(...names: string[]): Digest[] {
  const chain = chainIdsOf(names.map(digestOf));
  for (const [position, name] of chain.entries()) {
    const parent = chain[position - 1];
    database.snapshots.insert({
      name,
      kind: "committed",
      sizeBytes: 0,
      inodes: 0,
      ...(parent === undefined ? {} : { parent }),
    });
  }
  return chain;
}

/** An image: manifest → config, layer; config → chain. */
function addImage(name: string): { all: Digest[]; manifest: Digest; chain: Digest[] } {
  const chain = addChain(`${name} 1`, `${name} 2`);
  const layer = addBlob(`${name} layer`);
  const config = addBlob(`${name} config`, { snapshots: chain.slice(-1) });
  const manifest = addBlob(`${name} manifest`, { blobs: [config, layer] });
  return { all: [layer, config, manifest], manifest, chain };
}

const target = (digest: Digest) => ({ mediaType: "m", digest, size: 1 });

describe("a garbage collection", () => {
  it("keeps what a reference reaches and removes the rest", () => {
    const kept = addImage("kept");
    const lost = addImage("lost");
    database.references.put("kept:1", target(kept.manifest));
    const swept = sweep();
    expect(swept.blobs.sort()).toEqual([...lost.all].sort());
    expect(swept.snapshots).toEqual([...lost.chain].reverse());
    expect(database.blobs.list().map((row) => row.digest)).toEqual([...kept.all].sort());
    expect(database.snapshots.count()).toBe(2);
  });

  it("finds nothing to do the second time", () => {
    addImage("lost");
    sweep();
    expect(sweep()).toEqual({ blobs: [], snapshots: [], bytes: 0 });
  });

  it("keeps the image of a view without a reference", () => {
    const { manifest, chain } = addImage("used");
    database.views.insert({
      id: "1",
      name: "v",
      image: "used:1",
      imageId: digestOf("used config"),
      manifestDigest: manifest,
      chainId: chain[1]!,
      readOnly: true,
      target: "/mnt",
      mounted: false,
    });
    expect(sweep()).toEqual({ blobs: [], snapshots: [], bytes: 0 });
    database.views.delete("1");
    expect(sweep().blobs).toHaveLength(3);
  });

  it("keeps what a lease lists, with what that refers to, until it expires", () => {
    const { manifest } = addImage("leased");
    const other = addChain("other 1", "other 2");
    database.leases.create({ id: "l", lifetimeMs: 60_000 });
    database.leases.addResource("l", { type: "content", id: manifest });
    database.leases.addResource("l", { type: "snapshot", id: other[1]! });
    expect(sweep()).toEqual({ blobs: [], snapshots: [], bytes: 0 });
    database.leases.delete("l");
    expect(sweep()).toMatchObject({ blobs: { length: 3 }, snapshots: { length: 4 } });
  });

  it("deletes expired leases and what they kept", () => {
    const { manifest } = addImage("leased");
    database.leases.create({ id: "l", lifetimeMs: -1 });
    database.leases.addResource("l", { type: "content", id: manifest });
    expect(sweep().blobs).toHaveLength(3);
    expect(database.leases.list()).toEqual([]);
  });

  it("keeps what is in hand, with its parents", () => {
    const blob = addBlob("arriving");
    const chain = addChain("a", "b", "c");
    expect(sweep({ busyBlobs: [blob], busySnapshots: [chain[1]!] }).snapshots).toEqual([chain[2]]);
    expect(database.blobs.get(blob)).toBeDefined();
  });

  it("keeps a chain whose directory containerd shares, until it lets go of it", () => {
    const [base, top] = addChain("base", "top") as [Digest, Digest];
    const shared = { parentId: undefined, sizeBytes: 0, inodes: 0, labels: {} };
    const { id } = database.containerd.insertShared({ ...shared, key: "varve/0/x", chainId: base });
    expect(sweep().snapshots).toEqual([top]);
    database.containerd.delete(id);
    expect(sweep().snapshots).toEqual([base]);
  });

  it("obeys containerd's root and reference labels", () => {
    const pointedTo = addBlob("pointed to");
    const chain = addChain("x");
    addBlob(
      "root",
      {},
      {
        "containerd.io/gc.root": "2026-01-01",
        "containerd.io/gc.ref.content.0": pointedTo,
        "containerd.io/gc.ref.snapshot.varve": chain[0]!,
      },
    );
    expect(sweep()).toEqual({ blobs: [], snapshots: [], bytes: 0 });
  });

  it("does not follow a manifest of a platform that was not wanted", () => {
    const layer = addBlob("foreign layer");
    const manifest = addBlob("foreign", { blobs: [layer] }, { "varve.gc.shallow": "1" });
    const index = addBlob("index", { blobs: [manifest] });
    database.references.put("multi:1", target(index));
    expect(sweep().blobs).toEqual([layer]);
  });

  it("survives references to content that is not here", () => {
    const manifest = addBlob("partial", { blobs: [digestOf("absent")], snapshots: ["absent"] });
    database.references.put("partial:1", target(manifest));
    expect(sweep()).toEqual({ blobs: [], snapshots: [], bytes: 0 });
  });

  it("removes a chain of many layers, children first", () => {
    const names = Array.from({ length: 600 }, (_, n) => `layer ${n}`);
    const chain = database.transaction(() => addChain(...names));
    expect(sweep().snapshots).toEqual([...chain].reverse());
  });
});
