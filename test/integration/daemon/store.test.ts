/** Looking after the store through a daemon: pins, leases, usage, prune, events, collections beside work. */

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { VarveClient } from "../../../src/client/client.js";
import type { Event } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const sandbox = new DaemonSandbox();
const { client } = sandbox;
const SMALL = "docker.io/library/small:latest";

beforeAll(async () => {
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
});

afterAll(() => sandbox.dispose());

afterEach(async () => {
  const { views } = await client.listViews({});
  for (const { name } of views) await client.removeView({ name, force: true });
  for (const { id } of (await client.listLeases()).leases) await client.removeLease({ id });
  const { images } = await client.listImages({});
  for (const { id, repoTags } of images) {
    if (!repoTags.includes(SMALL)) await client.removeImage({ reference: id, force: true });
  }
});

/** Commits a file of its own; every image has a layer that no other has. */
async function derive(reference: string, text: string) {
  const { name, target } = await sandbox.mount({ image: "small" });
  writeFileSync(path.join(target, "data/own"), text);
  const image = await sandbox.commit({ name, reference });
  await sandbox.unpack(image.id);
  await client.removeView({ name, force: true });
  return image;
}

const isUnpacked = (chainId: string) =>
  existsSync(sandbox.path("root/snapshots", chainId.slice("sha256:".length)));

