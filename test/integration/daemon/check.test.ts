/** `varve check` finds what was planted, mends what blobs can mend, and says what is lost. */

import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { buildIndex } from "../../../src/layers/index-builder.js";
import type { CheckSummary, StoreFault } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const SMALL = "docker.io/library/small:latest";
const CLI = path.resolve(import.meta.dirname, "../../../bin/varve");
const sandbox = new DaemonSandbox();
/** The image's config, its layers, base first, and the chains of the topmost two. */
let config: string;
let layers: string[];
let chains: { base: string; top: string };
let target: string;

beforeAll(async () => {
  await sandbox.start();
  const fill = (tree: string) => {
    writeFileSync(path.join(tree, "big"), randomBytes(3_000_000));
    execFileSync("setfattr", ["-n", "user.colour", "-v", "blue", path.join(tree, "big")]);
  };
  await sandbox.load(makeLayout(sandbox.path("layout"), SMALL, fill));
  target = (await sandbox.mount({ image: "small", name: "v" })).target;
  writeFileSync(path.join(target, "data/written"), "written");
  const { view } = await sandbox.client.inspectView({ name: "v" });
  const layout = JSON.parse(readFileSync(sandbox.path("layout/index.json"), "utf8"));
  const manifest = JSON.parse(readFileSync(blobFile(layout.manifests[0].digest), "utf8"));
  config = manifest.config.digest;
  layers = manifest.layers.map((layer: { digest: string }) => layer.digest);
  const { snapshot } = await sandbox.client.inspectSnapshot({ chainId: view!.chainId });
  chains = { top: view!.chainId, base: snapshot!.parent };
});

afterAll(() => sandbox.dispose());

/** Whatever a test left: the image is whole again and the view mounted. */
afterEach(async () => {
  const { views } = await sandbox.client.listViews({});
  if (views.some((view) => view.mounted)) await sandbox.client.unmountView({ name: "v" });
  await check({ repair: true, verifyContent: true });
  await sandbox.load(sandbox.path("layout"));
  await check({ repair: true });
  await sandbox.mount({ name: "v" });
});

interface Outcome {
  readonly faults: StoreFault[];
  readonly summary: CheckSummary | undefined;
}

async function check(o: { verifyContent?: boolean; repair?: boolean } = {}): Promise<Outcome> {
  const faults: StoreFault[] = [];
  let summary: CheckSummary | undefined;
  for await (const message of sandbox.client.checkStore(o)) {
    if (message.fault !== undefined) faults.push(message.fault);
    summary = message.summary ?? summary;
  }
  return { faults, summary };
}

const brief = ({ faults }: Outcome) => faults.map(({ kind, object }) => `${kind} ${object}`);
const blobFile = (digest: string) => sandbox.path("root/blobs/sha256", digest.slice(7));
const tree = (chainId: string) => sandbox.path("root/snapshots", chainId.slice(7), "fs");

/** Makes it look as though nobody had touched it for two hours; ctime cannot be set, so the clock of it is. */
function makeOld(file: string): void {
  const past = Date.now() / 1000 - 7200;
  utimesSync(file, past, past);
}

/** Changes a file's bytes and nothing else that stat tells. */
function corrupt(file: string, offset = 0): void {
  const { atime, mtime } = statSync(file, { bigint: false });
  const bytes = readFileSync(file);
  bytes[offset] = bytes[offset]! ^ 0xff;
  writeFileSync(file, bytes);
  utimesSync(file, atime, mtime);
}

describe("a store that is as it should be", () => {
  it("has no fault, by a glance or to the last byte, and every layer is compared", async () => {
    expect(await check()).toMatchObject({ faults: [], summary: { snapshots: 3n, views: 1n } });
    const { faults, summary } = await check({ verifyContent: true });
    expect(faults).toEqual([]);
    expect(summary?.unverified).toEqual([]);
    expect(Number(summary?.verifiedBytes)).toBeGreaterThan(6_000_000);
    expect(readdirSync(sandbox.path("root/snapshots"))).toHaveLength(3);
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
  });

  it("has none either while others load, mount, commit and remove", async () => {
    const work = async (name: string) => {
      const view = await sandbox.mount({ image: "small", name });
      writeFileSync(path.join(view.target, "own"), name);
      const image = await sandbox.commit({ name, reference: `${name}:1` });
      await sandbox.unpack(image.id);
      await sandbox.client.removeView({ name, force: true });
      await sandbox.client.removeImage({ reference: `${name}:1` });
    };
    const checks = async () => {
      for (let round = 0; round < 4; round++) {
        expect((await check({ verifyContent: round % 2 === 0 })).faults).toEqual([]);
      }
    };
    const works = ["a", "b", "c", "d", "e", "f"].map((name) => work(name));
    await Promise.all([checks(), ...works]);
  });
});

