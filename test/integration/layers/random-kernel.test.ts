/**
 * Random work in a real kernel overlay: whatever it leaves in the upper, the index built with that
 * upper as a layer, and the layer packed from it, must both be the tree that the mount shows.
 */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { applyLayer } from "../../../src/layers/apply.js";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import { type PackedLayer, packLayer } from "../../../src/layers/pack.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { shell, Workbench } from "./kernel-overlay.js";
import { OPERATIONS, perform } from "./random-work.mjs";

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

/** Unpacks what was packed; names the directories that the layer only implies. */
async function applyPacked(
  packed: PackedLayer,
  blobPath: string,
  targetDir: string,
): Promise<ByteString[]> {
  if (packed.empty) return ["" as ByteString];
  const { diffId: expectedDiffId, mediaType } = packed;
  const options = { blobPath, mediaType, expectedDiffId, targetDir, privileged: true };
  return (await applyLayer(options)).impliedDirectories;
}

function withoutRoot(tree: Map<string, string>): Map<string, string> {
  tree.delete("");
  return tree;
}

test("index and packed layer show what the mount showed, after any work in it", async () => {
  let run = 0;
  const steps = fc.array(fc.tuple(fc.nat(OPERATIONS - 1), fc.nat(60), fc.nat(60)), {
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
      const blobPath = join(bench.path, `${run}/layer`);
      const packed = await packLayer({
        upperDir,
        workDir,
        index,
        layerDirs: [base],
        privileged: true,
        outputPath: blobPath,
        compression: "none",
      });
      const implied = await applyPacked(packed, blobPath, treeDir);
      const rebuilt = build(`${run}/tree`, treeDir, `${run}/base`, implied);
      expect(withoutRoot(describeIndex(rebuilt, [base, treeDir], OPTIONS))).toEqual(shown);
      execFileSync("rm", ["-rf", join(bench.path, `${run}`)]);
    }),
    { numRuns: 40 },
  );
});