describe("a lease", () => {
  it("keeps an image's content and layers though its name goes, until it is removed", async () => {
    const image = await derive("leased:1", "leased");
    const request = { id: "mine", lifetimeSeconds: 3600n, labels: { by: "test" } };
    const { lease } = await client.createLease({ ...request, resources: ["leased:1"] });
    expect(lease).toMatchObject({ id: "mine", labels: { by: "test" }, transient: false });
    expect(lease?.resources).toMatchObject([{ type: "content", id: image.digest }]);
    expect(lease?.expires?.seconds).toBeGreaterThan(lease!.created!.seconds + 3500n);
    await client.removeImage({ reference: "leased:1" });
    await client.prune({ all: false });
    expect(isUnpacked(image.chainId)).toBe(true);
    await client.removeLease({ id: "mi" });
    const { snapshots, blobs } = await client.prune({});
    expect(snapshots).toEqual([image.chainId]);
    expect(blobs).toEqual(expect.arrayContaining([image.id, image.digest, image.layer?.digest]));
    expect(isUnpacked(image.chainId)).toBe(false);
  });

  it("keeps what it names by digest and by chain ID", async () => {
    const image = await derive("leased:2", "digest");
    const resources = [image.layer!.digest, image.chainId];
    const { lease } = await client.createLease({ resources });
    expect(lease?.resources.map(({ type }) => type).sort()).toEqual(["content", "snapshot"]);
    await client.removeImage({ reference: "leased:2" });
    expect(isUnpacked(image.chainId)).toBe(true);
    expect(existsSync(sandbox.path("root/blobs/sha256", image.layer!.digest.slice(7)))).toBe(true);
    expect(existsSync(sandbox.path("root/blobs/sha256", image.id.slice(7)))).toBe(false);
  });

  it("that has expired is gone, and keeps nothing", async () => {
    await derive("leased:3", "expired");
    await client.createLease({ id: "short", lifetimeSeconds: 1n, resources: ["leased:3"] });
    await client.removeImage({ reference: "leased:3" });
    while ((await client.listLeases()).leases.length > 0);
    expect((await client.prune({})).snapshots).toHaveLength(1);
  });

  it("of unknown things, with a taken or malformed ID, is refused", async () => {
    await client.createLease({ id: "taken", resources: ["small"] });
    const failures = [
      [{ resources: ["absent"] }, "NOT_FOUND"],
      [{ resources: [`sha256:${"0".repeat(64)}`] }, "NOT_FOUND"],
      [{ id: "taken" }, "ALREADY_EXISTS"],
      [{ id: "a/b" }, "INVALID_ARGUMENT"],
      [{ lifetimeSeconds: -1n }, "INVALID_ARGUMENT"],
    ] as const;
    for (const [request, code] of failures) {
      await expect(client.createLease(request as object)).rejects.toMatchObject({ code });
    }
    await expect(client.removeLease({ id: "none" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    await client.createLease({ id: "tail" });
    await expect(client.removeLease({ id: "ta" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("taken, tail"),
    });
  });
});

describe("the usage", () => {
  it("tells shared from unique, and prune frees what it called reclaimable", async () => {
    await derive("one:1", "1".repeat(100_000));
    await derive("two:1", "2".repeat(100_000));
    const view = await sandbox.mount({ image: "one:1", name: "user" });
    writeFileSync(path.join(view.target, "data/more"), Buffer.alloc(500_000));
    const usage = await client.diskUsage();
    const of = (name: string) =>
      usage.imageUsages.find((one) => one.image?.repoTags.includes(`docker.io/library/${name}`))!;
    expect(of("one:1")).toMatchObject({ views: ["user"], inUse: true });
    expect(of("two:1")).toMatchObject({ views: [], inUse: false });
    expect(of("two:1").uniqueBytes).toBeGreaterThan(100_000n);
    expect(of("two:1").sharedBytes).toBe(of("one:1").sharedBytes);
    expect(usage.views).toMatchObject({ count: 1n, active: 1n, reclaimableBytes: 0n });
    expect(usage.views!.bytes).toBeGreaterThanOrEqual(500_000n);
    const reclaimable = usage.images!.reclaimableBytes + usage.snapshots!.reclaimableBytes;
    const planned = await client.prune({ all: true, dryRun: true });
    expect(planned.reclaimedBytes).toBe(reclaimable);
    await client.createLease({ id: "keep", resources: ["small"] });
    const pruned = await client.prune({ all: true });
    expect(pruned.images.map((image) => image.references)).toEqual([["docker.io/library/two:1"]]);
    expect(pruned.reclaimedBytes).toBe(of("two:1").uniqueBytes);
  });
});

async function collectEvents(request: Parameters<VarveClient["events"]>[0]): Promise<Event[]> {
  const found: Event[] = [];
  for await (const event of client.events(request)) found.push(event);
  return found;
}

describe("events", () => {
  it("tell what becomes of images, views and leases, in order", async () => {
    const image = await derive("told:1", "told");
    await client.tagImage({ source: "told:1", target: "told:2" });
    await client.pinImage({ reference: "told:2" });
    await client.pinImage({ reference: "told:2", unpin: true });
    await client.removeImage({ reference: "told:1" });
    await client.removeImage({ reference: "told:2" });
    const request = { since: "1h", until: "0s", filters: ["type=image", `image=${image.id}`] };
    const lines = (await collectEvents(request)).map(
      ({ action, attributes }) => `${action} ${attributes.name ?? ""}`,
    );
    const name = "docker.io/library/told";
    expect(lines).toEqual([
      `tag ${name}:1`,
      `unpack ${image.id}`,
      `tag ${name}:2`,
      `pin ${name}:2`,
      `unpin ${name}:2`,
      `untag ${name}:1`,
      `untag ${name}:2`,
      "delete ",
    ]);
    const views = await collectEvents({ ...request, filters: ["type=view", "image=small"] });
    const actions = views.slice(-5).map((event) => event.action);
    expect(actions).toEqual(["create", "mount", "commit", "unmount", "destroy"]);
  });

  it("come as they happen, filtered, and end at a time", async () => {
    const controller = new AbortController();
    const watcher = VarveClient.connect({ socket: sandbox.socket });
    const filters = ["event=tag", "event=untag", "type=image", "image=live"];
    const seen: string[] = [];
    const watch = async () => {
      for await (const event of watcher.events({ filters }, { signal: controller.signal })) {
        seen.push(event.action);
        if (event.action === "tag") {
          // Or whoever tags does it, until they see that this was seen.
          await client.removeImage({ reference: "live:1" }).catch(() => undefined);
        } else if (seen.includes("tag")) return;
      }
    };
    try {
      const watching = watch();
      // A name that others have: tagged until the watcher, which listens from some moment on, saw it.
      const tagging = (async () => {
        for (let n = 0; seen.length === 0; n++) {
          const [source, target] = ["small", "live:1"];
          await client.tagImage({ source, target });
          if (seen.length === 0) await client.tagImage({ source, target: `other:${n}` });
          if (seen.length === 0) {
            await client.removeImage({ reference: target }).catch(() => undefined);
          }
        }
      })();
      await watching;
      await tagging;
      expect(new Set(seen)).toEqual(new Set(["tag", "untag"]));
    } finally {
      controller.abort();
      watcher.close();
    }
    expect(await collectEvents({ until: "0s" })).toEqual([]);
  });

  it.each([["colour=red"], ["type"], [""]])("refuse the filter %j", async (filter) => {
    await expect(collectEvents({ filters: [filter] })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await expect(collectEvents({ since: "soon" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});

it("a collection beside loads, commits and mounts takes nothing that they need", async () => {
  let running = true;
  await client.pinImage({ reference: "small" });
  const collecting = (async () => {
    for (let count = 0; running; count++) await client.prune({ all: count % 2 === 0 });
  })();
  try {
    for (let round = 0; round < 4; round++) {
      const layout = makeLayout(sandbox.path(`again-${round}`), "docker.io/library/again:1");
      const [view] = await Promise.all([
        sandbox.mount({ image: "small", name: `worker-${round}` }),
        sandbox.load(layout),
      ]);
      writeFileSync(path.join(view.target, "data/round"), `${round}`);
      const image = await sandbox.commit({ name: view.name, reference: "" });
      expect(image.chainId).toMatch(/^sha256:/);
      expect(readdirSync(path.join(view.target, "bin"))).toContain("busybox");
      execFileSync("rm", ["-rf", layout]);
    }
  } finally {
    running = false;
    await collecting;
    await client.pinImage({ reference: "small", unpin: true });
  }
  expect(readdirSync(sandbox.path("root/ingest"))).toEqual([]);
});
