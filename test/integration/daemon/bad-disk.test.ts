/** The store's disk is full, out of inodes, read-only or broken: the right errors, nothing damaged, and work goes on after. */

import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const SMALL = "docker.io/library/small:latest";
let sandbox: DaemonSandbox;
let target: string;

beforeEach(() => {
  sandbox = new DaemonSandbox();
});

afterEach(async () => {
  await sandbox.end("SIGKILL");
  await sandbox.dispose();
});

/** A store on an ext4 of its own, with an image, a view of it, and another image to be loaded. */
async function startOnDisk(...options: string[]): Promise<void> {
  makeDisk(sandbox.path("root"), 48, "mkfs.ext4", "-q", "-F", "-m", "0", ...options);
  await fillStore();
}

function makeDisk(target: string, mib: number, ...mkfs: [string, ...string[]]): void {
  const image = sandbox.path("disk");
  writeFileSync(image, "");
  truncateSync(image, mib * 1024 * 1024);
  execFileSync(mkfs[0], [...mkfs.slice(1), image]);
  mkdirSync(target);
  execFileSync("mount", ["-o", "loop", image, target]);
}

async function fillStore(): Promise<void> {
  await sandbox.start("--io=cached");
  await sandbox.load(makeLayout(sandbox.path("layout")));
  target = (await sandbox.mount({ image: "small", name: "v" })).target;
  writeFileSync(inView("before"), "before");
  const other = (tree: string) => writeFileSync(path.join(tree, "other"), Buffer.alloc(100_000, 1));
  makeLayout(sandbox.path("other"), "docker.io/library/other:latest", other);
}

const inView = (name: string) => path.join(target, "data", name);

function codeOf(work: () => void): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

/** What each command says when the disk takes no more. */
async function expectRefused(code: string, message: RegExp): Promise<void> {
  const { client } = sandbox;
  const refused = { code, message: expect.stringMatching(message) };
  const tries: [string, () => Promise<unknown>][] = [
    ["load", () => sandbox.load(sandbox.path("other"))],
    ["mount", () => sandbox.mount({ image: "small", name: "w" })],
    ["commit", () => sandbox.commit({ name: "v", reference: "made:1" })],
    ["tag", () => client.tagImage({ source: "small", target: "tagged:1" })],
  ];
  for (const [what, attempt] of tries) {
    const outcome = await attempt().then(
      () => ({ code: `${what} succeeded` }),
      (error: Error) => error,
    );
    expect({ what, ...outcome, message: (outcome as Error).message }).toMatchObject({
      what,
      ...refused,
    });
  }
}

/** @param verifyContent needs space for a second tree of each layer */
async function expectSound(verifyContent = true): Promise<void> {
  for await (const { fault } of sandbox.client.checkStore({ verifyContent })) {
    expect(fault).toBeUndefined();
  }
  expect(readFileSync(inView("before"), "utf8")).toBe("before");
}

/** Everything that was refused before is done now. */
async function expectWork(): Promise<void> {
  writeFileSync(inView("after"), "after");
  await sandbox.load(sandbox.path("other"));
  await sandbox.mount({ image: "other", name: "w" });
  const made = await sandbox.commit({ name: "v", reference: "made:1" });
  await sandbox.unpack(made.id);
  await sandbox.client.tagImage({ source: "small", target: "tagged:1" });
  await expectSound();
  const { images } = await sandbox.client.listImages({});
  expect(images.flatMap((image) => image.repoTags).sort()).toEqual([
    "docker.io/library/made:1",
    "docker.io/library/other:latest",
    SMALL,
    "docker.io/library/tagged:1",
  ]);
}

/** Takes all blocks that are left. */
function fill(file: string): void {
  const fd = openSync(file, "w");
  for (let size = 1 << 20; size >= 512; ) {
    try {
      writeSync(fd, Buffer.alloc(size, 7));
    } catch {
      size /= 2;
    }
  }
  closeSync(fd);
}

describe("a full disk", () => {
  it("gives ENOSPC in the view and a clear error from commands, and is forgotten when there is space", async () => {
    await startOnDisk();
    fill(sandbox.path("root/filler"));
    expect(codeOf(() => writeFileSync(inView("new"), Buffer.alloc(200_000)))).toBe("ENOSPC");
    await expectRefused("RESOURCE_EXHAUSTED", /no space left.*free some/s);
    await expectSound(false);
    rmSync(sandbox.path("root/filler"));
    await expectWork();
  });
});

