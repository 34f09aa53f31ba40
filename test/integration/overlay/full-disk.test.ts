/** A full disk under the upper directory: errors pass through, and nothing is lost or half there. */

import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";
import { shell, ViewBench } from "./view-bench.js";

let bench: ViewBench;
let view: string;
beforeEach(async () => {
  bench = new ViewBench();
  bench.addLayer(
    "mkdir d; seq 400000 >d/big; for i in $(seq 50); do echo $i >d/f$i; done; ln d/f1 d/l1",
  );
  // Upper and work directory on a disk of their own, 2 MiB and 200 inodes small.
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=2M,nr_inodes=200", "tmpfs", bench.upperDir]);
  bench.useDisk(bench.upperDir);
  view = await bench.mount();
});
afterEach(async () => {
  await bench.dispose();
});

it("lets a file of the image be read and removed when it cannot be written", async () => {
  const before = shell(view, "sha256sum d/big");
  expect(() => shell(view, "echo x >>d/big")).toThrow(/No space left/);
  expect(shell(view, "sha256sum d/big")).toBe(before);
  shell(view, "chmod 600 d/big");
  expect(() => shell(view, "printf x | dd of=d/big conv=notrunc")).toThrow(/No space left/);
  await bench.remount();
  expect(shell(view, "sha256sum d/big; stat -c %a d/big")).toBe(`${before}600\n`);
  shell(view, "mv d/big d/large");
  expect(shell(view, "sha256sum d/large | cut -c1-64")).toBe(`${before.slice(0, 64)}\n`);
  shell(view, "rm d/large");
  expect(bench.warnings).toEqual([]);
});

it("keeps the view equal to the disk when inodes run out", async () => {
  expect(() => shell(view, "for i in $(seq 300); do mkdir n$i; done")).toThrow(/No space left/);
  for (const attempt of [
    "echo x >>d/f1",
    "rm d/f2",
    "mv d/f3 d/g",
    "ln d/f4 d/k",
    "mkdir q",
    "mv d e",
  ]) {
    expect(() => shell(view, attempt), attempt).toThrow(/No space left/);
  }
  const tree = readTree(view);
  await bench.remount();
  expect(compareTrees(tree, readTree(view))).toEqual([]);
  shell(view, "rmdir n*; rm -r d; mkdir d; echo y >d/y");
  await bench.unmount();
  expect(readdirSync(join(bench.workDir, "tmp"))).toEqual([]);
  expect(bench.warnings).toEqual([]);
});
