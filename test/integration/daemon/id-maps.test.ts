/** Views whose owners are shown as other users of the host. */

import { execFileSync, spawnSync } from "node:child_process";
import { lstatSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isListening } from "../../../src/client/autostart.js";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

/** Container 0 to 999 are the host's 700000 to 700999. */
const BASE = 700_000;
const uidMaps = [`0:${BASE}:1000`];
/** A shell as root of a user namespace with this mapping. */
const IN_NAMESPACE = `
import ctypes, os, sys
made, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    CLONE_NEWUSER = 0x10000000
    ctypes.CDLL(None).unshare(CLONE_NEWUSER)
    os.write(made[1], b".")
    os.read(go[0], 1)
    os.setgid(0)
    os.setuid(0)
    os.execvp("sh", ["sh", "-c", sys.argv[1], "sh", sys.argv[2]])
os.read(made[0], 1)
for kind in "uid", "gid":
    with open(f"/proc/{child}/{kind}_map", "w") as file:
        file.write("0 ${BASE} 1000")
os.write(go[1], b".")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))`;
let sandbox: DaemonSandbox;

beforeEach(async () => {
  sandbox = new DaemonSandbox();
  execFileSync("chmod", ["711", sandbox.directory]);
});

afterEach(() => sandbox.dispose());

async function start(...flags: string[]): Promise<void> {
  await sandbox.start(...flags);
  await sandbox.load(makeLayout(sandbox.path("layout")));
}

/** Runs a shell script as a user of the host. */
function as(id: number, script: string, ...args: string[]) {
  const who = [`--reuid=${id}`, `--regid=${id}`, "--clear-groups"];
  const result = spawnSync("setpriv", [...who, "sh", "-c", script, "sh", ...args], {
    encoding: "utf8",
  });
  return { status: result.status, output: result.stdout + result.stderr };
}

const owner = (file: string) => [lstatSync(file).uid, lstatSync(file).gid];

describe.each(["cached", "passthrough"])("a view with mapped owners, %s", (io) => {
  it("shows host IDs, and has the image's on disk and in the commit", async () => {
    await start("--io", io);
    const view = await sandbox.mount({ image: "small", name: "m", uidMaps });
    expect([view.uidMaps, view.gidMaps]).toEqual([uidMaps, uidMaps]);
    const { target, upperDir } = view;
    expect(owner(target)).toEqual([BASE, BASE]);
    expect(owner(path.join(target, "data/file"))).toEqual([BASE, BASE]);
    const script = `cd "$1/data" && mkdir made && echo x >made/new && ln -s new made/link &&
      chmod 640 file && chown 33:44 top && setfacl -m u:5:rw file && setcap cap_net_raw+ep deep/er/x && stat -c %u:%g top`;
    expect(run("python3", "-c", IN_NAMESPACE, script, target)).toEqual({
      ...{ status: 0, output: "33:44" },
    });
    expect(owner(path.join(target, "data/made/new"))).toEqual([BASE, BASE]);
    expect(owner(path.join(target, "data/top"))).toEqual([BASE + 33, BASE + 44]);
    expect(owner(path.join(upperDir, "data/made/new"))).toEqual([0, 0]);
    expect(owner(path.join(upperDir, "data/made/link"))).toEqual([0, 0]);
    expect(owner(path.join(upperDir, "data/top"))).toEqual([33, 44]);
    const acl = (root: string) => run("getfacl", "-cn", path.join(root, "data/file")).output;
    expect(acl(target)).toContain(`user:${BASE + 5}:rw-`);
    expect(acl(upperDir)).toContain("user:5:rw-");
    const capabilities = (root: string) => run("getcap", "-n", path.join(root, "data/deep/er/x"));
    expect(capabilities(target).output).toMatch(new RegExp(`cap_net_raw=ep .rootid=${BASE}.$`));
    expect(capabilities(upperDir).output).toMatch(/cap_net_raw=ep$/);
    await sandbox.commit({ name: "m", reference: "mapped" });
    const plain = await sandbox.mount({ image: "mapped", name: "p" });
    expect(owner(path.join(plain.target, "data/made/new"))).toEqual([0, 0]);
    expect(owner(path.join(plain.target, "data/top"))).toEqual([33, 44]);
    expect(acl(plain.target)).toContain("user:5:rw-");
  });

  it("lets its users do what they may, and nobody else make files", async () => {
    await start("--io", io);
    const { target } = await sandbox.mount({ image: "small", name: "m", uidMaps });
    expect(as(BASE, 'echo mine >"$1/data/mine" && cat "$1/data/mine"', target)).toEqual({
      ...{ status: 0, output: "mine\n" },
    });
    expect(as(BASE + 1, 'echo x >"$1/data/not-mine"', target).output).toMatch(/denied/);
    // Root of the host has no number in the image.
    expect(run("touch", path.join(target, "data/of-root")).output).toMatch(/too large/);
    expect(readFileSync(path.join(target, "data/mine"), "utf8")).toBe("mine\n");
  });
});

describe("the mapping", () => {
  it("belongs to the view: later mounts have it, and the next daemon", async () => {
    await start("--supervise");
    const { target } = await sandbox.mount({ image: "small", name: "m", uidMaps });
    const pid = sandbox.currentPid;
    await sandbox.end("SIGKILL");
    // Where views are kept the keeper starts it, otherwise whoever needs one.
    if (!KERNEL_IS_RECENT) await sandbox.start("--supervise");
    while (sandbox.currentPid === pid || !(await isListening(sandbox.socket))) await sleep(10);
    expect(as(BASE, 'echo x >"$1/data/later"', target)).toMatchObject({ status: 0 });
    await sandbox.client.unmountView({ name: "m" });
    const again = await sandbox.mount({ name: "m" });
    expect(owner(path.join(again.target, "data/later"))).toEqual([BASE, BASE]);
    const change = sandbox.mount({ name: "m", uidMaps: ["0:1:1"] });
    await expect(change).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("is in the bundle, whose container has its root as an ordinary user of the host", async () => {
    await start();
    const { target } = await sandbox.mount({ image: "small", name: "m", uidMaps });
    const directory = sandbox.path("bundle");
    const { configPath } = await sandbox.client.createBundle({ name: "m", directory });
    const config = JSON.parse(readFileSync(configPath, "utf8"));
    const mapping = { containerID: 0, hostID: BASE, size: 1000 };
    expect(config.linux).toMatchObject({ uidMappings: [mapping], gidMappings: [mapping] });
    expect(config.linux.namespaces).toContainEqual({ type: "user" });
    expect(statSync(target).uid).toBe(BASE);
  });
});