describe("a quota", () => {
  it("gives EDQUOT in the view and a clear error from commands, and work goes on when it is raised", async () => {
    // The quota of a subvolume: it holds for root, too, and needs no quota files.
    const top = sandbox.path("whole-disk");
    makeDisk(top, 256, "mkfs.btrfs", "-q");
    const btrfs = (...words: string[]) => execFileSync("btrfs", words, { stdio: "pipe" });
    btrfs("quota", "enable", top);
    btrfs("subvolume", "create", path.join(top, "store"));
    mkdirSync(sandbox.path("root"));
    execFileSync("mount", ["--bind", path.join(top, "store"), sandbox.path("root")]);
    const limit = (size: string) => btrfs("qgroup", "limit", size, "0/256", top);
    await fillStore();
    execFileSync("sync", ["-f", sandbox.path("root")]);
    limit("1m");
    // Node has no name for it.
    const { stderr } = spawnSync("dd", [
      "if=/dev/zero",
      `of=${inView("new")}`,
      "bs=200k",
      "count=1",
    ]);
    expect(String(stderr)).toMatch(/quota exceeded/i);
    await expectRefused("RESOURCE_EXHAUSTED", /quota/i);
    limit("none");
    await expectWork();
  });
});

describe("a disk without inodes", () => {
  it("is dealt with the same way", async () => {
    await startOnDisk("-N", "400");
    const fillers = sandbox.path("root/fillers");
    mkdirSync(fillers);
    let count = 0;
    const code = codeOf(() => {
      for (;;) writeFileSync(path.join(fillers, String(count++)), "");
    });
    expect(code).toBe("ENOSPC");
    expect(codeOf(() => writeFileSync(inView("new"), ""))).toBe("ENOSPC");
    const outcome = await sandbox.load(sandbox.path("other")).catch((error: Error) => error);
    expect(outcome).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    await expectSound(false);
    rmSync(fillers, { recursive: true });
    rmSync(inView("new"), { force: true });
    await expectWork();
  });
});

describe("a disk that became read-only", () => {
  it("gives EROFS in the view, names it in commands, and goes on after it was mounted again", async () => {
    await startOnDisk();
    await sandbox.client.unmountView({ name: "v" });
    await sandbox.mount({ name: "v" });
    execFileSync("sync", ["-f", sandbox.path("root")]);
    // What ext4 does when it meets a damaged structure.
    execFileSync("mount", ["-o", "remount,abort", sandbox.path("root")]);
    expect(["EROFS", "EIO"]).toContain(codeOf(() => writeFileSync(inView("new"), "new")));
    const outcome = await sandbox.load(sandbox.path("other")).catch((error: Error) => error);
    expect(["PERMISSION_DENIED", "SYSCALL"]).toContain((outcome as { code?: string }).code);
    await repairDisk();
    await expectWork();
  });
});

describe("a disk that fails", () => {
  it("gives EIO in the view and in commands; nothing that it held before is lost", async () => {
    await startOnDisk();
    await sandbox.client.unmountView({ name: "v" });
    await sandbox.mount({ name: "v" });
    execFileSync("sync", ["-f", sandbox.path("root")]);
    execFileSync("xfs_io", ["-x", "-c", "shutdown", sandbox.path("root")]);
    expect(["EIO", "EROFS"]).toContain(codeOf(() => writeFileSync(inView("new"), "new")));
    const outcome = await sandbox.load(sandbox.path("other")).catch((error: Error) => error);
    expect((outcome as Error).message).toMatch(/I\/O error|input\/output|EIO|read-only/i);
    await repairDisk();
    await expectWork();
  });
});

/** Replays the journal and mounts again, as an administrator would. */
async function repairDisk(): Promise<void> {
  await sandbox.end("SIGKILL");
  for (const mounted of sandbox.mounts().toReversed()) spawnSync("umount", ["-l", mounted]);
  spawnSync("e2fsck", ["-fy", sandbox.path("disk")]);
  execFileSync("mount", ["-o", "loop", sandbox.path("disk"), sandbox.path("root")]);
  await sandbox.start("--io=cached");
  await expectSound();
}
