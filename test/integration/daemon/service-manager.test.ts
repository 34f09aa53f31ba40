/** Views outlive their daemon without a keeper of ours when the service manager keeps descriptors. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { isListening } from "../../../src/client/autostart.js";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { DaemonSandbox, isAlive, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const PROGRAM = path.join(import.meta.dirname, "service-manager.py");
const ENTRY = path.resolve(import.meta.dirname, "../../../dist/daemon/bundle/main.mjs");

let sandbox: DaemonSandbox;
let manager: ChildProcess;

beforeEach(async () => {
  sandbox = new DaemonSandbox();
  const flags = ["--root", sandbox.path("root"), "--state", sandbox.path("state")];
  const service = [process.execPath, ENTRY, ...flags, "--io", "passthrough"];
  manager = spawn("python3", [PROGRAM, sandbox.directory, ...service], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  while (!existsSync(sandbox.path("ready"))) await sleep(10);
  await sandbox.load(makeLayout(sandbox.path("layout")));
});
afterEach(async () => {
  const ended = once(manager, "exit");
  await sandbox.client.shutdown().catch(() => manager.kill("SIGKILL"));
  await ended;
  await sandbox.dispose();
});

const given = () => readFileSync(sandbox.path("given"), "utf8").split("\n").filter(Boolean);

async function killDaemon(): Promise<void> {
  const pid = sandbox.currentPid;
  process.kill(pid, "SIGKILL");
  while (!isAlive(sandbox.currentPid) || sandbox.currentPid === pid) await sleep(10);
  while (!(await isListening(sandbox.socket))) await sleep(10);
  // It listens before it is ready, and answers when it is.
  await sandbox.client.version();
}

it.runIf(KERNEL_IS_RECENT)(
  "which gives them to the daemon that it starts next, and forgets what is unmounted",
  async () => {
    const views = [];
    for (const name of ["one", "two", "three"]) {
      views.push(await sandbox.mount({ image: "small", name }));
    }
    expect(existsSync(sandbox.path("state/keeper.sock"))).toBe(false);
    const files = views.map(({ target }) => path.join(target, "data/file"));
    const open = files.map((file) => openSync(file, "r+"));
    for (const fd of open) writeSync(fd, "1");
    await killDaemon();
    expect(given().sort()).toEqual(views.map(({ id }) => `varve-${id}`).sort());
    for (const fd of open) writeSync(fd, "2");
    closeSync(open.pop()!);
    await sandbox.client.unmountView({ name: "three" });
    // Nobody answers for it while it goes.
    const pid = sandbox.currentPid;
    process.kill(pid, "SIGSTOP");
    run("umount", "-l", views[1]!.target);
    closeSync(open.pop()!);
    process.kill(pid, "SIGCONT");
    await killDaemon();
    for (const fd of open) {
      writeSync(fd, "3");
      closeSync(fd);
    }
    expect(readFileSync(files[0]!, "utf8")).toBe("123e\n");
    expect(sandbox.mounts()).toEqual([views[0]!.target]);
    while ((await sandbox.client.inspectView({ name: "two" })).view?.mounted === true)
      await sleep(10);
    await killDaemon();
    expect(given()).toEqual([`varve-${views[0]!.id}`]);
    writeFileSync(files[0]!, "again");
    expect(await sandbox.diff("one")).toContain("C /data/file");
  },
);
