import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chainIdsOf, type Digest, digestOf, hexOf } from "../../../src/content/digest.js";
import { openIndex } from "../../../src/layers/index-reader.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { type ApplyTask, LayerTasks } from "../../../src/snapshots/layer-tasks.js";
import { silentLog } from "../../../src/snapshots/log.js";
import { SnapshotStore } from "../../../src/snapshots/snapshot-store.js";
import {
  type LayerToUnpack,
  Unpacker,
  type UnpackProgress,
} from "../../../src/snapshots/unpacker.js";
import { toBytes } from "../../../src/system/bytes.js";
import { LayerArchives } from "./layer-archives.js";

const privileged = process.geteuid?.() === 0;

/** Counts what is really unpacked. */
class CountingTasks extends LayerTasks {
  readonly applied: string[] = [];

  override apply(task: ApplyTask, onProgress: (bytes: number) => void, signal: AbortSignal) {
    this.applied.push(task.expectedDiffId ?? "");
    return super.apply(task, onProgress, signal);
  }
}

let root: string;
let database: Database;
let tasks: CountingTasks;
let archives: LayerArchives;
let snapshots: SnapshotStore;
let unpacker: Unpacker;

async function openStore(): Promise<void> {
  snapshots = new SnapshotStore({ root, database, tasks, privileged, log: silentLog });
  await snapshots.open();
  unpacker = new Unpacker({ snapshots, blobs: archives, tasks, privileged });
}

beforeEach(async () => {
  root = mkdtempSync(path.join(os.tmpdir(), "varve-unpack-"));
  database = openDatabase(path.join(root, "varve.db"));
  tasks = new CountingTasks({ workers: 2 });
  archives = new LayerArchives(root);
  await openStore();
});

afterEach(async () => {
  await tasks.close();
  database.close();
  rmSync(root, { recursive: true });
});

const directories = () => readdirSync(path.join(root, "snapshots")).sort();
const chainsOf = (layers: readonly LayerToUnpack[]) =>
  chainIdsOf(layers.map((layer) => layer.diffId));
const hexesOf = (chains: readonly Digest[]) => chains.map(hexOf).sort();

function threeLayers(): LayerToUnpack[] {
  return [
    archives.add({ "etc/a": "base", "etc/b": "base", "usr/bin/tool": "x".repeat(100_000) }),
    archives.add({ "etc/a": "second", "etc/.wh.b": "" }),
    archives.add({ "etc/c": "third" }),
  ];
}

/** A layer that takes a while: incompressible. */
function slowLayer(): LayerToUnpack {
  return archives.add({ big: randomBytes(16_000_000) });
}

