/** Pins, prune, usage and automatic collection on real stores; the disk alone is made up. */

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Digest } from "../../../src/content/digest.js";
import { AutomaticCollection } from "../../../src/images/automatic-collection.js";
import { measureUsage } from "../../../src/images/disk-usage.js";
import { prune } from "../../../src/images/prune.js";
import { EventLog, type StoreEvent } from "../../../src/metadata/event-log.js";
import { type Described, Layout, leftovers, openStores, type Stores } from "./image-fixture.js";

let stores: Stores;
const events = new EventLog();

beforeEach(async () => {
  stores = await openStores(events);
});

afterEach(() => stores.close());

const code = (value: string, text = "") =>
  expect.objectContaining({ code: value, message: expect.stringContaining(text) });

async function create(
  name: string | undefined,
  layers: readonly string[],
  labels: Record<string, string> = {},
): Promise<{ id: Digest; manifest: Described }> {
  const layout = new Layout();
  const manifest = await layout.image({ layers, config: { Labels: labels } });
  for (const data of layout.blobs.values()) await stores.content.writeBlob(data);
  const { id } = await stores.images.create(name, manifest);
  return { id, manifest };
}

const names = async () => (await stores.images.list()).flatMap((image) => image.references).sort();
const full = (name: string) => `docker.io/library/${name}:latest`;
const run = (o: { all?: boolean; filters?: string[]; dryRun?: boolean } = {}) =>
  prune(
    { ...stores, garbage: stores.collector, events },
    { all: false, filters: [], dryRun: false, ...o },
  );

async function useByView(id: Digest, manifest: Described): Promise<void> {
  stores.database.views.insert({
    ...{ id: "v", name: "v", image: "x", imageId: id, manifestDigest: manifest.digest },
    ...{ readOnly: false, target: "", mounted: false },
  });
}

describe("a pin", () => {
  it("stays when the name moves to another image, and makes removal ask for force", async () => {
    const first = await create("a", ["1"]);
    expect(await stores.images.setPinned("a", true)).toEqual([full("a")]);
    await expect(stores.images.remove("a")).rejects.toThrow(code("FAILED_PRECONDITION", "pinned"));
    const second = await create("a", ["2"]);
    expect(await stores.images.get("a")).toMatchObject({ id: second.id, pinned: true });
    expect(await stores.images.get(first.id)).toMatchObject({ pinned: false });
    expect(await stores.images.remove("a", { force: true })).toMatchObject({
      deleted: [second.id],
    });
  });

  it("by ID is on all names, and the image is pinned while one is left", async () => {
    const { id } = await create("a", ["1"]);
    await stores.images.tag("a", "b");
    expect(await stores.images.setPinned(id, true)).toEqual([full("a"), full("b")]);
    await stores.images.setPinned("a", false);
    expect(await stores.images.get(id)).toMatchObject({
      pinned: true,
      pinnedReferences: [full("b")],
    });
    await stores.images.remove("a");
    await expect(stores.images.remove(id)).rejects.toThrow(code("FAILED_PRECONDITION", full("b")));
    expect((await stores.images.list(["pinned=true"])).map((image) => image.id)).toEqual([id]);
    await stores.images.setPinned(id, false);
    expect(await stores.images.list(["pinned=true"])).toEqual([]);
  });

  it("can be on an image without a name", async () => {
    const { id } = await create(undefined, ["1"]);
    await stores.images.setPinned(id, true);
    expect((await run({ all: true })).images).toEqual([]);
    await stores.images.setPinned(id, false);
    expect((await run()).images).toMatchObject([{ id }]);
  });
});

