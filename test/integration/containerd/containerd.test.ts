/** Debian's containerd and runc on our snapshots, from the import of an image to its removal. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isListening } from "../../../src/client/autostart.js";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { DaemonSandbox, isAlive } from "../daemon/daemon-process.js";
import { makeLayout } from "../daemon/small-image.js";
import { ContainerdProcess } from "./containerd-process.js";

const IMAGE = "docker.io/library/small:latest";
const FOREVER = ["/bin/sh", "-c", "while :; do /bin/cat /dev/zero | /bin/cat >/dev/null; done"];
const TIMEOUT_MS = 180_000;

let sandbox: DaemonSandbox;
let containerd: ContainerdProcess;

const startDaemon = (form = "fuse", ...more: string[]) =>
  sandbox.start(
    ...["--containerd-socket", sandbox.path("c.sock"), "--containerd-address", containerd.socket],
    ...["--containerd-mounts", form, ...more],
  );

beforeEach(async () => {
  sandbox = new DaemonSandbox();
  containerd = new ContainerdProcess(sandbox.path("cd"), sandbox.path("c.sock"));
});

afterEach(async () => {
  await containerd.dispose();
  await sandbox.dispose();
});

async function importImage(form?: string, ...more: string[]): Promise<void> {
  await startDaemon(form, ...more);
  await containerd.start();
  mkdirSync(sandbox.path("layout"));
  makeLayout(sandbox.path("layout"), IMAGE);
  execFileSync("tar", ["-C", sandbox.path("layout"), "-cf", sandbox.path("image.tar"), "."]);
  await containerd.ctr("image", "import", "--snapshotter", "varve", sandbox.path("image.tar"));
}

const run = (...args: string[]) => containerd.ctr("run", "--snapshotter", "varve", ...args);

/** Names in the layer that containerd makes of a container's changes. */
async function changes(container: string): Promise<string[]> {
  const layer = await containerd.ctrBytes("snapshots", "--snapshotter", "varve", "diff", container);
  const names = execFileSync("tar", ["-tzf", "-"], { input: layer, encoding: "utf8" });
  return names.split("\n").filter((name) => name !== "" && !name.endsWith("/"));
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A registry on the loopback with the image in it. */
async function startRegistry(port: number, reference: string): Promise<ChildProcess> {
  mkdirSync(sandbox.path("registry"));
  const storage = `storage: { filesystem: { rootdirectory: "${sandbox.path("registry")}" } }`;
  const config = `version: 0.1\n${storage}\nhttp: { addr: "127.0.0.1:${port}" }\n`;
  writeFileSync(sandbox.path("registry.yml"), config);
  const registry = spawn("docker-registry", ["serve", sandbox.path("registry.yml")], {
    stdio: "ignore",
  });
  const flags = ["--retry-times", "10", "--dest-tls-verify=false"];
  const source = `oci:${sandbox.path("layout")}:latest`;
  execFileSync("skopeo", ["copy", ...flags, source, `docker://${reference}`], { stdio: "pipe" });
  return registry;
}

describe("containerd", () => {
  it.each([
    ["fuse", /^varve:\S+ \/ fuse\.varve /m],
    ["overlay", /^overlay \/ overlay /m],
  ])(
    "unpacks, runs, diffs and removes with %s mounts, and nothing is left",
    async (form, root) => {
      await importImage(form);
      await run("--rm", IMAGE, "once", "/bin/cat", "/data/top");
      await run("-d", IMAGE, "box", ...FOREVER);
      expect(await containerd.exec("box", "cat /proc/mounts")).toMatch(root);
      await containerd.exec("box", "echo changed >/data/file; rm -f /data/deep/er/x; echo n >/new");
      expect(await containerd.exec("box", "cat /data/file /data/link /data/top")).toMatch(
        /^changed\n/,
      );
      const changed = await changes("box");
      expect(changed).toEqual(expect.arrayContaining(["data/deep/er/.wh.x", "data/file", "new"]));
      expect(changed.filter((name) => !/^(data|new)/.test(name))).toEqual([]);
      await containerd.stopTask("box");
      await containerd.ctr("container", "rm", "box");
      await containerd.ctr("image", "rm", "--sync", IMAGE);
      expect(readdirSync(sandbox.path("root/containerd"))).toEqual([]);
      expect(sandbox.mounts()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  it(
    "pulls from a registry into our layers",
    async () => {
      await startDaemon();
      await containerd.start();
      mkdirSync(sandbox.path("layout"));
      makeLayout(sandbox.path("layout"), IMAGE);
      const port = await freePort();
      const reference = `127.0.0.1:${port}/small:latest`;
      const registry = await startRegistry(port, reference);
      try {
        await containerd.ctr("image", "pull", "--plain-http", "--snapshotter", "varve", reference);
      } finally {
        registry.kill("SIGKILL");
      }
      await run("-d", reference, "box", ...FOREVER);
      expect(await containerd.exec("box", "cat /data/top")).toBe("top\n");
    },
    TIMEOUT_MS,
  );

  it(
    "finds a stopped container's files again after a restart of varve",
    async () => {
      await importImage();
      await run("-d", IMAGE, "box", ...FOREVER);
      await containerd.exec("box", "echo kept >/data/kept");
      await containerd.stopTask("box");
      expect(await sandbox.end()).toBe(0);
      await startDaemon();
      await containerd.reconnected();
      await containerd.ctr("task", "start", "-d", "box");
      expect(await containerd.exec("box", "cat /data/kept /data/top")).toBe("kept\ntop\n");
    },
    TIMEOUT_MS,
  );

  it(
    "may be restarted itself while a container runs",
    async () => {
      await importImage();
      await run("-d", IMAGE, "box", ...FOREVER);
      await containerd.stop();
      await containerd.start();
      expect(await containerd.exec("box", "echo more >/more; cat /more")).toBe("more\n");
      await containerd.stopTask("box");
      await run("--rm", IMAGE, "again", "/bin/cat", "/data/top");
    },
    TIMEOUT_MS,
  );

  describe.runIf(KERNEL_IS_RECENT)("and varve, while a container runs on a FUSE view", () => {
    // Counts in a file of its root, and ends when that cannot be written.
    const COUNT = "i=0; while echo $i >>/data/log; do i=$((i+1)); /bin/cat /data/top >/log; done";

    async function killVarve(): Promise<void> {
      const pid = sandbox.currentPid;
      process.kill(pid, "SIGKILL");
      const isBack = () => sandbox.currentPid !== pid && isAlive(sandbox.currentPid);
      while (!isBack() || !(await isListening(sandbox.path("c.sock")))) await sleep(10);
    }

    /** Ends as it would for an upgrade, and starts the next one. */
    async function replaceVarve(): Promise<void> {
      expect(await sandbox.end()).toBe(0);
      await startDaemon("fuse", "--supervise", "--keep-mounts");
    }

    async function restartContainerd(): Promise<void> {
      await containerd.stop();
      await containerd.start();
    }

    it.each([
      ["varve dies, then containerd is restarted", [killVarve, restartContainerd]],
      [
        "containerd stops, varve dies, containerd starts",
        [() => containerd.stop(), killVarve, () => containerd.start()],
      ],
      ["varve is replaced, then containerd is restarted", [replaceVarve, restartContainerd]],
      ["containerd is restarted, then varve is replaced", [restartContainerd, replaceVarve]],
    ] as const)(
      "%s: it goes on",
      async (_, steps) => {
        await importImage("fuse", "--supervise", "--keep-mounts");
        await run("-d", IMAGE, "box", "/bin/sh", "-c", COUNT);
        await containerd.exec("box", "echo before >/data/before");
        for (const step of steps) await step();
        await containerd.reconnected();
        const count = async () =>
          (await containerd.exec("box", "cat /data/log")).trim().split("\n");
        const seen = (await count()).length;
        while ((await count()).length === seen) await sleep(20);
        const lines = await count();
        expect(lines).toEqual(lines.map((_line, position) => String(position)));
        expect(await containerd.exec("box", "cat /data/before /data/top")).toBe("before\ntop\n");
        await run("--rm", IMAGE, "another", "/bin/cat", "/data/top");
        await containerd.stopTask("box");
        await containerd.ctr("container", "rm", "box");
        await containerd.ctr("image", "rm", "--sync", IMAGE);
        expect(readdirSync(sandbox.path("root/containerd"))).toEqual([]);
        expect(sandbox.mounts()).toEqual([]);
      },
      TIMEOUT_MS,
    );
  });
});