describe("unpacking", () => {
  it("makes one snapshot for each layer, with the chain's merged index", async () => {
    const layers = threeLayers();
    const chains = chainsOf(layers);
    expect(await unpacker.unpack(layers)).toBe(chains[2]);
    expect(directories()).toEqual(hexesOf(chains));
    const index = openIndex((await snapshots.readyIndex(chains[2]))!);
    const inode = (name: string) => index.resolve(toBytes(name));
    expect(inode("etc/b")).toBe(0);
    expect(index.layer(inode("etc/a"))).toBe(1);
    expect(index.layer(inode("etc/c"))).toBe(2);
    expect(index.layer(inode("usr/bin/tool"))).toBe(0);
    const dirs = snapshots.layerDirs(chains[2]);
    expect(readFileSync(path.join(dirs[1]!, "etc/a"), "utf8")).toBe("second");
  });

  it("records parent, diff ID and usage", async () => {
    const layers = threeLayers();
    const [first, second] = chainsOf(layers);
    await unpacker.unpack(layers);
    const row = snapshots.get(second!);
    expect(row).toMatchObject({ parent: first, diffId: layers[1]!.diffId, kind: "committed" });
    // The tree's ".", etc, a and the whiteout.
    expect(row.inodes).toBe(4);
    expect(snapshots.get(first!).sizeBytes).toBeGreaterThanOrEqual(100_000);
  });

  it("shares layers between images and unpacks only what is missing", async () => {
    const layers = threeLayers();
    await unpacker.unpack(layers.slice(0, 2));
    const events: UnpackProgress[] = [];
    await unpacker.unpack(layers, { onProgress: (event) => events.push(event) });
    expect(tasks.applied.toSorted()).toEqual(layers.map((layer) => layer.diffId).sort());
    const actions = (layer: LayerToUnpack | undefined) =>
      events.filter((event) => event.id === layer?.descriptor.digest).map((event) => event.action);
    expect(actions(layers[0])).toEqual(["exists"]);
    expect(actions(layers[2]).at(0)).toBe("waiting");
    expect(actions(layers[2]).at(-1)).toBe("done");
  });

  it("runs one flight however many ask, and tells all of them the progress", async () => {
    const layers = threeLayers();
    const done = [0, 0, 0, 0, 0];
    const results = await Promise.all(
      done.map((_, caller) =>
        unpacker.unpack(layers, {
          onProgress: ({ action }) => {
            if (action === "done") done[caller]!++;
          },
        }),
      ),
    );
    expect(new Set(results)).toEqual(new Set([chainsOf(layers)[2]]));
    expect(tasks.applied).toHaveLength(3);
    expect(done).toEqual([3, 3, 3, 3, 3]);
  });

  const indexes = () =>
    directories().filter((name) => existsSync(path.join(root, "snapshots", name, "index")));

  it("makes an index of what is mounted, not of each thin layer below it", async () => {
    const layers = threeLayers();
    const chains = chainsOf(layers);
    await unpacker.unpack(layers);
    expect(indexes()).toEqual([hexOf(chains[2]!)]);
  });

  it("makes the index of a chain in the midst when it is asked for, once for all who ask", async () => {
    const layers = threeLayers();
    const chains = chainsOf(layers);
    await unpacker.unpack(layers);
    const [one, two] = await Promise.all([
      snapshots.readyIndex(chains[1]),
      snapshots.readyIndex(chains[1]),
    ]);
    expect(one).toBe(two);
    const index = openIndex(one!);
    expect(index.layers).toEqual(chains.slice(0, 2));
    expect(index.resolve(toBytes("etc/b"))).toBe(0);
    expect(index.layer(index.resolve(toBytes("etc/a")))).toBe(1);
    expect(index.resolve(toBytes("etc/c"))).toBe(0);
    expect(indexes()).toEqual(hexesOf(chains.slice(1)));
  });

  it("makes an image mountable whose layers came with another one", async () => {
    const layers = threeLayers();
    const chains = chainsOf(layers);
    await unpacker.unpack(layers);
    expect(await unpacker.unpack(layers.slice(0, 2))).toBe(chains[1]);
    expect(tasks.applied).toHaveLength(3);
    expect(indexes()).toEqual(hexesOf(chains.slice(1)));
  });

  it("makes an index again that got lost, and counts the layer as there", async () => {
    const layers = threeLayers();
    const chains = chainsOf(layers);
    await unpacker.unpack(layers);
    await snapshots.settle();
    const file = path.join(root, "snapshots", hexOf(chains[2]!), "index");
    const before = readFileSync(file);
    rmSync(file);
    await openStore();
    expect(await unpacker.unpack(layers)).toBe(chains[2]);
    expect(tasks.applied).toHaveLength(3);
    expect(readFileSync(file)).toEqual(before);
  });

  it("needs no directory for an image without layers", async () => {
    expect(await unpacker.unpack([])).toBeUndefined();
    expect(snapshots.layerDirs(undefined)).toEqual([]);
    expect(await snapshots.readyIndex(undefined)).toBeUndefined();
  });

  it("keeps root's mode 0755 for a layer that does not name it", async () => {
    const umask = process.umask(0o077);
    try {
      const layer = archives.add({ a: "" }, ["a"]);
      await unpacker.unpack([layer]);
      expect(statSync(snapshots.layerDirs(layer.diffId)[0]!).mode & 0o777).toBe(0o755);
    } finally {
      process.umask(umask);
    }
  });
});

describe("a failed unpack", () => {
  it("leaves nothing when a layer is not what its diff ID says", async () => {
    const [good, other] = threeLayers();
    const bad = { ...good!, diffId: other!.diffId };
    await expect(unpacker.unpack([bad])).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    expect(directories()).toEqual([]);
    expect(snapshots.list()).toEqual([]);
  });

  it("keeps only whole layers below the damaged one", async () => {
    const layers = threeLayers();
    const blob = archives.read(layers[1]!);
    const cut = archives.store(blob.subarray(0, blob.length - 20), layers[1]!.diffId);
    const broken = [layers[0]!, cut, layers[2]!];
    await expect(unpacker.unpack(broken)).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    const left = directories();
    expect(left.every((name) => name === hexOf(chainsOf(layers)[0]!))).toBe(true);
    expect(left).toEqual(hexesOf(snapshots.list().map((row) => row.name as Digest)));
  });

  it("fails all who wait, and can be tried again", async () => {
    const layer = slowLayer();
    const blob = archives.read(layer);
    const cut = archives.store(blob.subarray(0, -100), layer.diffId);
    const calls = [unpacker.unpack([cut]), unpacker.unpack([cut])];
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    expect(await unpacker.unpack([layer])).toBe(layer.diffId);
  });

  it("says which blob is missing", async () => {
    const [layer] = threeLayers();
    rmSync(archives.path(layer!.descriptor.digest));
    await expect(unpacker.unpack([layer!])).rejects.toMatchObject({
      code: "NOT_FOUND",
      message: expect.stringContaining(layer!.descriptor.digest),
    });
  });
});

