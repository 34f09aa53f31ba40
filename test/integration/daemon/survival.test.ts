/** Views live on while their daemon dies. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  opendirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isListening } from "../../../src/client/autostart.js";
import type { IoMode } from "../../../src/metadata/view-table.js";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { DaemonSandbox, isAlive, run } from "./daemon-process.js";
import { doRandomOperations } from "./random-operations.js";
import { makeLayout } from "./small-image.js";

let sandbox: DaemonSandbox;
const children: ChildProcess[] = [];

beforeEach(() => {
  sandbox = new DaemonSandbox();
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await sandbox.dispose();
});

async function startWithViews(io: IoMode, ...names: string[]): Promise<string[]> {
  await sandbox.start("--supervise", "--io", io);
  return mountViews(...names);
}

async function mountViews(...names: string[]): Promise<string[]> {
  await sandbox.load(makeLayout(sandbox.path("layout")));
  const targets: string[] = [];
  for (const name of names) targets.push((await sandbox.mount({ image: "small", name })).target);
  return targets;
}

/** A program of the shell's, which says "ready" when it is; resolves then. */
async function startProgram(script: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn("sh", ["-c", script, "sh", ...args], { stdio: ["pipe", "pipe", "inherit"] });
  children.push(child);
  await once(child.stdout!, "data");
  return child;
}

/** The keeper's process: it has the socket's path as its argument. */
function keeperPid(): number {
  const found = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isKeeper(name));
  return Number(found[0] ?? 0);
}

function isKeeper(pid: string): boolean {
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, "latin1");
    return line.includes("varve-keeper\0") && line.includes(sandbox.directory);
  } catch {
    return false;
  }
}

/** True when the process has a connection of a view. */
function holdsConnection(pid: number): boolean {
  const directory = `/proc/${pid}/fd`;
  try {
    return readdirSync(directory).some((fd) => readlinkSync(`${directory}/${fd}`) === "/dev/fuse");
  } catch {
    return false;
  }
}

/** Has the file open, and says what it reads from it, or why not, when it gets a line. */
function startReader(file: string): Promise<ChildProcess> {
  // In one piece: cat writes its name and the reason by themselves.
  return startProgram('exec 5<"$1"; echo ready; read x; echo "$(cat <&5 2>&1)"', file);
}

/** The daemon's views have ended with it; the next one mounts them again, as they were. */
async function expectMountedAgain(target: string, reader: ChildProcess): Promise<void> {
  const missing = () => readFileSync(path.join(target, "data/file"));
  expect(missing).toThrow(expect.objectContaining({ code: "ENOTCONN" }));
  await sandbox.start("--supervise");
  expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
  const answer = once(reader.stdout!, "data");
  reader.stdin!.end("\n");
  // What was open stays with the mount that is gone.
  expect(String(await answer)).toMatch(/not connected/);
}

/** Kills the daemon and waits until another one has taken over. */
async function killDaemon(): Promise<void> {
  const pid = sandbox.currentPid;
  process.kill(pid, "SIGKILL");
  const takenOver = () => isAlive(sandbox.currentPid) && sandbox.currentPid !== pid;
  while (!takenOver() || !(await isListening(sandbox.socket))) await sleep(10);
}

// An older kernel does not send again what nobody has answered, so there views end with their daemon.
const describeKept = describe.runIf(KERNEL_IS_RECENT);

