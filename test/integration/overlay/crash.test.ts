/** kill -9 of the serving process at any moment leaves an upper directory that is whole. */

import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";
import { shell, ViewBench } from "./view-bench.js";

const LAYER = `
  for d in a b c; do mkdir -p $d/sub; for i in $(seq 60); do echo "$d $i" >$d/f$i; done; done
  head -c 3000000 /dev/urandom >a/big; ln a/f1 b/l1; ln a/f1 c/sub/l2; ln a/big c/big`;

/** Never ends by itself; errors are expected once the server is dead. */
const STORM = `
  n=0
  while :; do n=$((n + 1))
    mkdir d$n; mv a/f$((n % 60)) d$n/x; echo $n >>b/f$((n % 60)); chmod 600 a/big; ln b/l1 d$n/l
    rm c/f$((n % 60)); mv d$n e$n; echo new >c/f$((n % 60)); mv b/sub b/sub$n; mv b/sub$n b/sub
    echo $n >>c/sub/l2; cp -p e$n/x e$n/y; mv e$n/y e$n/x; printf x | dd of=a/big conv=notrunc status=none
    rm -rf e$((n - 3)); mkdir c/f$n.d; rmdir c/f$n.d; ln -s t s$n; touch -d 2001-01-01 a/f$((n % 50))
  done`;

let bench: ViewBench;
beforeEach(async () => {
  bench = new ViewBench();
  bench.addLayer(LAYER);
});
afterEach(async () => {
  await bench.dispose();
});

it("and the next mount goes on where the last one was", async () => {
  for (const milliseconds of [40, 90, 170, 260, 430, 610]) {
    const view = await bench.mount();
    const storm = spawn("bash", ["-c", STORM], { cwd: view, stdio: "ignore", detached: true });
    const ended = new Promise((resolve) => storm.once("exit", resolve));
    await sleep(milliseconds);
    await bench.kill();
    process.kill(-storm.pid!, "SIGKILL");
    await ended;
    await bench.mount();
    const tree = readTree(view);
    shell(view, "find . -type f -exec cat {} + >/dev/null");
    // One file, whatever was copied up and linked when: its names agree.
    expect(
      shell(view, "cat c/sub/l2 | cmp - b/l1 && stat -c %i b/l1 c/sub/l2 | uniq | wc -l"),
    ).toBe("1\n");
    expect(readdirSync(join(bench.workDir, "tmp"))).toEqual([]);
    expect(readdirSync(join(bench.workDir, "orphans"))).toEqual([]);
    await bench.unmount();
    const kernel = bench.mountKernelOverlay();
    const differences = compareTrees(readTree(kernel), tree);
    // A kill between copy-up and linking leaves names that only we still know to be one file.
    expect(differences.filter((line) => !/linkGroup|content/.test(line))).toEqual([]);
    bench.unmountKernelOverlays();
    expect(bench.warnings).toEqual([]);
  }
});