describe("an aborted unpack", () => {
  it("leaves nothing when nobody else wants it", async () => {
    const layers = [slowLayer(), slowLayer()];
    const controller = new AbortController();
    const call = unpacker.unpack(layers, {
      signal: controller.signal,
      onProgress: ({ action }) => {
        if (action === "unpacking") controller.abort();
      },
    });
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
    expect(directories()).toEqual([]);
  });

  it("goes on for the others", async () => {
    const layer = slowLayer();
    const controller = new AbortController();
    const leaving = unpacker.unpack([layer], {
      signal: controller.signal,
      onProgress: ({ action }) => {
        if (action === "unpacking") controller.abort();
      },
    });
    const staying = unpacker.unpack([layer]);
    await expect(leaving).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await staying).toBe(layer.diffId);
    expect(tasks.applied).toHaveLength(1);
  });

  it("may be asked for again at once", async () => {
    const layer = slowLayer();
    const controller = new AbortController();
    const first = unpacker.unpack([layer], { signal: controller.signal });
    controller.abort();
    const second = unpacker.unpack([layer]);
    await expect(first).rejects.toMatchObject({ code: "CANCELLED" });
    expect(await second).toBe(layer.diffId);
  });
});

describe("SnapshotStore", () => {
  it("refuses to remove what others are built on", async () => {
    const layers = threeLayers();
    const [first, second, third] = chainsOf(layers);
    await unpacker.unpack(layers);
    await expect(snapshots.remove(first!)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    for (const chain of [third, second, first]) await snapshots.remove(chain!);
    expect(directories()).toEqual([]);
    await expect(snapshots.remove(first!)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("can unpack again while the old directory is being removed", async () => {
    const layers = threeLayers().slice(0, 1);
    await unpacker.unpack(layers);
    const removal = snapshots.remove(chainsOf(layers)[0]!);
    await unpacker.unpack(layers);
    await removal;
    expect(existsSync(snapshots.layerDirs(chainsOf(layers)[0])[0]!)).toBe(true);
  });

  it("reconciles directories and rows when it opens", async () => {
    const layers = threeLayers();
    const [first, second] = chainsOf(layers);
    await unpacker.unpack(layers);
    const base = path.join(root, "snapshots");
    rmSync(path.join(base, hexOf(second!)), { recursive: true });
    mkdirSync(path.join(base, ".tmp-0123/fs/deep"), { recursive: true });
    mkdirSync(path.join(base, hexOf(digestOf("stranger")), "fs"), { recursive: true });
    await openStore();
    expect(directories()).toEqual([hexOf(first!)]);
    expect(snapshots.list().map((row) => row.name)).toEqual([first]);
    expect(await unpacker.unpack(layers)).toBe(chainsOf(layers)[2]);
  });
});

describe("durability", () => {
  const unsynced = () => database.unsynced.list().sort();

  it("marks unpacked layers until the disk has them", async () => {
    const layers = threeLayers();
    await unpacker.unpack(layers);
    expect(unsynced()).toEqual([...chainsOf(layers)].sort());
    await unpacker.settle();
    expect(unsynced()).toEqual([]);
  });

  it("forgets marked layers, and what was built on them, after the machine went down", async () => {
    const layers = threeLayers();
    const [first, second, third] = chainsOf(layers);
    await unpacker.unpack(layers.slice(0, 1));
    await unpacker.settle();
    await unpacker.unpack(layers);
    database.unsynced.delete(second!);
    database.unsynced.insert(second!, "another boot");
    database.unsynced.delete(third!);
    await openStore();
    expect(directories()).toEqual([hexOf(first!)]);
    tasks.applied.length = 0;
    expect(await unpacker.unpack(layers)).toBe(third);
    expect(tasks.applied.sort()).toEqual([layers[1]!.diffId, layers[2]!.diffId].sort());
  });

  it("keeps marked layers after a crash of the daemon alone, and flushes them first", async () => {
    const layers = threeLayers();
    await unpacker.unpack(layers);
    expect(unsynced()).toHaveLength(3);
    await openStore();
    expect(unsynced()).toEqual([]);
    expect(directories()).toEqual(hexesOf(chainsOf(layers)));
  });
});