describeKept.each<IoMode>(["cached", "passthrough"])("after a kill of the daemon, %s", (io) => {
  it("random operations go on as if nothing had happened", { timeout: 120_000 }, async () => {
    const targets = await startWithViews(io, "one", "two");
    // In a process of its own: this thread waits for the view while there is no daemon.
    const script = `echo ready; for round in $(seq 8); do sleep 1.$(($round * 7 % 10))
      kill -9 $(cat "$1/daemon.pid") 2>/dev/null; echo x >>"$2"; done`;
    const marks = sandbox.path("kills");
    writeFileSync(marks, "");
    await startProgram(script, sandbox.path("state"), marks);
    const kills = () => readFileSync(marks, "utf8").length / 2;
    for (const [position, target] of targets.entries()) {
      const plain = sandbox.path(`plain-${position}`);
      execFileSync("cp", ["-a", path.join(target, "data"), plain]);
      const isOver = () => kills() >= 4 * (position + 1);
      const seed = Date.now();
      doRandomOperations({ view: path.join(target, "data"), plain, seed, isOver });
    }
    expect(sandbox.mounts().sort()).toEqual(targets.toSorted());
  });

  it("who waits for a commit to have read the view goes on", async () => {
    const [target = ""] = await startWithViews("cached", "v");
    const file = path.join(target, "data/growing");
    await startProgram('head -c 100000000 /dev/urandom >"$1"; echo ready', `${target}/data/noise`);
    await startProgram('echo x >"$1"; echo ready; while :; do echo x >>"$1"; done', file);
    const pid = sandbox.currentPid;
    const commit = async () => {
      for await (const { progress } of sandbox.client.commitView({ name: "v", reference: "new" })) {
        if (progress?.action === "packing" && isAlive(pid)) process.kill(pid, "SIGKILL");
      }
    };
    await expect(commit()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    while (sandbox.currentPid === pid || !(await isListening(sandbox.socket))) await sleep(10);
    const { length } = readFileSync(file);
    while (readFileSync(file).length < length + 20) await sleep(10);
    for await (const { image } of sandbox.client.commitView({ name: "v", reference: "new" })) {
      if (image !== undefined) expect(image.reference).toContain("new");
    }
  });

  it("files stay open, nameless ones too, and locks and inode numbers hold", async () => {
    const [target = ""] = await startWithViews(io, "v");
    const named = path.join(target, "data/file");
    const nameless = path.join(target, "data/nameless");
    const lower = path.join(target, "data/top");
    const inode = run("stat", "-c", "%i", named).output;
    const fd = openSync(nameless, "w+");
    const lowerFd = openSync(lower, "r");
    const content = readFileSync(lower);
    writeSync(fd, "before ");
    rmSync(nameless);
    rmSync(lower);
    const script =
      'exec 9>>"$1"; flock 9; cd "$2"; mkdir gone; cd gone; rmdir ../gone; echo ready; read x; stat -c %h .';
    const holder = await startProgram(script, named, target);
    await killDaemon();
    writeSync(fd, "after");
    const buffer = Buffer.alloc(1000);
    expect(buffer.toString("latin1", 0, readSync(fd, buffer, 0, 1000, 0))).toBe("before after");
    expect(buffer.subarray(0, readSync(lowerFd, buffer, 0, 1000, 0))).toEqual(content);
    const links = [fd, lowerFd].map((open) =>
      run("stat", "-Lc", "%h", `/proc/${process.pid}/fd/${open}`),
    );
    expect(links.map(({ output }) => output)).toEqual(["0", "0"]);
    expect(existsSync(lower)).toBe(false);
    expect(run("stat", "-c", "%i", named).output).toBe(inode);
    expect(run("flock", "-n", named, "true").status).toBe(1);
    const answer = once(holder.stdout!, "data");
    holder.stdin!.end("\n");
    expect(String(await answer).trim()).toBe("0");
    closeSync(fd);
    closeSync(lowerFd);
    const orphans = () =>
      readdirSync(sandbox.path("root/views")).flatMap((id) =>
        readdirSync(sandbox.path("root/views", id, "work/orphans")),
      );
    while (orphans().length > 0) await sleep(20);
  });

  it("a directory that was half read goes on where it was", async () => {
    const [target = ""] = await startWithViews(io, "v");
    const directory = path.join(target, "many");
    mkdirSync(directory);
    const stays = Array.from({ length: 1500 }, (_, number) => `stays-${number}`);
    for (const name of stays) writeFileSync(path.join(directory, name), "");
    const goes = Array.from({ length: 300 }, (_, number) => path.join(directory, `goes-${number}`));
    for (const file of goes) writeFileSync(file, "");
    const stream = opendirSync(directory);
    const seen: string[] = [];
    for (let entry = stream.readSync(); entry !== null; entry = stream.readSync()) {
      seen.push(entry.name);
      if (seen.length % 500 !== 0) continue;
      await killDaemon();
      for (const file of goes.splice(0, 100)) rmSync(file);
      writeFileSync(path.join(directory, `came-${seen.length}`), "");
    }
    stream.closeSync();
    expect(seen.filter((name) => name.startsWith("stays-")).sort()).toEqual(stays.sort());
    expect(new Set(seen).size).toBe(seen.length);
  });

  it("a program that was written to while somebody had it open shows the same to all", async () => {
    const [target = ""] = await startWithViews(io, "v");
    const program = path.join(target, "bin/busybox");
    const before = openSync(program, "r");
    const head = Buffer.alloc(8);
    readSync(before, head, 0, 8, 0);
    const writer = openSync(program, "r+");
    await killDaemon();
    writeSync(writer, "WRITTEN!", 0);
    const inode = run("stat", "-c", "%i", program).output;
    await killDaemon();
    const after = openSync(program, "r");
    for (const fd of [before, writer, after]) {
      readSync(fd, head, 0, 8, 0);
      expect(head.toString()).toBe("WRITTEN!");
      closeSync(fd);
    }
    expect(run("stat", "-c", "%i", program).output).toBe(inode);
  });

  it("mappings go on, and what is written through them is not lost", async () => {
    const [target = ""] = await startWithViews(io, "v");
    const script = `
import mmap, sys
with open(sys.argv[1], "r+b") as file: map = mmap.mmap(file.fileno(), 0)
print("ready", flush=True)
sys.stdin.readline()
map[0:4] = b"MAPS"
map.flush()
print("done", flush=True)`;
    const file = path.join(target, "data/file");
    const holder = await startProgram('exec python3 -c "$1" "$2"', script, file);
    await killDaemon();
    const answer = once(holder.stdout!, "data");
    holder.stdin!.write("\n");
    await answer;
    expect(readFileSync(file, "latin1")).toBe("MAPS\n");
    expect(await sandbox.diff("v")).toContain("C /data/file");
  });

  it("so do they after another daemon took over on purpose", async () => {
    const [target = ""] = await startWithViews(io, "v");
    const file = path.join(target, "data/file");
    const fd = openSync(file, "r+");
    const holder = await startProgram('exec 9<"$1"; flock 9; echo ready; read x', file);
    const first = sandbox.currentPid;
    // Started while this one has a file of the view open: not to be closed by who is forked.
    await sandbox.start("--supervise", "--upgrade");
    while (sandbox.currentPid !== sandbox.pid || isAlive(first)) await sleep(10);
    writeSync(fd, "HERE");
    closeSync(fd);
    expect(readFileSync(file, "latin1")).toBe("HERE\n");
    expect(run("flock", "-n", file, "true").status).toBe(1);
    expect(sandbox.mounts()).toEqual([target]);
    holder.kill();
    await killDaemon();
    expect(readFileSync(file, "latin1")).toBe("HERE\n");
  });

  it("commands find the next daemon, which knows the views", async () => {
    const [target = ""] = await startWithViews(io, "v");
    writeFileSync(path.join(target, "data/written"), "written");
    await killDaemon();
    expect(await sandbox.diff("v")).toEqual(["C /data", "A /data/written"]);
    const { view } = await sandbox.client.inspectView({ name: "v" });
    expect(view).toMatchObject({ mounted: true, target });
    await sandbox.client.unmountView({ name: "v" });
    expect(sandbox.mounts()).toEqual([]);
    expect(readdirSync(sandbox.path("state/sessions"))).toEqual([]);
  });
});

describeKept("the keeper", () => {
  it("is there while something is mounted, and ends with the daemon", async () => {
    await startWithViews("cached");
    expect(keeperPid()).toBe(0);
    await sandbox.mount({ image: "small", name: "v" });
    const pid = keeperPid();
    expect(pid).not.toBe(0);
    await sandbox.client.shutdown();
    while (isAlive(pid)) await sleep(20);
    expect(existsSync(sandbox.path("state/keeper.sock"))).toBe(false);
  });

  it("is replaced when it dies, and then keeps what the old one had", {
    timeout: 30_000,
  }, async () => {
    const [target = ""] = await startWithViews("cached", "v");
    const first = keeperPid();
    process.kill(first, "SIGKILL");
    // It is there before it was given everything.
    while (keeperPid() === first || !holdsConnection(keeperPid())) await sleep(50);
    await killDaemon();
    expect(readFileSync(path.join(target, "data/file"), "utf8")).not.toBe("");
  });

  it("dies with the daemon: programs get an error, and the next daemon mounts the views again", async () => {
    const [target = ""] = await startWithViews("passthrough", "v");
    writeFileSync(path.join(target, "data/written"), "written");
    const holder = await startReader(path.join(target, "data/top"));
    const keeper = keeperPid();
    // Either would start the other anew: a stopped daemon does not see its keeper die.
    process.kill(sandbox.currentPid, "SIGSTOP");
    for (const pid of [keeper, sandbox.currentPid]) process.kill(pid, "SIGKILL");
    expect(await sandbox.end()).toBe(null);
    while (isAlive(keeper)) await sleep(10);
    await expectMountedAgain(target, holder);
  });

  it("keeps views for the next daemon when one is told to leave them mounted", async () => {
    await sandbox.start("--supervise", "--io", "cached", "--keep-mounts");
    await sandbox.load(makeLayout(sandbox.path("layout")));
    const { target } = await sandbox.mount({ image: "small", name: "v" });
    // Not opened here: the next daemon's fork would wait to close it, for that daemon.
    const script = 'exec 5>"$1"; echo ready; read x; echo "still open" >&5; echo done';
    const holder = await startProgram(script, path.join(target, "data/kept"));
    expect(await sandbox.end()).toBe(0);
    expect(sandbox.mounts()).toEqual([target]);
    await sandbox.start("--supervise");
    const answer = once(holder.stdout!, "data");
    holder.stdin!.end("\n");
    await answer;
    expect(readFileSync(path.join(target, "data/kept"), "utf8")).toBe("still open\n");
  });

  it("keeps views when the one that is to take them over cannot start", async () => {
    const [target = ""] = await startWithViews("cached", "v");
    const script = 'exec 5>"$1"; echo ready; read x; echo "still open" >&5; echo done';
    const holder = await startProgram(script, path.join(target, "data/kept"));
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const address = `127.0.0.1:${(taken.address() as AddressInfo).port}`;
    const flags = ["--supervise", "--upgrade", "--metrics-address", address];
    // The one that it is to take over from may answer until then.
    await sandbox.tryStart(...flags);
    expect(await sandbox.exitCode()).toBe(1);
    taken.close();
    expect(sandbox.mounts()).toEqual([target]);
    await sandbox.start("--supervise");
    const answer = once(holder.stdout!, "data");
    holder.stdin!.end("\n");
    await answer;
    expect(readFileSync(path.join(target, "data/kept"), "utf8")).toBe("still open\n");
  });
});

// Where nobody can keep views: told not to, or by a kernel that does not send requests again.
describe.each<IoMode>(["cached", "passthrough"])("without a keeper, %s", (io) => {
  it("programs get an error when the daemon dies, and the next one mounts the views again", async () => {
    await sandbox.start("--io", io, ...(KERNEL_IS_RECENT ? [] : ["--supervise"]));
    const [target = ""] = await mountViews("v");
    writeFileSync(path.join(target, "data/written"), "written");
    const reader = await startReader(path.join(target, "data/top"));
    expect(holdsConnection(keeperPid())).toBe(false);
    expect(await sandbox.end("SIGKILL")).toBe(null);
    await expectMountedAgain(target, reader);
  });
});
