/** Users other than root and the daemon's own, whom --socket-group lets in. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { VarveClient } from "../../../src/client/client.js";
import { readMounts } from "../../../src/views/mount-table.js";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const PROJECT = path.resolve(import.meta.dirname, "../../..");
/** A user and a group without names; the user is in the group. */
const GUEST = 64_123;
const GROUP = 64_124;
const sandbox = new DaemonSandbox();
const home = sandbox.path("home");
let guest: VarveClient;
const denied = { code: "PERMISSION_DENIED" };

/** A client whose connection the kernel ascribes to another user. */
async function connectAs(uid: number, groups: number[]): Promise<VarveClient> {
  const client = VarveClient.connect({ socket: sandbox.socket });
  const before = process.getgroups!();
  process.setgroups!(groups);
  process.setegid!(uid);
  process.seteuid!(uid);
  try {
    await client.version();
  } catch (error) {
    client.close();
    throw error;
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
    process.setgroups!(before);
  }
  return client;
}

/** Runs the command line as the guest. */
function varve(...args: string[]) {
  const who = [`--reuid=${GUEST}`, `--regid=${GUEST}`, `--groups=${GROUP}`];
  const command = [process.execPath, sandbox.path("program/bin/varve"), "--no-autostart", ...args];
  const env = { PATH: process.env.PATH, HOME: home, VARVE_SOCKET: sandbox.socket };
  const { status, stdout, stderr } = spawnSync("setpriv", [...who, ...command], {
    ...{ cwd: home, env, encoding: "utf8" },
  });
  return { status, stdout, stderr };
}

beforeAll(async () => {
  chmodSync(sandbox.directory, 0o711);
  await sandbox.start("--socket-group", String(GROUP));
  await sandbox.load(makeLayout(sandbox.path("layout")));
  mkdirSync(home);
  chownSync(home, GUEST, GUEST);
  mkdirSync(sandbox.path("program/dist"), { recursive: true });
  cpSync(path.join(PROJECT, "bin"), sandbox.path("program/bin"), { recursive: true });
  for (const file of ["dist/cli.cjs", "package.json"]) {
    cpSync(path.join(PROJECT, file), sandbox.path("program", file));
  }
  guest = await connectAs(GUEST, [GROUP]);
});

afterAll(async () => {
  guest?.close();
  await sandbox.dispose();
});

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const message of stream) void message;
}

describe("the socket", () => {
  it("belongs to root and the group, and to nobody else", async () => {
    const { mode, uid, gid } = statSync(sandbox.socket);
    expect([mode & 0o777, uid, gid]).toEqual([0o660, 0, GROUP]);
    await expect(connectAs(GUEST, [])).rejects.toMatchObject(denied);
  });

  it("says in the log who asked for what", async () => {
    await guest.listViews({});
    const line = new RegExp(`"uid":${GUEST},"peer":${process.pid},"msg":"ListViews: OK`);
    while (!line.test(sandbox.log)) await sleep(5);
  });
});

