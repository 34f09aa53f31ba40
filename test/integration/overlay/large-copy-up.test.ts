/** Copy-up of much data happens beside the view's other work. */

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import { O_RDONLY } from "../../../src/system/constants.js";
import { shell, ViewBench } from "./view-bench.js";

const MEGABYTES = 256;

/** Whether an upper file still lacks its data. */
function isMetacopy(file: string): boolean {
  const fd = sys.open(toBytes(file), O_RDONLY, 0);
  if (fd < 0) return false;
  const mark = sys.getxattrat(fd, toBytes(""), toBytes("trusted.overlay.metacopy"));
  sys.close(fd);
  return typeof mark !== "number";
}

describe.each(["cached", "passthrough"] as const)("a large file of the image (%s)", (io) => {
  let bench: ViewBench;
  beforeEach(() => {
    bench = new ViewBench(io);
    bench.addLayer(
      `head -c ${MEGABYTES}M /dev/zero | tr '\\0' v >large; truncate -s 100M sparse; echo end >>sparse; echo small >small; touch -d @7 large`,
    );
  });
  afterEach(async () => {
    try {
      expect(bench.warnings).toEqual([]);
    } finally {
      await bench.dispose();
    }
  });

  /** Starts a bash script in the view; `done` tells how it ended. */
  function start(view: string, script: string) {
    const child = spawn("bash", ["-euc", script], { cwd: view });
    const state = { child, isOver: false, done: Promise.resolve<string | number | null>(null) };
    state.done = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        state.isOver = true;
        resolve(signal ?? code);
      });
    });
    return state;
  }

  const write = "printf X | dd of=large bs=1 seek=5 conv=notrunc status=none";

  it("is copied up while others work", async () => {
    const view = await bench.mount();
    const writer = start(view, write);
    let servedMeanwhile = 0;
    for (let i = 0; !writer.isOver; i++) {
      // In turn with the event loop, which must learn of the end.
      await new Promise((resolve) => setImmediate(resolve));
      const isUnderWay = isMetacopy(join(bench.upperDir, "large"));
      mkdirSync(join(view, `d${i}`));
      expect(readFileSync(join(view, "small"), "utf8")).toBe("small\n");
      if (isUnderWay && isMetacopy(join(bench.upperDir, "large"))) servedMeanwhile++;
    }
    expect(await writer.done).toBe(0);
    expect(servedMeanwhile).toBeGreaterThan(0);
    expect(shell(view, "head -c 8 large")).toBe("vvvvvXvv");
    shell(
      view,
      "cp --sparse=never large plain; printf v | dd of=plain bs=1 seek=5 conv=notrunc status=none",
    );
    execFileSync("cmp", [join(view, "plain"), join(bench.layerDirs[0]!, "large")]);
    await bench.remount();
    expect(shell(view, "head -c 8 large")).toBe("vvvvvXvv");
  });

  it("keeps its times when it is opened for writing and not written to", async () => {
    const view = await bench.mount();
    const script = "exec 3<>large; stat -c %Y large; chmod 600 large; stat -c '%Y %a' large";
    expect(shell(view, script)).toBe("7\n7 600\n");
  });

  it("keeps its holes", async () => {
    const view = await bench.mount();
    shell(view, "echo more >>sparse");
    expect(Number(shell(bench.upperDir, "stat -c %b sparse"))).toBeLessThan(100);
    expect(shell(view, "tail -n 2 sparse | tail -c 9; stat -c %s sparse")).toBe(
      `end\nmore\n${(100 << 20) + 9}\n`,
    );
  });

  it("many writers wait for one copy, and all of their bytes arrive", async () => {
    const view = await bench.mount();
    const writers = [1, 2, 3, 4, 5].map((n) =>
      start(view, `printf ${n} | dd of=large bs=1 seek=${n} conv=notrunc status=none`),
    );
    const truncater = start(view, "truncate -s +10 large");
    for (const { done } of [...writers, truncater]) expect(await done).toBe(0);
    expect(shell(view, "head -c 7 large; stat -c ' %s' large")).toBe(
      `v12345v ${(MEGABYTES << 20) + 10}\n`,
    );
  });

  it("lets a caller go who is killed meanwhile, and is whole for the next", async () => {
    const view = await bench.mount();
    const writer = start(
      view,
      `echo started; exec python3 -c '
import os
f = os.open("large", os.O_WRONLY); os.pwrite(f, b"X", 5)'`,
    );
    await new Promise((resolve) => writer.child.stdout.once("data", resolve));
    writer.child.kill("SIGKILL");
    expect(["SIGKILL", 0]).toContain(await writer.done);
    shell(view, "printf Y | dd of=large bs=1 seek=6 conv=notrunc status=none");
    expect(shell(view, "head -c 8 large; stat -c ' %s' large")).toMatch(
      new RegExp(`^vvvvv[vX]Yv ${MEGABYTES << 20}\\n$`),
    );
  });

  it("can be read, and takes no space, when the disk is too full to copy it", async () => {
    const disk = join(bench.path, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", disk]);
    bench.useDisk(disk);
    const view = await bench.mount();
    expect(() => shell(view, write)).toThrow(/No space left/);
    expect(() => shell(view, write)).toThrow(/No space left/);
    expect(statfsSync(disk).bavail * statfsSync(disk).bsize).toBeGreaterThan(7 << 20);
    expect(shell(view, "head -c 8 large; chmod 600 large; echo new >>small; tail -n 1 small")).toBe(
      "vvvvvvvvnew\n",
    );
    shell(view, "echo short >large; cat large");
  });
});
