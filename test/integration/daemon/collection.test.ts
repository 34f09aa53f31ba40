/** Collections where they matter: on a full disk, and beside pulls and builds. */

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content-store.js";
import { openDatabase } from "../../../src/metadata/database.js";
import { keepLayer } from "../../../src/services/use-cases/kept-layers.js";
import { RegistryProcess } from "../registry/registry-process.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const MIB = 1 << 20;
const HOUR_NS = 3_600_000_000_000n;

let sandbox: DaemonSandbox;

beforeEach(() => {
  sandbox = new DaemonSandbox();
});

afterEach(() => sandbox.dispose());

const name = (tag: string) => `docker.io/library/${tag}:1`;

/** A layout of the small image with a layer of its own. */
function layoutWith(tag: string, mebibytes: number): string {
  return makeLayout(sandbox.path(`layout-${tag}`), name(tag), (tree) => {
    mkdirSync(path.join(tree, "data"));
    writeFileSync(path.join(tree, "data/own"), randomBytes(mebibytes * MIB));
  });
}

async function tags(): Promise<string[]> {
  const { images } = await sandbox.client.listImages({});
  return images.flatMap((image) => image.repoTags).sort();
}

describe("on a full disk", () => {
  /** As if everything had been used an hour earlier: what is new is never collected. */
  async function age(...flags: string[]): Promise<void> {
    await sandbox.end();
    const database = new BetterSqlite3(sandbox.path("root/varve.db"));
    database.prepare("UPDATE image_references SET updated_ns = updated_ns - ?").run(HOUR_NS);
    database.prepare("UPDATE image_uses SET used_ns = used_ns - ?").run(HOUR_NS);
    database.close();
    await sandbox.start(...flags);
  }

  async function load(tag: string, mebibytes = 4): Promise<void> {
    const layout = layoutWith(tag, mebibytes);
    try {
      await sandbox.load(layout);
      await sandbox.unpack(name(tag));
    } finally {
      rmSync(layout, { recursive: true });
    }
  }

  function makeDisk(mebibytes: number): void {
    mkdirSync(sandbox.path("root"));
    const options = `size=${mebibytes}m`;
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", sandbox.path("root")]);
  }

  it("the least recently used go until there is space, and a load that found none goes on", async () => {
    makeDisk(64);
    await sandbox.start();
    for (const tag of ["pinned", "mounted", "favourite", "second", "third", "fourth"]) {
      await load(tag);
    }
    await sandbox.client.pinImage({ reference: name("pinned") });
    await age();
    // Though it came before the others.
    await sandbox.mount({ image: name("favourite"), name: "visit" });
    await sandbox.client.removeView({ name: "visit", force: true });
    await age("--gc-high", "75", "--gc-low", "70");
    const { target } = await sandbox.mount({ image: name("mounted"), name: "user" });
    await load("large", 14);
    expect(sandbox.log).toMatch(/no space left: 3 images and build steps, and garbage, removed/);
    const left = ["favourite", "large", "mounted", "pinned"].map(name);
    expect(await tags()).toEqual(left);
    expect(readFileSync(path.join(target, "data/own"))).toHaveLength(4 * MIB);
    const view = await sandbox.mount({ image: name("large"), name: "new" });
    expect(readFileSync(path.join(view.target, "data/own"))).toHaveLength(14 * MIB);
  });

  it("that is fuller than the high threshold, they go at the next occasion", async () => {
    makeDisk(64);
    await sandbox.start();
    for (const tag of ["first", "second", "third", "fourth"]) await load(tag);
    await age("--gc-high", "40", "--gc-low", "35");
    // A new name is one; otherwise the disk is looked at each minute.
    await sandbox.client.tagImage({ source: name("fourth"), target: name("occasion") });
    while (!sandbox.log.includes("automatic collection:")) await sleep(20);
    expect(sandbox.log).toMatch(/\d images and build steps removed, disk \d+% full/);
    expect(await tags()).toEqual(["fourth", "occasion", "third"].map(name));
  });

  it("a load and an unpack that find no space take that of garbage and of unfinished pulls alone", async () => {
    makeDisk(32);
    await sandbox.start();
    await load("kept");
    await sandbox.end();
    // What a pull had fetched before somebody interrupted it, and nobody came back for.
    const database = openDatabase(sandbox.path("root/varve.db"));
    const content = new ContentStore(sandbox.path("root"), database);
    const { digest } = await content.writeBlob(randomBytes(12 * MIB));
    keepLayer(database, name("unfinished"), digest);
    database.close();
    await sandbox.start();
    await load("large", 8);
    expect(await tags()).toEqual(["kept", "large"].map(name));
    expect(existsSync(content.path(digest))).toBe(false);
    await expect(load("hopeless", 16)).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(await tags()).toEqual(["kept", "large"].map(name));
  });
});

