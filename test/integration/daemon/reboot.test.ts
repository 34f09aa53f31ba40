/** What becomes of views when the machine goes down, or the daemon is stopped and started. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, expect, it } from "vitest";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

let sandbox: DaemonSandbox;

beforeEach(async () => {
  sandbox = new DaemonSandbox();
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
});
afterEach(() => sandbox.dispose());

/** Everything that a machine loses which goes down: processes, mounts, what is below /run. */
async function reboot(): Promise<void> {
  await sandbox.end("SIGKILL");
  for (const target of sandbox.mounts()) run("umount", "-l", target);
  rmSync(sandbox.path("state"), { recursive: true });
  const database = new BetterSqlite3(sandbox.path("root/varve.db"));
  database.exec("UPDATE views SET boot_id = 'of another boot'");
  database.close();
  await sandbox.start();
}

const mounted = async (name: string) => (await sandbox.client.inspectView({ name })).view?.mounted;

it("after a reboot those marked come back by themselves, others by mount, as they were", async () => {
  const marked = await sandbox.mount({ image: "small", name: "marked", restart: "always" });
  const plain = await sandbox.mount({ image: "small", name: "plain", restart: "no" });
  const elsewhere = sandbox.path("elsewhere");
  const moved = await sandbox.mount({
    ...{ image: "small", name: "moved", target: elsewhere, restart: "always", io: "passthrough" },
  });
  for (const { name, target } of [marked, plain, moved]) {
    writeFileSync(path.join(target, "data/top"), `written in ${name}`);
    rmSync(path.join(target, "data/file"));
  }
  await reboot();
  expect(sandbox.mounts().toSorted()).toEqual([marked.target, elsewhere].toSorted());
  expect(await mounted("plain")).toBe(false);
  await sandbox.mount({ name: "plain" });
  for (const { name, target } of [marked, plain, moved]) {
    expect(readFileSync(path.join(target, "data/top"), "utf8")).toBe(`written in ${name}`);
    expect(await sandbox.diff(name)).toEqual(["C /data", "D /data/file", "C /data/top"]);
  }
  const { view } = await sandbox.client.inspectView({ name: "moved" });
  expect(view).toMatchObject({
    restart: "always",
    ioInUse: KERNEL_IS_RECENT ? "passthrough" : "cached",
  });
});

it("those marked come back at each start of the daemon, until they are unmounted or unmarked", async () => {
  await sandbox.mount({ image: "small", name: "v", restart: "always" });
  const restart = async () => {
    expect(await sandbox.end()).toBe(0);
    expect(sandbox.mounts()).toEqual([]);
    await sandbox.start();
  };
  await restart();
  expect(await mounted("v")).toBe(true);
  await sandbox.client.unmountView({ name: "v" });
  await restart();
  expect(await mounted("v")).toBe(false);
  await sandbox.mount({ name: "v" });
  await restart();
  expect(await mounted("v")).toBe(true);
  await sandbox.client.unmountView({ name: "v" });
  await sandbox.mount({ name: "v", restart: "no" });
  await restart();
  expect(await mounted("v")).toBe(false);
});

it("one that cannot be mounted at one start is tried again at the next", async () => {
  const place = sandbox.path("disk/at");
  mkdirSync(path.dirname(place));
  await sandbox.mount({ image: "small", name: "v", target: place, restart: "always" });
  expect(await sandbox.end()).toBe(0);
  rmSync(path.dirname(place), { recursive: true });
  await sandbox.start();
  expect(await mounted("v")).toBe(false);
  expect(await sandbox.end()).toBe(0);
  mkdirSync(path.dirname(place));
  await sandbox.start();
  expect(sandbox.mounts()).toEqual([place]);
});

it("a policy that there is not is refused", async () => {
  const bad = sandbox.mount({ image: "small", name: "v", restart: "sometimes" });
  await expect(bad).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});