describe("prune", () => {
  it("removes what has no name, and what that alone had", async () => {
    const dangling = await create(undefined, ["base", "own"]);
    await create("kept", ["base", "other"]);
    const before = new Set(await leftovers(stores));
    const planned = await run({ dryRun: true });
    expect(new Set(await leftovers(stores))).toEqual(before);
    const report = await run();
    expect(report).toEqual(planned);
    expect(report.images.map((image) => image.id)).toEqual([dangling.id]);
    // Config, manifest and the one layer that it did not share.
    expect(report.blobs).toHaveLength(3);
    expect(report.bytes).toBeGreaterThan(0);
    expect(await names()).toEqual([full("kept")]);
    expect(await run()).toMatchObject({ images: [], blobs: [], bytes: 0 });
  });

  it("of all leaves what a view, a pin or a lease keeps", async () => {
    await create("idle", ["1"]);
    const viewed = await create("viewed", ["2"]);
    await useByView(viewed.id, viewed.manifest);
    await create("pinned", ["3"]);
    await stores.images.setPinned("pinned", true);
    const leased = await create("leased", ["4"]);
    stores.database.leases.create({ id: "l" });
    const resource = { type: "content", id: leased.manifest.digest } as const;
    stores.database.leases.addResource("l", resource);
    const { images } = await run({ all: true });
    expect(images.map((image) => image.references)).toEqual([[full("idle")]]);
    stores.database.leases.delete("l");
    expect((await run({ all: true })).images.map((image) => image.id)).toEqual([leased.id]);
    expect(await names()).toEqual([full("pinned"), full("viewed")]);
  });

  it("obeys labels and the time of arrival", async () => {
    await create("keep", ["1"], { keep: "yes" });
    await create("drop", ["2"], { drop: "1" });
    await create("plain", ["3"]);
    const of = async (filters: string[]) =>
      (await run({ all: true, dryRun: true, filters })).images.flatMap((one) => one.references);
    expect(await of(["label=keep"])).toEqual([full("keep")]);
    expect(await of(["label=keep=no"])).toEqual([]);
    expect((await of(["label!=keep"])).sort()).toEqual([full("drop"), full("plain")]);
    expect(await of(["label!=keep", "label=drop=1"])).toEqual([full("drop")]);
    // The configs are of 2024, but the images came just now.
    expect(await of(["until=1h"])).toEqual([]);
    expect(await of(["until=0s"])).toHaveLength(3);
  });

  it.each(["until", "until=", "until=x", "dangling=true", "label", "label!"])(
    "refuses the filter %j",
    async (filter) => {
      await expect(run({ filters: [filter] })).rejects.toThrow(code("INVALID_ARGUMENT"));
    },
  );

  it("with all forgets build steps, whose images nothing else names", async () => {
    const { manifest } = await create("step", ["1"]);
    stores.database.buildSteps.put("key", manifest.digest);
    await stores.images.remove("step");
    await stores.collectGarbage();
    expect(await leftovers(stores)).toHaveLength(3);
    expect(await run()).toMatchObject({ buildSteps: 0, blobs: [] });
    expect(await run({ all: true, filters: ["until=1h"] })).toMatchObject({ buildSteps: 0 });
    expect(await run({ all: true })).toMatchObject({ buildSteps: 1, blobs: { length: 3 } });
    expect(await leftovers(stores)).toEqual([]);
  });
});

describe("the usage", () => {
  it("counts what images share once, and what is one's own", async () => {
    await create("a", ["base", "a"]);
    const b = await create("b", ["base", "b"]);
    await useByView(b.id, b.manifest);
    const usage = await measureUsage(stores.images, stores.collector);
    const [first, second] = usage.imageUsages;
    expect(first!.sharedBytes).toBe(second!.sharedBytes);
    expect(first!.sharedBytes + first!.uniqueBytes).toBe(first!.contentBytes);
    expect(usage.images.bytes).toBe(stores.database.blobs.totalBytes());
    expect(usage.images).toMatchObject({ count: 2, active: 1 });
    const idle = usage.imageUsages.find((one) => !one.isInUse)!;
    expect(usage.images.reclaimableBytes).toBe(idle.uniqueBytes);
    expect((await run({ all: true })).bytes).toBe(idle.uniqueBytes);
  });
});