describe("a guest who takes what can be had", () => {
  const rssKib = () =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${sandbox.pid}/status`, "utf8"))?.[1]);
  const descriptors = () => readdirSync(`/proc/${sandbox.pid}/fd`).length;

  it("connects and does nothing, or never reads: it costs next to nothing, and others are served", async () => {
    await sandbox.load(
      makeLayout(sandbox.path("large"), "docker.io/library/large:latest", (tree) =>
        writeFileSync(path.join(tree, "noise"), randomBytes(16 << 20)),
      ),
    );
    const [memory, open] = [rssKib(), descriptors()];
    const script = `
      const net = require("node:net"), http2 = require("node:http2");
      const [socket, count] = [process.argv[1], Number(process.argv[2])];
      for (let at = 0; at < 20; at++) {
        const session = http2.connect("http://x", { createConnection: () => net.connect(socket) });
        session.on("error", () => {});
        const call = session.request({ ":method": "POST", ":path": "/varve.v1.Varve/SaveImages", te: "trailers", "content-type": "application/grpc" });
        call.on("error", () => {});
        call.pause();
        const message = Buffer.from("\\n\\x05large");
        call.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]));
      }
      for (let at = 0; at < count; at++) net.connect(socket).on("error", () => {});
      setInterval(() => {}, 1000);
      setTimeout(() => console.log("ready"), 1000);`;
    const who = [`--reuid=${GUEST}`, `--regid=${GUEST}`, `--groups=${GROUP}`, process.execPath];
    const child = spawn("setpriv", [...who, "-e", script, sandbox.socket, "200"], {
      ...{ cwd: home, stdio: ["ignore", "pipe", "inherit"] },
    });
    try {
      await once(child.stdout!, "data");
      // 64 connections for each guest, and what calls that wait have open.
      expect(descriptors() - open).toBeLessThan(64 + 40);
      expect(rssKib() - memory).toBeLessThan(128 * 1024);
      await sandbox.client.version();
      expect((await sandbox.client.listImages({})).images.length).toBeGreaterThan(0);
    } finally {
      child.kill("SIGKILL");
    }
    const ended = () => sandbox.log.match(/"msg":"SaveImages: CANCELLED/g)?.length;
    while (descriptors() > open || ended() !== 20) await sleep(20);
  });
});

describe("a guest whose files are on a FUSE mount, which may be anybody's", () => {
  /** Somebody's file system: another daemon's view, in which the guest may do everything. */
  const other = new DaemonSandbox();
  let mine: string;

  beforeAll(async () => {
    chmodSync(other.directory, 0o711);
    await other.start();
    await other.load(makeLayout(other.path("layout")));
    mine = (await other.mount({ image: "small", name: "mine" })).target;
    execFileSync("cp", [path.join(sandbox.path("layout"), "index.json"), `${mine}/data/file`]);
    execFileSync("chown", ["-R", `${GUEST}:${GUEST}`, `${mine}/data`]);
  });

  afterAll(() => other.dispose());

  it("has them not opened, and nothing made there", async () => {
    const at = (name: string) => path.join(mine, "data", name);
    const load = () => drain(guest.loadImages({ path: at("file") }));
    const save = () => drain(guest.saveImages({ references: ["small"], path: at("new.tar") }));
    await drain(guest.mountView({ image: "small", name: "of-guest" }));
    const bundle = () => guest.createBundle({ name: "of-guest", directory: at("bundle") });
    for (const call of [load, save, bundle]) await expect(call()).rejects.toMatchObject(denied);
    await expect(load()).rejects.toThrow(/FUSE.*varve load < FILE/);
    expect(run("ls", at("")).output.split("\n").sort()).toEqual(["deep", "file", "link", "top"]);
    await sandbox.client.removeView({ name: "of-guest", force: true });
  });

  it("that does not answer takes few threads, and keeps nobody else waiting", async () => {
    const load = () => drain(guest.loadImages({ path: path.join(mine, "data/deep/er/x") }));
    const threads = () => readdirSync(`/proc/${sandbox.pid}/task`).length;
    const before = threads();
    process.kill(other.pid, "SIGSTOP");
    const ends: Promise<string>[] = [];
    try {
      const code = (error: { code: string }) => error.code;
      for (let at = 0; at < 30; at++) ends.push(load().then(() => "loaded", code));
      const refused = new Set<number>();
      for (const [at, end] of ends.entries()) {
        void end.then((text) => text === "RESOURCE_EXHAUSTED" && refused.add(at));
      }
      while (refused.size < 14) await sleep(20);
      expect(threads()).toBeLessThan(before + 16 + 8);
      const archive = sandbox.path("saved.tar");
      await drain(sandbox.client.saveImages({ references: ["small"], path: archive }));
      await drain(sandbox.client.loadImages({ path: archive }));
    } finally {
      process.kill(other.pid, "SIGCONT");
    }
    const codes = (await Promise.all(ends)).sort();
    const wanted = { PERMISSION_DENIED: 16, RESOURCE_EXHAUSTED: 14 };
    const counts = Object.fromEntries(
      [...new Set(codes)].map((one) => [one, codes.filter((code) => code === one).length]),
    );
    expect(counts).toEqual(wanted);
    await expect(load()).rejects.toMatchObject(denied);
  });
});

describe("a guest", () => {
  it("loads, mounts, commits, saves and bundles with rights of its own", () => {
    const archive = path.join(home, "small.tar");
    expect(varve("save", "small", "-o", archive)).toMatchObject({ status: 0, stderr: "" });
    expect([statSync(archive).uid, statSync(archive).mode & 0o777]).toEqual([GUEST, 0o644]);
    expect(varve("load", "-q", "-i", archive)).toMatchObject({ status: 0 });
    const { stdout, status } = varve("mount", "-q", "small", "--name", "g");
    expect(status).toBe(0);
    expect(varve("commit", "-q", "g", "of-guest:1").status).toBe(0);
    const bundle = path.join(home, "bundle");
    expect(varve("bundle", "g", bundle)).toMatchObject({ status: 0 });
    expect(statSync(path.join(bundle, "config.json")).uid).toBe(GUEST);
    expect(JSON.parse(readFileSync(path.join(bundle, "config.json"), "utf8")).root.path).toBe(
      stdout.trim(),
    );
    expect(varve("umount", "g").status).toBe(0);
    expect(varve("rm", "g").status).toBe(0);
  });

  it("gets views in which set-id programs and devices have no effect, also when root mounts them", async () => {
    const { stdout } = varve("mount", "-q", "small", "--name", "plain");
    const options = () => readMounts().find(({ mountPoint }) => mountPoint === stdout.trim());
    const isHarmless = () => {
      const line = readFileSync("/proc/self/mounts", "latin1")
        .split("\n")
        .find((text) => text.includes(` ${stdout.trim()} `));
      return /\bnosuid\b.*\bnodev\b/.test(line ?? "");
    };
    expect(options()).toBeDefined();
    expect(isHarmless()).toBe(true);
    await sandbox.client.unmountView({ name: "plain" });
    await sandbox.mount({ name: "plain" });
    expect(isHarmless()).toBe(true);
    await sandbox.client.removeView({ name: "plain", force: true });
  });

  it("reads no file through the daemon that it may not read itself", async () => {
    const secret = sandbox.path("secret.tar");
    writeFileSync(secret, "secret", { mode: 0o600 });
    const link = path.join(home, "link.tar");
    symlinkSync(secret, link);
    for (const file of [secret, link, "/proc/self/environ", "/proc/self/maps", "/proc/self/fd/0"]) {
      await expect(drain(guest.loadImages({ path: file })), file).rejects.toMatchObject(denied);
    }
    await expect(drain(guest.loadImages({ path: home }))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  it("writes no file through the daemon that it may not write itself", async () => {
    const victim = sandbox.path("victim");
    writeFileSync(victim, "untouched", { mode: 0o644 });
    symlinkSync(victim, path.join(home, "out.tar"));
    for (const file of [victim, path.join(home, "out.tar"), sandbox.path("new.tar")]) {
      const save = guest.saveImages({ references: ["small"], path: file });
      await expect(drain(save), file).rejects.toMatchObject(denied);
    }
    expect(readFileSync(victim, "utf8")).toBe("untouched");
    expect(existsSync(sandbox.path("new.tar"))).toBe(false);
    const layout = { references: ["small"], format: "oci-dir", path: path.join(home, "layout") };
    await expect(drain(guest.saveImages(layout))).rejects.toMatchObject(denied);
  });

  it("leaves no half an archive behind", async () => {
    const file = path.join(home, "half.tar");
    const save = guest.saveImages({ references: ["nothing-like-it"], path: file });
    await expect(drain(save)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(existsSync(file)).toBe(false);
  });

  it("who saves to a disk that is full is told which file, and that is gone again", async () => {
    const disk = sandbox.path("full");
    mkdirSync(disk);
    execFileSync("mount", [
      "-t",
      "tmpfs",
      "-o",
      `size=16k,uid=${GUEST},gid=${GUEST}`,
      "none",
      disk,
    ]);
    try {
      const file = path.join(disk, "archive.tar");
      const save = guest.saveImages({ references: ["small"], path: file });
      const message = expect.stringMatching(`^write ${file}: No space left`);
      await expect(drain(save)).rejects.toMatchObject({ message });
      expect(readdirSync(disk)).toEqual([]);
    } finally {
      execFileSync("umount", [disk]);
    }
  });

  it("makes a bundle only where it may write", async () => {
    const { name } = await sandbox.mount({ image: "small", name: "bundled" });
    const elsewhere = sandbox.path("elsewhere");
    mkdirSync(elsewhere);
    for (const directory of [elsewhere, sandbox.path("new-directory")]) {
      await expect(guest.createBundle({ name, directory })).rejects.toMatchObject(denied);
    }
    expect(existsSync(path.join(elsewhere, "config.json"))).toBe(false);
    expect(existsSync(sandbox.path("new-directory"))).toBe(false);
    await sandbox.client.removeView({ name, force: true });
  });

  it("cannot choose where the daemon mounts", async () => {
    const request = { image: "small", target: path.join(home, "there") };
    await expect(drain(guest.mountView(request))).rejects.toMatchObject(denied);
    expect(existsSync(request.target)).toBe(false);
  });

  it("has the daemon run nothing, read no credentials, and cannot stop it", async () => {
    const run = { kind: "run", args: ["id"], shell: true };
    const copy = { kind: "copy", args: ["/etc/hostname"], destination: "/x" };
    for (const step of [run, copy]) {
      const build = guest.commitStep({ parent: "small", steps: [step] });
      await expect(drain(build)).rejects.toMatchObject(denied);
    }
    const access = { username: "u", password: "p", environment: { HOME: home } };
    await expect(guest.login({ registry: "localhost:1", access })).rejects.toMatchObject(denied);
    await expect(guest.logout({ registry: "localhost:1", access })).rejects.toMatchObject(denied);
    await expect(guest.shutdown()).rejects.toMatchObject(denied);
    await guest.version();
  });
});
