/**
 * Random work in a real kernel overlay: whatever it leaves in the upper, the index built with that
 * upper as a layer, and the layer packed from it, must both be the tree that the mount shows.
 */

import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import { packLayer } from "../../../src/layers/pack.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { shell, Workbench } from "./kernel-overlay.js";

let bench: Workbench;

beforeEach(() => {
  bench = new Workbench();
});

afterEach(() => bench.dispose());

const BASE = `
  mkdir -p a/b/c d/e f; for i in 1 2 3; do echo $i > a/f$i; echo $i > a/b/g$i; echo $i > d/e/h$i; done
  echo x > a/b/c/deep; ln -s ../a d/link; mkfifo f/pipe; setfattr -n user.k -v v a/b
  find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
`;

type Step = readonly [operation: number, first: number, second: number];

/** All paths below a mount, sorted, directories too. */
function paths(root: string): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).sort();
}

/** Does one thing; what is not possible there fails and does not matter. */
function perform(root: string, [operation, first, second]: Step): void {
  const all = paths(root);
  const at = join(root, all[first % Math.max(1, all.length)] ?? "a");
  const other = join(root, all[second % Math.max(1, all.length)] ?? "a");
  const fresh = join(
    statSync(other, { throwIfNoEntry: false })?.isDirectory() ? other : root,
    `n${second % 7}`,
  );
  const operations = [
    () => writeFileSync(fresh, `new ${first}`),
    () => appendFileSync(at, "more"),
    () => mkdirSync(fresh),
    () => renameSync(at, fresh),
    () => renameSync(at, other),
    () => rmSync(at, { recursive: true }),
    () => chmodSync(at, first % 2 === 0 ? 0o700 : 0o640),
    () => chownSync(at, first % 5, 7),
    () => linkSync(at, fresh),
    () => symlinkSync(`t${first}`, fresh),
    () => truncateSync(at, first % 10),
    () => {
      rmSync(at, { recursive: true });
      mkdirSync(at);
    },
  ];
  try {
    operations[operation % operations.length]!();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
  }
}

function build(
  name: string,
  fsDir: string,
  parent?: string,
  implied: ByteString[] = [],
): FlatIndex {
  const outputPath = join(bench.path, `${name}.index`);
  const below =
    parent === undefined ? {} : { parentIndexPath: join(bench.path, `${parent}.index`) };
  buildIndex({
    ...below,
    chainId: name,
    fsDir,
    impliedDirectories: implied,
    outputPath,
    privileged: true,
  });
  return openIndex(outputPath);
}

const OPTIONS = { contents: true };

function withoutRoot(tree: Map<string, string>): Map<string, string> {
  tree.delete("");
  return tree;
}

test("index and packed layer show what the mount showed, after any work in it", async () => {
  let run = 0;
  const steps = fc.array(fc.tuple(fc.nat(11), fc.nat(60), fc.nat(60)), {
    minLength: 1,
    maxLength: 25,
  });
  await fc.assert(
    fc.asyncProperty(steps, async (work) => {
      run += 1;
      const base = bench.directory(`${run}/base`);
      shell(base, BASE);
      const index = build(`${run}/base`, base);
      const upperDir = bench.directory(`${run}/upper`);
      const workDir = bench.directory(`${run}/work`);
      const treeDir = bench.directory(`${run}/tree`);
      const target = bench.mount(
        [base],
        { upperDir, workDir },
        "redirect_dir=on,metacopy=on,index=off",
      );
      for (const step of work) perform(target, step);
      const shown = withoutRoot(describeDisk(target, OPTIONS));
      bench.unmount(target);
      const merged = build(`${run}/merged`, upperDir, `${run}/base`);
      expect(withoutRoot(describeIndex(merged, [base, upperDir], OPTIONS))).toEqual(shown);
      const packed = await packLayer({
        upperDir,
        workDir,
        index,
        layerDirs: [base],
        privileged: true,
        outputPath: join(bench.path, `${run}/layer`),
        compression: "none",
        treeDir,
      });
      const implied = packed.empty ? ["" as ByteString] : packed.impliedDirectories;
      const rebuilt = build(`${run}/tree`, treeDir, `${run}/base`, implied);
      expect(withoutRoot(describeIndex(rebuilt, [base, treeDir], OPTIONS))).toEqual(shown);
      execFileSync("rm", ["-rf", join(bench.path, `${run}`)]);
    }),
    { numRuns: 40 },
  );
});
