/** What containerd's suite does not look at, over the real socket. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type Info,
  Kind,
} from "../../../src/services/gen/containerd/services/snapshots/v1/snapshots_pb.js";
import type { Mount } from "../../../src/services/gen/containerd/types/mount_pb.js";
import { Status } from "../../../src/services/status.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { makeLayout } from "../daemon/small-image.js";
import { SnapshotsClient, statusOf } from "./snapshots-client.js";

let sandbox: DaemonSandbox;
let client: SnapshotsClient;

const flags = () => ["--containerd-socket", sandbox.path("c.sock")];

beforeEach(async () => {
  sandbox = new DaemonSandbox();
  await sandbox.start(...flags());
  client = new SnapshotsClient(sandbox.path("c.sock"));
});

afterEach(async () => {
  client.close();
  await sandbox.dispose();
});

/** Runs `work` where the mounts show. */
function within<R>(mounts: readonly Mount[], work: (root: string) => R): R {
  const root = mkdtempSync(path.join(os.tmpdir(), "varve-root-"));
  const [{ type, source, options }] = mounts as [Mount];
  const bind = options.map((option) => (option === "rbind" ? "bind" : option)).join(",");
  execFileSync("mount", ["-t", type === "bind" ? "none" : type, "-o", bind, source, root]);
  try {
    return work(root);
  } finally {
    execFileSync("umount", [root]);
    rmSync(root, { recursive: true });
  }
}

const prepare = async (key: string, parent = "") =>
  (await client.call("prepare", { key, parent })).mounts;
const view = async (key: string, parent: string) =>
  (await client.call("view", { key, parent })).mounts;
const stat = async (key: string): Promise<Info> => (await client.call("stat", { key })).info!;

/** A committed snapshot with one file. */
async function layer(name: string, parent = "", file = "file"): Promise<void> {
  const mounts = await prepare(`${name}-active`, parent);
  within(mounts, (root) => writeFileSync(path.join(root, file), `${name}\n`));
  await client.call("commit", { name, key: `${name}-active` });
}

describe("mounts", () => {
  it("of containers are a FUSE view bound read-write, of views read-only", async () => {
    await layer("base");
    const active = await prepare("container", "base");
    expect(active).toMatchObject([{ type: "bind", options: ["rbind", "rw"] }]);
    const mounted = readFileSync("/proc/mounts", "utf8");
    expect(mounted).toMatch(new RegExp(`^\\S+ ${active[0]!.source} fuse\\.varve `, "m"));
    expect(await view("looker", "base")).toMatchObject([{ options: ["rbind", "ro"] }]);
    expect((await client.call("mounts", { key: "container" })).mounts).toEqual(active);
  });

  it("for unpacking are the kernel's, whose upper directory becomes the layer", async () => {
    await layer("base");
    await layer("middle", "base", "other");
    const [mount] = await prepare("k8s.io/7/extract-123-ab sha256:00", "middle");
    expect(mount).toMatchObject({ type: "overlay", source: "overlay" });
    const options = new Map(mount!.options.map((option) => option.split("=") as [string, string]));
    const [top, bottom] = options.get("lowerdir")!.split(":") as [string, string];
    expect(readFileSync(path.join(bottom, "file"), "utf8")).toBe("base\n");
    expect(readFileSync(path.join(top, "other"), "utf8")).toBe("middle\n");
    writeFileSync(path.join(options.get("upperdir")!, "unpacked"), "straight\n");
    execFileSync("mknod", [path.join(options.get("upperdir")!, "file"), "c", "0", "0"]);
    await client.call("commit", { name: "top", key: "k8s.io/7/extract-123-ab sha256:00" });
    within(await view("looker", "top"), (root) => {
      expect(readdirSync(root).sort()).toEqual(["other", "unpacked"]);
    });
  });

  it("of a layer that varve unpacked in the midst of an image show it, and so do those on top", async () => {
    await sandbox.load(makeLayout(sandbox.path("layout"), "docker.io/library/small:latest"));
    const { target } = await sandbox.mount({ image: "small", name: "v" });
    const { view: whole } = await sandbox.client.inspectView({ name: "v" });
    const { snapshot } = await sandbox.client.inspectSnapshot({ chainId: whole!.chainId });
    const labels = { "containerd.io/snapshot.ref": snapshot!.parent };
    const key = `default/1/extract-1 ${snapshot!.parent}`;
    const known = client.call("prepare", { key, labels });
    expect(await statusOf(known)).toBe(Status.ALREADY_EXISTS);
    const shared = (await client.list()).find(({ kind }) => kind === Kind.COMMITTED)!.name;
    within(await view("looker", shared), (root) => {
      expect(readdirSync(path.join(root, "data")).length).toBeGreaterThan(0);
      expect(readdirSync(path.join(root, "data"))).not.toEqual(readdirSync(`${target}/data`));
    });
    await layer("above", shared, "own");
    within(await view("looker above", "above"), (root) => {
      expect(readFileSync(path.join(root, "own"), "utf8")).toBe("above\n");
      expect(readdirSync(path.join(root, "data")).length).toBeGreaterThan(0);
    });
  });

  it("of a parent's root keep its owner, mode and times", async () => {
    const mounts = await prepare("a");
    within(mounts, (root) => execFileSync("sh", ["-c", `chown 7:8 ${root}; chmod 1750 ${root}`]));
    await client.call("commit", { name: "base", key: "a" });
    const [mount] = await prepare("default/1/extract-1 x", "base");
    const upper = mount!.options.find((option) => option.startsWith("upperdir="))!.slice(9);
    const facts = execFileSync("stat", ["-c", "%u %g %a", upper], { encoding: "utf8" });
    expect(facts.trim()).toBe("7 8 1750");
  });
});