describe("a collection that is killed", () => {
  it("leaves blobs and layers with rows, and rows with blobs and layers, after the next start", async () => {
    await sandbox.start();
    const layouts = ["one", "two", "three"].map((tag) => [tag, layoutWith(tag, 1)] as const);
    for (let round = 0; round < 6; round++) {
      for (const [tag, layout] of layouts) {
        await sandbox.load(layout);
        await sandbox.unpack(name(tag));
      }
      const removals = layouts.map(([tag]) =>
        sandbox.client.removeImage({ reference: name(tag) }).catch(() => undefined),
      );
      await sleep(round * 4);
      await sandbox.end("SIGKILL");
      await Promise.all(removals);
      await sandbox.start();
      expectAgreement(await tags());
      await sandbox.client.prune({ all: true });
    }
    expect(readdirSync(sandbox.path("root/blobs/sha256"))).toEqual([]);
    expect(readdirSync(sandbox.path("root/snapshots"))).toEqual([]);
    expect(readdirSync(sandbox.path("root/ingest"))).toEqual([]);
  });

  /** Rows and files are the same, and what has a name is whole. */
  function expectAgreement(names: readonly string[]): void {
    // The daemon has it for itself.
    for (const file of ["varve.db", "varve.db-wal"]) {
      copyFileSync(sandbox.path("root", file), sandbox.path(file));
    }
    const database = new BetterSqlite3(sandbox.path("varve.db"));
    try {
      const of = (sql: string) => database.prepare<[], string>(sql).pluck(true).all();
      const blobs = of("SELECT substr(digest, 8) FROM blobs");
      const chains = of("SELECT substr(name, 8) FROM snapshots");
      expect(readdirSync(sandbox.path("root/blobs/sha256")).sort()).toEqual(blobs.sort());
      expect(readdirSync(sandbox.path("root/snapshots")).sort()).toEqual(chains.sort());
      // Manifest, config, a layer that all have and one of its own.
      if (names.length > 0) expect(blobs.length).toBeGreaterThanOrEqual(names.length * 3);
    } finally {
      database.close();
    }
  }
});

/** Collects again and again while `work` runs. */
async function besideCollections(all: boolean, work: () => Promise<void>): Promise<void> {
  let running = true;
  const collecting = (async () => {
    while (running) await sandbox.client.prune({ all });
  })();
  try {
    await work();
  } finally {
    running = false;
    await collecting;
  }
}

describe("a collection beside pulls", () => {
  const environment = { HOME: "/nowhere", DOCKER_CONFIG: "/nowhere" };
  const access = { plainHttp: true, environment };
  let registry: RegistryProcess | undefined;
  let image: string;

  beforeEach(async () => {
    await sandbox.start();
    registry = await RegistryProcess.start();
    image = `${registry.domain}/app:1`;
    const layout = layoutWith("app", 2);
    const copy = ["copy", "-q", "--dest-tls-verify=false", `oci:${layout}:latest`];
    execFileSync("skopeo", [...copy, `docker://${image}`], { stdio: "pipe" });
  });

  afterEach(() => registry?.dispose());

  it("leaves them all that they fetched and unpacked", async () => {
    await besideCollections(false, async () => {
      for (let round = 0; round < 5; round++) {
        for await (const _ of sandbox.client.pullImage({ reference: image, access }));
        const { chainIds, layers } = await sandbox.client.inspectImage({ reference: image });
        for (const { digest } of layers) {
          expect(existsSync(sandbox.path("root/blobs/sha256", digest.slice(7)))).toBe(true);
        }
        for (const chainId of chainIds) {
          expect(existsSync(sandbox.path("root/snapshots", chainId.slice(7)))).toBe(true);
        }
        await sandbox.client.removeImage({ reference: image });
      }
    });
    await sandbox.client.prune({});
    expect(readdirSync(sandbox.path("root/ingest"))).toEqual([]);
    expect(readdirSync(sandbox.path("root/blobs/sha256"))).toEqual([]);
  });

  it("that takes every unused image leaves the one that is pulled to be mounted", async () => {
    await besideCollections(true, async () => {
      for (let round = 0; round < 5; round++) {
        const view = await sandbox.mount({ image, access, pull: "missing", name: "user" });
        expect(readFileSync(path.join(view.target, "data/own"))).toHaveLength(2 * MIB);
        await sandbox.client.removeView({ name: "user", force: true });
      }
    });
    expect(await tags()).toEqual([]);
  });

  it("that takes every unused image leaves a build its parent and its steps", async () => {
    const sh = (text: string) => ({ kind: "run", args: [text], shell: true });
    const steps = [
      sh("echo one > /data/one"),
      { kind: "change", change: "ENV TWO=two" },
      sh('read one < /data/one; echo "$one $TWO"'),
    ];
    await besideCollections(true, async () => {
      for (let round = 0; round < 3; round++) {
        let output = "";
        const request = { parent: image, access, steps, noCache: true };
        for await (const message of sandbox.client.commitStep(request)) {
          output += Buffer.from(message.output).toString();
        }
        expect(output).toBe("one two\n");
      }
    });
    expect(readdirSync(sandbox.path("root/views"))).toEqual([]);
  });
});