describe("a damaged blob", () => {
  it("of a layer is found by its bytes, forgotten, and there again after the next load", async () => {
    corrupt(blobFile(layers[2]!), 5000);
    expect((await check()).faults).toEqual([]);
    expect(brief(await check({ verifyContent: true }))).toContain(`blob-damaged ${layers[2]}`);
    const repaired = await check({ verifyContent: true, repair: true });
    expect(brief(repaired)).toEqual([`blob-damaged ${layers[2]}`, `image-incomplete ${SMALL}`]);
    expect(repaired.faults.map((fault) => fault.repaired)).toEqual([false, false]);
    expect(existsSync(blobFile(layers[2]!))).toBe(false);
    await sandbox.load(sandbox.path("layout"));
    expect((await check({ verifyContent: true })).faults).toEqual([]);
  });

  it("that is missing, or too short, is found without reading", async () => {
    rmSync(blobFile(layers[0]!));
    truncateSync(blobFile(layers[1]!), 100);
    const found = [`blob-missing ${layers[0]}`, `blob-damaged ${layers[1]}`].sort();
    expect(brief(await check()).sort()).toEqual(found);
  });

  it("of a small document is always read", async () => {
    corrupt(blobFile(config), 10);
    expect(brief(await check())).toContain(`blob-damaged ${config}`);
  });
});

describe("a damaged layer", () => {
  const plants: [string, (fs: string) => void][] = [
    ["an owner", (fs) => chownSync(path.join(fs, "big"), 7, 7)],
    ["a mode", (fs) => chmodSync(path.join(fs, "big"), 0o4777)],
    ["a size", (fs) => appendFileSync(path.join(fs, "big"), "more")],
    ["a time", (fs) => utimesSync(path.join(fs, "big"), 1, 1)],
    ["a lost file", (fs) => rmSync(path.join(fs, "big"))],
    ["a file too many", (fs) => writeFileSync(path.join(fs, "alien"), "")],
    [
      "a type",
      (fs) => {
        rmSync(path.join(fs, "big"));
        symlinkSync("/etc/shadow", path.join(fs, "big"));
      },
    ],
    [
      "an attribute",
      (fs) => {
        execFileSync("setfattr", ["-n", "user.colour", "-v", "red", path.join(fs, "big")]);
      },
    ],
  ];

  it.each(plants)("is found by a glance: %s; and unpacked again", async (_, plant) => {
    plant(tree(chains.top));
    expect(brief(await check())).toEqual([`snapshot-damaged ${chains.top}`]);
    const busy = await check({ repair: true });
    expect(busy.faults[0]).toMatchObject({ repaired: false });
    expect(busy.faults[0]!.remedy).toContain("unmount view v");
    await sandbox.client.unmountView({ name: "v" });
    expect((await check({ repair: true })).faults).toMatchObject([{ repaired: true }]);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
  });

  it("that was unpacked again shows in its views what was written there before", async () => {
    await sandbox.client.unmountView({ name: "v" });
    chmodSync(path.join(tree(chains.top), "big"), 0o777);
    await check({ repair: true });
    await sandbox.mount({ name: "v" });
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
    expect(statSync(path.join(target, "big")).mode & 0o777).toBe(0o644);
  });

  it("whose bytes alone differ is found by its content, and repaired with what stands on it", async () => {
    await sandbox.client.unmountView({ name: "v" });
    corrupt(path.join(tree(chains.base), "data/top"));
    expect((await check()).faults).toEqual([]);
    const found = await check({ verifyContent: true, repair: true });
    const both = [`snapshot-damaged ${chains.base}`, `snapshot-damaged ${chains.top}`];
    expect(brief(found)).toEqual(both);
    expect(found.faults.map((fault) => fault.repaired)).toEqual([true, true]);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
    expect(readFileSync(path.join(tree(chains.base), "data/top"), "utf8")).toBe("top\n");
  });

  it("whose index is damaged, or another's, is found and built again", async () => {
    await sandbox.client.unmountView({ name: "v" });
    const index = path.join(tree(chains.top), "../index");
    corrupt(index, 300);
    expect(brief(await check())).toEqual([`snapshot-damaged ${chains.top}`]);
    const base = { chainId: chains.base, fsDir: tree(chains.base), impliedDirectories: [] };
    buildIndex({ ...base, outputPath: index, privileged: true });
    expect(brief(await check({ repair: true }))).toEqual([`snapshot-damaged ${chains.top}`]);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
  });

  it("whose chain has no index of its own is found by the one above it, with all that stands on it", async () => {
    await sandbox.client.unmountView({ name: "v" });
    expect(existsSync(path.join(tree(chains.base), "../index"))).toBe(false);
    const both = [`snapshot-damaged ${chains.base}`, `snapshot-damaged ${chains.top}`];
    rmSync(path.join(tree(chains.base), "data/top"));
    expect(brief(await check())).toEqual(both);
    const { faults } = await check({ repair: true });
    expect(faults[0]!.problem).toContain("data");
    expect(faults[1]!.problem).toContain(`it stands on ${chains.base}`);
    expect(faults.map((fault) => fault.repaired)).toEqual([true, true]);
    expect(readFileSync(path.join(tree(chains.base), "data/top"), "utf8")).toBe("top\n");
  });

  it("that lost its index is whole, and gets another at its next mount", async () => {
    await sandbox.client.unmountView({ name: "v" });
    const index = path.join(tree(chains.top), "../index");
    rmSync(index);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
    await sandbox.mount({ name: "v" });
    expect(existsSync(index)).toBe(true);
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
  });

  it("without its blob is compared with nothing, and cannot be repaired", async () => {
    rmSync(blobFile(layers[2]!));
    await check({ repair: true });
    expect((await check({ verifyContent: true })).summary?.unverified).toEqual([chains.top]);
    await sandbox.client.unmountView({ name: "v" });
    chmodSync(path.join(tree(chains.top), "big"), 0o777);
    const { faults } = await check({ repair: true });
    expect(faults.find(({ kind }) => kind === "snapshot-damaged")).toMatchObject({
      repaired: false,
      remedy: expect.stringContaining("blobs are here"),
    });
    await sandbox.load(sandbox.path("layout"));
    expect((await check({ repair: true })).faults).toMatchObject([{ repaired: true }]);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
  });

  it("that is gone is unpacked again", async () => {
    await sandbox.client.unmountView({ name: "v" });
    rmSync(tree(chains.top), { recursive: true });
    expect((await check({ repair: true })).faults).toMatchObject([
      { kind: "snapshot-missing", object: chains.top, repaired: true },
    ]);
    expect((await check({ verifyContent: true })).faults).toEqual([]);
  });
});

