/** Views without a daemon: threads that crash, names that race, directories that are left over. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Digest, digestOf } from "../../../src/content/digest.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { LayerTasks } from "../../../src/snapshots/layer-tasks.js";
import type { Log } from "../../../src/snapshots/log.js";
import { SnapshotStore } from "../../../src/snapshots/snapshot-store.js";
import { Unpacker } from "../../../src/snapshots/unpacker.js";
import { liveThreads } from "../../../src/snapshots/worker-host.js";
import { readMounts } from "../../../src/views/mount-table.js";
import { SessionKeeper } from "../../../src/views/session-keeper.js";
import { Views } from "../../../src/views/views.js";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { LayerArchives } from "../snapshots/layer-archives.js";

const CRASHING = fileURLToPath(new URL("./crashing-worker.mjs", import.meta.url));
const STUCK = fileURLToPath(new URL("./stuck-worker.mjs", import.meta.url));

const FORCE_GRACE_MS = 300;

let directory: string;
let database: Database;
let tasks: LayerTasks;
let snapshots: SnapshotStore;
let views: Views;
let chainId: Digest | undefined;
let warnings: string[];

const log: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (message) => warnings.push(message),
};

async function openViews(workers = 1, workerFile?: string, keeper?: SessionKeeper): Promise<void> {
  views = new Views({
    root: directory,
    state: path.join(directory, "state"),
    database,
    snapshots,
    tasks,
    privileged: true,
    workers,
    quickWakeUps: false,
    io: "auto",
    ...(workerFile === undefined ? {} : { workerFile }),
    forceGraceMs: FORCE_GRACE_MS,
    keeper,
    log,
  });
  await views.takeOver();
  await views.open({ restore: true });
}

beforeEach(async () => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-views-"));
  warnings = [];
  process.env.CRASH_FILE = path.join(directory, "crash");
  process.env.STUCK_FIFO = path.join(directory, "stuck");
  database = openDatabase(path.join(directory, "varve.db"));
  tasks = new LayerTasks({ workers: 2 });
  snapshots = new SnapshotStore({ root: directory, database, tasks, privileged: true, log });
  await snapshots.open();
  const blobs = new LayerArchives(directory);
  const unpacker = new Unpacker({ snapshots, blobs, tasks, privileged: true });
  chainId = await unpacker.unpack([blobs.add({ "etc/name": "base", "sub/file": "x" })]);
  await openViews();
});

afterEach(async () => {
  await views.close({ keepMounts: false });
  await snapshots.settle();
  for (const target of ourMounts()) spawnSync("umount", ["-l", target]);
  await tasks.close();
  database.close();
  rmSync(directory, { recursive: true });
});

const ourMounts = () =>
  readMounts()
    .map((mount) => mount.mountPoint)
    .filter((target) => target.startsWith(directory));

function prepare(name?: string, o: { chain?: Digest | undefined; readOnly?: boolean } = {}) {
  return views.prepare({
    name,
    image: "docker.io/library/test:latest",
    imageId: digestOf("config"),
    manifestDigest: digestOf("manifest"),
    chainId: "chain" in o ? o.chain : chainId,
    readOnly: o.readOnly ?? false,
  });
}

const defaultTargets = () => readdirSync(path.join(directory, "state/views"));

const cat = (file: string) => execFileSync("cat", [file], { encoding: "utf8" });

describe("a crashed thread", () => {
  it("takes only its own mounts along, which can be mounted again", async () => {
    await views.close({ keepMounts: false });
    await openViews(2, CRASHING);
    const names = ["a", "b", "c"];
    for (const name of names) await prepare(name);
    const mounted = await Promise.all(names.map((name) => views.mount(name)));
    writeFileSync(path.join(mounted[0]!.target, "etc/new"), "survives");
    writeFileSync(process.env.CRASH_FILE!, "");
    while (views.list().some((view) => view.mounted)) await sleep(10);
    while (ourMounts().length > 0) await sleep(10);
    expect(warnings.filter((message) => message.includes("crashed"))).not.toEqual([]);
    rmSync(process.env.CRASH_FILE!);
    const { target } = await views.mount("a");
    expect(cat(path.join(target, "etc/new"))).toBe("survives");
  });

  it.runIf(KERNEL_IS_RECENT)(
    "is replaced by another where a keeper has its mounts, whose files stay open",
    async () => {
      await views.close({ keepMounts: false });
      const keeper = new SessionKeeper({ state: path.join(directory, "state"), command: [], log });
      await keeper.open();
      await openViews(1, CRASHING, keeper);
      try {
        await prepare("a");
        const { target } = await views.mount("a");
        const file = await open(path.join(target, "etc/new"), "w+");
        await file.write("before ");
        writeFileSync(process.env.CRASH_FILE!, "");
        while (!warnings.some((message) => message.includes("has taken over"))) await sleep(1);
        rmSync(process.env.CRASH_FILE!);
        await file.write("after");
        await file.close();
        expect(await readFile(path.join(target, "etc/new"), "utf8")).toBe("before after");
        expect(views.isMounted(views.get("a"))).toBe(true);
        await views.unmount("a", false);
      } finally {
        keeper.close();
      }
    },
  );
});

/** How many requests of a mount the kernel waits for; asks the kernel, not the mount. */
function unansweredRequests(target: string): number {
  const mountinfo = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const device = mountinfo.find((line) => line.includes(` ${target} `))?.split(" ")[2];
  const control = path.join(directory, "control");
  // The one that the machine has or has not mounted elsewhere.
  execFileSync("mkdir", ["-p", control]);
  execFileSync("mount", ["-t", "fusectl", "none", control]);
  try {
    return Number(readFileSync(path.join(control, `${device?.split(":")[1]}/waiting`), "utf8"));
  } finally {
    execFileSync("umount", [control]);
  }
}