describe("automatic collection", () => {
  /** A disk that is `percent` full without images, and each image takes ten percent of it. */
  function collection(base: number, minAgeMs = -1000) {
    const logged: string[] = [];
    const log = {
      info: (text: string) => logged.push(text),
      warn: (text: string) => logged.push(text),
    };
    const automatic = new AutomaticCollection({
      images: stores.images,
      garbage: stores.collector,
      events,
      thresholds: { high: 80, low: 60 },
      usedPercent: async () => base + 10 * (stores.database.blobs.list().length / 3),
      log: { info: (text) => void log.info(text), warn: (text) => void log.warn(text) },
      minAgeMs,
    });
    return { automatic, logged };
  }

  it("does nothing below the high threshold", async () => {
    for (const name of ["a", "b", "c"]) await create(name, [name]);
    expect(await collection(50).automatic.check()).toBe(0);
    expect(await names()).toHaveLength(3);
  });

  it("removes the least recently used until below the low one", async () => {
    for (const name of ["a", "b", "c", "d", "e"]) await create(name, [name]);
    const { images } = stores;
    // Uses count to the second.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    for (const name of ["a", "c"]) images.touch((await images.get(name)).id);
    const { automatic, logged } = collection(35);
    expect(await automatic.check()).toBe(3);
    expect(await names()).toEqual([full("a"), full("c")]);
    expect(logged.join()).toContain("3 images");
  });

  it("never takes what is pinned, leased or used, and says once that nothing is left", async () => {
    const viewed = await create("viewed", ["1"]);
    await useByView(viewed.id, viewed.manifest);
    await create("pinned", ["2"]);
    await stores.images.setPinned("pinned", true);
    await create("idle", ["3"]);
    const { automatic, logged } = collection(70);
    expect(await automatic.check()).toBe(1);
    expect(await automatic.check()).toBe(0);
    expect(await names()).toEqual([full("pinned"), full("viewed")]);
    expect(logged.filter((text) => text.includes("in use"))).toHaveLength(1);
  });

  it("leaves what has just come", async () => {
    await create("new", ["1"]);
    expect(await collection(85, 60_000).automatic.check()).toBe(0);
    expect(await names()).toHaveLength(1);
  });

  it("takes garbage before it takes an image", async () => {
    await create("kept", ["1"]);
    for (const name of ["x", "y"]) {
      await create(name, [name]);
      await stores.images.remove(name);
    }
    expect(await collection(60, -1000).automatic.check()).toBe(1);
    const seen: StoreEvent[] = [];
    await create("kept", ["1"]);
    events.subscribe((event) => seen.push(event));
    await create("z", ["z"]);
    await stores.images.remove("z");
    expect(await collection(49).automatic.check()).toBe(0);
    expect(seen.some((event) => event.action === "collect")).toBe(false);
  });

  it("makes room at once for who found none: garbage first, then images, then nothing", async () => {
    for (const name of ["a", "b"]) await create(name, [name]);
    await create("garbage", ["x"]);
    await stores.images.remove("garbage");
    const { automatic } = collection(50);
    // Two who ask at the same time are one.
    expect(await Promise.all([automatic.makeRoom(), automatic.makeRoom()])).toEqual([true, true]);
    expect(await names()).toHaveLength(1);
    expect(await automatic.makeRoom()).toBe(false);
    expect(await names()).toHaveLength(1);
  });

  it("frees what an expired lease kept", async () => {
    const { manifest } = await create("gone", ["1"]);
    stores.database.leases.create({ id: "l", lifetimeMs: 0 });
    stores.database.leases.addResource("l", { type: "content", id: manifest.digest });
    await stores.images.remove("gone");
    await collection(0).automatic.check();
    expect(await leftovers(stores)).toEqual([]);
    expect(stores.database.leases.list()).toEqual([]);
  });

  it("looks after each new image", async () => {
    await create("old", ["1"]);
    const { automatic } = collection(75);
    automatic.start();
    const gone = new Promise<void>((resolve) => {
      const end = events.subscribe(({ action }) => {
        if (action !== "collect") return;
        end();
        resolve();
      });
    });
    await create("new", ["2"]);
    await gone;
    await automatic.stop();
    expect((await names()).length).toBeLessThan(2);
  });
});