describe("errors", () => {
  it("carry the status that containerd's own snapshotters give", async () => {
    await layer("base");
    await prepare("active", "base");
    await view("view", "base");
    const failures: [Promise<unknown>, number][] = [
      [prepare(""), Status.INVALID_ARGUMENT],
      [prepare("base"), Status.ALREADY_EXISTS],
      [prepare("view"), Status.ALREADY_EXISTS],
      [view("active", "base"), Status.ALREADY_EXISTS],
      [prepare("new", "missing"), Status.NOT_FOUND],
      [prepare("new", "active"), Status.INVALID_ARGUMENT],
      [client.call("mounts", { key: "missing" }), Status.NOT_FOUND],
      [client.call("mounts", { key: "base" }), Status.FAILED_PRECONDITION],
      [client.call("commit", { name: "n", key: "missing" }), Status.NOT_FOUND],
      [client.call("commit", { name: "base", key: "active" }), Status.ALREADY_EXISTS],
      [client.call("commit", { name: "n", key: "view" }), Status.FAILED_PRECONDITION],
      [client.call("commit", { name: "n", key: "active", parent: "x" }), Status.INVALID_ARGUMENT],
      [client.call("remove", { key: "missing" }), Status.NOT_FOUND],
      [client.call("remove", { key: "base" }), Status.FAILED_PRECONDITION],
      [client.call("stat", { key: "missing" }), Status.NOT_FOUND],
      [client.call("usage", { key: "missing" }), Status.NOT_FOUND],
      [client.call("update", { info: { name: "missing" } }), Status.NOT_FOUND],
      [
        client.call("update", { info: { name: "base" }, updateMask: { paths: ["parent"] } }),
        Status.INVALID_ARGUMENT,
      ],
      [
        client.call("prepare", { key: "long", labels: { k: "v".repeat(4096) } }),
        Status.INVALID_ARGUMENT,
      ],
      [client.list("name==="), Status.INVALID_ARGUMENT],
    ];
    const statuses = await Promise.all(failures.map(([call]) => statusOf(call)));
    expect(statuses).toEqual(failures.map(([, status]) => status));
    expect((await client.list()).map(({ name }) => name).sort()).toEqual([
      "active",
      "base",
      "view",
    ]);
  });
});

describe("commit", () => {
  it("replaces labels and times, and frees the key", async () => {
    await client.call("prepare", { key: "active", labels: { a: "1", b: "2" } });
    const before = await stat("active");
    expect(before).toMatchObject({ kind: Kind.ACTIVE, labels: { a: "1", b: "2" } });
    await client.call("commit", { name: "done", key: "active", labels: { c: "3" } });
    const after = await stat("done");
    expect(after).toMatchObject({ kind: Kind.COMMITTED, labels: { c: "3" } });
    expect(after.createdAt).toEqual(after.updatedAt);
    expect(timestampDate(after.createdAt!).getTime()).toBeGreaterThanOrEqual(
      timestampDate(before.createdAt!).getTime(),
    );
    expect(await statusOf(prepare("active"))).toBeUndefined();
  });

  it("gives a snapshot that was prepared without a parent the one it names", async () => {
    await layer("base");
    await prepare("alone");
    const orphan = { name: "n", key: "alone" };
    expect(await statusOf(client.call("commit", { ...orphan, parent: "missing" }))).toBe(
      Status.NOT_FOUND,
    );
    await prepare("busy");
    expect(await statusOf(client.call("commit", { ...orphan, parent: "busy" }))).toBe(
      Status.FAILED_PRECONDITION,
    );
    await client.call("commit", { ...orphan, parent: "base" });
    expect((await stat("n")).parent).toBe("base");
    within(await view("looker", "n"), (root) => expect(readdirSync(root)).toEqual(["file"]));
  });
});