describe("a stuck thread", () => {
  const fifo = () => process.env.STUCK_FIFO!;

  /** Mounts a view on a thread that then gets stuck, and a program that waits for it. */
  async function getStuck() {
    await views.close({ keepMounts: false });
    await openViews(1, STUCK);
    await prepare("a");
    const { target } = await views.mount("a");
    await writeFile(path.join(target, "etc/new"), "survives");
    execFileSync("mkfifo", [fifo()]);
    while (!existsSync(`${fifo()}.reached`)) await sleep(5);
    const before = unansweredRequests(target);
    const program = spawn("cat", [path.join(target, "sub/file")], { stdio: ["ignore", 1, "pipe"] });
    const complaint = text(program.stderr!);
    while (unansweredRequests(target) === before) await sleep(5);
    return { target, complaint };
  }

  const release = () => closeSync(openSync(fifo(), "w"));

  it("loses what is unmounted by force, whoever waits for it, until it moves again", async () => {
    const { complaint, target } = await getStuck();
    try {
      const patient = views.unmount("a", false);
      expect((await views.unmount("a", true)).mounted).toBe(false);
      await patient;
      expect(await complaint).toMatch(/connection abort/);
      expect(ourMounts()).toEqual([]);
      await expect(views.mount("a")).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
      await prepare("b");
      expect(cat(path.join((await views.mount("b")).target, "etc/name"))).toBe("base");
    } finally {
      release();
    }
    const mountAgain = () => views.mount("a").catch(() => undefined);
    while ((await mountAgain()) === undefined) await sleep(5);
    expect(cat(path.join(target, "etc/new"))).toBe("survives");
  });

  it("gives way to the work that waits for it, and to the removal of its view", async () => {
    const { complaint } = await getStuck();
    try {
      const changes = views.changes("a", () => undefined).catch((error: Error) => error);
      await views.remove("a", true);
      expect(await changes).toBeInstanceOf(Error);
      await complaint;
      expect([views.list(), ourMounts(), defaultTargets()]).toEqual([[], [], []]);
    } finally {
      release();
    }
  });

  it("does not keep everything from ending", async () => {
    const { complaint } = await getStuck();
    try {
      await views.close({ keepMounts: false });
      await complaint;
      expect(ourMounts()).toEqual([]);
      expect(liveThreads()).toBeGreaterThan(0);
    } finally {
      release();
    }
  });
});