describe("what belongs to nothing", () => {
  it("is found, and removed by a repair", async () => {
    const stray = `root/blobs/sha256/${"0".repeat(64)}`;
    writeFileSync(sandbox.path(stray), "stray");
    writeFileSync(sandbox.path("root/ingest/abandoned"), "half");
    makeOld(sandbox.path("root/ingest/abandoned"));
    const wanted = [`blob-stray ${stray.slice(5)}`, "ingest-stray ingest/abandoned"];
    expect(brief(await check())).toEqual(wanted);
    const { faults } = await check({ repair: true });
    expect(faults.map((fault) => fault.repaired)).toEqual([true, true]);
    expect((await check()).faults).toEqual([]);
  });
});

describe("what was written in a view", () => {
  it("has no second copy: its loss is said, and is not repaired", async () => {
    const { id } = await sandbox.mount({ image: "small", name: "lost" });
    await sandbox.client.unmountView({ name: "lost" });
    rmSync(sandbox.path("root/views", id, "upper"), { recursive: true });
    const { faults } = await check({ repair: true });
    expect(faults).toMatchObject([{ kind: "view-missing", object: "lost", repaired: false }]);
    await sandbox.client.removeView({ name: "lost" });
    expect((await check()).faults).toEqual([]);
  });
});

describe("the command", () => {
  const varve = (...args: string[]) => {
    const env = { ...process.env, VARVE_SOCKET: sandbox.socket, NO_COLOR: "1" };
    return spawnSync(CLI, ["--no-autostart", "check", ...args], { encoding: "utf8", env });
  };

  it("says by its exit code what is left: 0 nothing, 4 faults, 1 no check at all", async () => {
    expect(varve()).toMatchObject({ status: 0, stdout: expect.stringContaining("no fault") });
    await sandbox.client.unmountView({ name: "v" });
    chmodSync(path.join(tree(chains.top), "big"), 0o777);
    const found = varve("--format", "json");
    expect(found.status).toBe(4);
    const [fault, summary] = found.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(fault).toMatchObject({ Kind: "snapshot-damaged", Repaired: false });
    expect(summary).toMatchObject({ Snapshots: 3, Views: 1 });
    expect(varve("--repair", "-q")).toMatchObject({ status: 0, stderr: "" });
    expect(varve("--format", "xml").status).toBe(2);
    const elsewhere = { ...process.env, VARVE_SOCKET: sandbox.path("nobody.sock") };
    expect(spawnSync(CLI, ["--no-autostart", "check"], { env: elsewhere }).status).toBe(1);
  });
});