describe("usage", () => {
  it("is that of the own layer, and nothing for a view", async () => {
    const mounts = await prepare("big");
    within(mounts, (root) => {
      writeFileSync(path.join(root, "data"), Buffer.alloc(1 << 20, 1));
      mkdirSync(path.join(root, "dir"));
    });
    const active = await client.call("usage", { key: "big" });
    expect(Number(active.size)).toBeGreaterThanOrEqual(1 << 20);
    expect(Number(active.inodes)).toBe(3);
    await client.call("commit", { name: "big-layer", key: "big" });
    expect(await client.call("usage", { key: "big-layer" })).toEqual(active);
    await prepare("child", "big-layer");
    expect(Number((await client.call("usage", { key: "child" })).size)).toBeLessThan(1 << 20);
    await view("view", "big-layer");
    expect(await client.call("usage", { key: "view" })).toMatchObject({ size: 0n, inodes: 0n });
  });
});

describe("update", () => {
  it("changes what the mask names, deletes what is empty, and moves updated_at", async () => {
    await client.call("prepare", { key: "k", labels: { keep: "1", drop: "2", "a.b/c": "3" } });
    const before = await stat("k");
    const info = { name: "k", labels: { "a.b/c": "new", keep: "ignored" }, parent: "ignored" };
    const updateMask = { paths: ["labels.a.b/c", "labels.drop"] };
    const { info: after } = await client.call("update", { info, updateMask });
    expect(after).toMatchObject({ labels: { keep: "1", "a.b/c": "new" }, parent: "" });
    expect(after!.labels).not.toHaveProperty("drop");
    expect(after!.createdAt).toEqual(before.createdAt);
    expect(after!.updatedAt).not.toEqual(before.updatedAt);
    await client.call("update", { info: { name: "k", labels: { only: "x" } } });
    expect((await stat("k")).labels).toEqual({ only: "x" });
  });
});

describe("remove", () => {
  it("takes directories and mounts away, at the latest when Cleanup returns", async () => {
    await layer("base");
    await prepare("container", "base");
    await client.call("remove", { key: "container" });
    await client.call("remove", { key: "base" });
    await client.call("cleanup", {});
    expect(readdirSync(sandbox.path("root/containerd"))).toEqual([]);
    expect(readdirSync(sandbox.path("state/containerd"))).toEqual([]);
    expect(sandbox.mounts()).toEqual([]);
  });
});

describe("a restarted daemon", () => {
  it.each(["SIGTERM", "SIGKILL"] as const)("has all of it again after %s", async (signal) => {
    await layer("base");
    const mounts = await prepare("container", "base");
    within(mounts, (root) => writeFileSync(path.join(root, "written"), "kept\n"));
    await layer("middle", "base");
    await prepare("quick", "middle");
    await client.call("commit", { name: "late", key: "quick" });
    const before = await client.list();
    await sandbox.end(signal);
    mkdirSync(sandbox.path("root/containerd/999/fs"), { recursive: true });
    client.close();
    await sandbox.start(...flags());
    client = new SnapshotsClient(sandbox.path("c.sock"));
    expect(await client.list()).toEqual(before);
    const again = (await client.call("mounts", { key: "container" })).mounts;
    expect(again).toEqual(mounts);
    within(again, (root) => expect(readdirSync(root).sort()).toEqual(["file", "written"]));
    within(await view("looker", "late"), (root) => expect(readdirSync(root)).toEqual(["file"]));
    expect(readdirSync(sandbox.path("root/containerd"))).not.toContain("999");
  });
});

describe("many clients", () => {
  it("200 at once each get a container of their own, and only one of those who want the same key", async () => {
    await layer("base");
    const clients = Array.from({ length: 200 }, () => new SnapshotsClient(sandbox.path("c.sock")));
    try {
      const results = await Promise.all(
        clients.map(async (one, position) => {
          const key = `container-${position % 100}`;
          const status = await statusOf(one.call("prepare", { key, parent: "base" }));
          await one.call("stat", { key });
          return status;
        }),
      );
      expect(results.filter((status) => status === undefined)).toHaveLength(100);
      expect(results.filter((status) => status === Status.ALREADY_EXISTS)).toHaveLength(100);
      expect(await client.list("kind==active")).toHaveLength(100);
      await Promise.all(
        clients
          .slice(0, 100)
          .map((one, position) => one.call("remove", { key: `container-${position}` })),
      );
      expect(sandbox.mounts()).toEqual([]);
    } finally {
      for (const one of clients) one.close();
    }
  });
});