describe("a view", () => {
  it("has an upper directory that looks like the image's root once it was mounted", async () => {
    const view = await prepare("v");
    await views.mount("v");
    const upper = statSync(views.upperDir(view)!);
    const lower = statSync(snapshots.layerDirs(chainId)[0]!);
    expect([upper.mode, upper.uid, upper.mtimeMs]).toEqual([lower.mode, lower.uid, lower.mtimeMs]);
  });

  it("that was never mounted looks like the image's root to who reads its upper directory", async () => {
    await prepare("v");
    const lower = statSync(snapshots.layerDirs(chainId)[0]!);
    await views.withUpper("v", async (_view, upper) => {
      const { mode, uid, mtimeMs } = statSync(upper!.upperDir);
      expect([mode, uid, mtimeMs]).toEqual([lower.mode, lower.uid, lower.mtimeMs]);
    });
  });

  it("of an image without layers is an empty root that can be written", async () => {
    await prepare("empty", { chain: undefined });
    const { target } = await views.mount("empty");
    expect(readdirSync(target)).toEqual([]);
    writeFileSync(path.join(target, "file"), "x");
    const changes: string[] = [];
    await views.changes("empty", (batch) => {
      changes.push(...batch.map(({ kind, path }) => `${kind} ${path}`));
    });
    expect(changes).toEqual(["A /file"]);
  });

  it("has the I/O mode that it was last asked to have", async () => {
    const best = KERNEL_IS_RECENT ? "passthrough" : "cached";
    await prepare("v");
    // Not asked: the daemon's default, which is cached for what can be written to.
    expect(views.ioInUse(await views.mount("v"))).toBe("cached");
    await views.unmount("v", false);
    expect(views.ioInUse(views.get("v"))).toBeUndefined();
    expect(views.ioInUse(await views.mount("v", undefined, { io: "passthrough" }))).toBe(best);
    await views.unmount("v", false);
    const again = await views.mount("v");
    expect([again.io, views.ioInUse(again)]).toEqual(["passthrough", best]);
    writeFileSync(path.join(again.target, "etc/new"), "x".repeat(1 << 20));
    expect(statSync(path.join(views.upperDir(again)!, "etc/new")).size).toBe(1 << 20);
    await prepare("fixed", { readOnly: true });
    expect(views.ioInUse(await views.mount("fixed"))).toBe(best);
    // Who asked for it hears that it is not to be had: two mounts of "v"; "fixed" left it to varve.
    const noPassthrough = expect.stringMatching(/no passthrough: this needs Linux 6\.9/);
    expect(warnings).toEqual(KERNEL_IS_RECENT ? [] : [noPassthrough, noPassthrough]);
  });

  it("is created by one of those who ask for a name at once", async () => {
    const results = await Promise.allSettled([1, 2, 3].map(() => prepare("same")));
    const codes = results.map((result) =>
      result.status === "fulfilled" ? "made" : (result.reason as { code: string }).code,
    );
    expect(codes.sort()).toEqual(["ALREADY_EXISTS", "ALREADY_EXISTS", "made"]);
    expect(readdirSync(path.join(directory, "views"))).toHaveLength(1);
  });

  it("is mounted by one of those who ask at once", async () => {
    await prepare("same");
    const results = await Promise.allSettled([1, 2, 3].map(() => views.mount("same")));
    expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
    expect(ourMounts()).toHaveLength(1);
  });

  it("needs its chain", async () => {
    await expect(prepare("lost", { chain: digestOf("nothing") })).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    expect(readdirSync(path.join(directory, "views"))).toEqual([]);
  });

  it("is mounted where a symlink leads, and found there", async () => {
    mkdirSync(path.join(directory, "real"));
    symlinkSync(path.join(directory, "real"), path.join(directory, "link"));
    await prepare("v");
    const { target } = await views.mount("v", path.join(directory, "link"));
    expect(target).toBe(path.join(directory, "real"));
    expect(ourMounts()).toEqual([target]);
  });

  it("leaves nothing mounted or made when mounting fails", async () => {
    const view = await prepare("v");
    rmSync(views.upperDir(view)!, { recursive: true });
    const target = path.join(directory, "new-target");
    await expect(views.mount("v", target)).rejects.toThrow();
    expect(existsSync(target)).toBe(false);
    expect(ourMounts()).toEqual([]);
    expect(views.get("v").mounted).toBe(false);
  });

  it("waits for the work on it that is under way", async () => {
    await prepare("v");
    const order: string[] = [];
    const holding = views.withUpper("v", async () => {
      await sleep(50);
      order.push("work");
    });
    await views.remove("v", false).then(() => order.push("removed"));
    await holding;
    expect(order).toEqual(["work", "removed"]);
    await expect(views.mount("v")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("that somebody else unmounted leaves no directory behind once it is removed", async () => {
    await prepare("a");
    const { target } = await views.mount("a");
    execFileSync("umount", [target]);
    while (views.isMounted(views.get("a"))) await sleep(5);
    await views.remove("a", false);
    expect(defaultTargets()).toEqual([]);
  });

  it("keeps a file that was deleted while a program has it open", async () => {
    await prepare("v");
    const { target } = await views.mount("v");
    const script = 'exec 3< "$1/etc/name"; rm "$1/etc/name"; cat <&3';
    const { stdout } = spawnSync("sh", ["-c", script, "sh", target], { encoding: "utf8" });
    expect(stdout).toBe("base");
    await views.unmount("v", false);
  });
});

describe("a start", () => {
  it("removes directories of no view", async () => {
    await prepare("kept");
    mkdirSync(path.join(directory, "views/.tmp-x/upper/deep"), { recursive: true });
    mkdirSync(path.join(directory, "views/0123456789abcdef/upper"), { recursive: true });
    await openViews();
    expect(readdirSync(path.join(directory, "views"))).toEqual([views.get("kept").id]);
  });
});
