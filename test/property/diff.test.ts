/**
 * Diff and pack against the index builder: an upper merged over its image directly, and the layer
 * packed from it, must give the same tree; and the changes listed must be the differences between
 * the two trees.
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { applyLayer } from "../../src/layers/apply.js";
import { listChanges } from "../../src/layers/changes.js";
import { buildIndex } from "../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../src/layers/index-reader.js";
import { packLayer } from "../../src/layers/pack.js";
import type { ByteString } from "../../src/system/bytes.js";
import { buildTree, directory, whiteout } from "../unit/layers/tree-builder.js";
import { describeIndex } from "../unit/layers/tree-description.js";
import { baseLayer, type Layer, linkPlaces, upperLayer, withLinks } from "./random-layers.js";

function build(
  root: string,
  name: string,
  fsDir: string,
  parent?: string,
  implied: ByteString[] = [],
): FlatIndex {
  const outputPath = join(root, `${name}.index`);
  const below = parent === undefined ? {} : { parentIndexPath: join(root, `${parent}.index`) };
  buildIndex({
    ...below,
    chainId: name,
    fsDir,
    impliedDirectories: implied,
    outputPath,
    privileged: false,
  });
  return openIndex(outputPath);
}

/** Moves the `choice`-th directory of the image to "moved" in the upper, where that is possible. */
function withMove(upper: Layer, index: FlatIndex, choice: number): Layer {
  const directories: string[] = [];
  for (let inode = 2; inode <= index.inodeCount; inode += 1)
    if (index.isDirectory(inode))
      directories.push(Buffer.from(index.path(inode), "latin1").toString());
  const from = directories[choice % Math.max(1, directories.length)];
  if (from === undefined) return upper;
  const parents = from.split("/").map((_, depth, parts) => parts.slice(0, depth).join("/"));
  const isTaken = Object.keys(upper).some((at) => at === from || at.startsWith(`${from}/`));
  const isHidden = parents.some(
    (at) =>
      upper[at] !== undefined && (upper[at].kind !== "directory" || upper[at].xattrs !== undefined),
  );
  if (isTaken || isHidden) return upper;
  const moved: Layer = {
    ...upper,
    [from]: whiteout,
    moved: directory({ xattrs: { "user.overlay.redirect": `/${from}` } }),
  };
  // Something changed in it, too.
  for (const [at, node] of Object.entries(upper))
    if (choice % 3 === 0 && node.kind !== "hardlink") moved[`moved/${at}`] = node;
  return moved;
}

/** A, C and D from two descriptions. */
function differences(before: Map<string, string>, after: Map<string, string>): string[] {
  const changes = new Map<string, string>();
  for (const [path, line] of after) {
    if (path === "" || before.get(path) === line) continue;
    changes.set(path, before.has(path) ? "C" : "A");
  }
  const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
  for (const path of before.keys()) {
    const isTop = after.get(parentOf(path))?.startsWith("4") === true;
    if (path !== "" && !after.has(path) && isTop) changes.set(path, "D");
  }
  for (const path of [...changes.keys()])
    for (let parent = parentOf(path); parent !== ""; parent = parentOf(parent))
      if (!changes.has(parent)) changes.set(parent, "C");
  return [...changes].map(([path, kind]) => `${kind} /${path}`).sort();
}

const image = fc.tuple(baseLayer, linkPlaces).map(([nodes, places]) => withLinks(nodes, places));
const changed = fc
  .tuple(upperLayer, linkPlaces, fc.boolean())
  .map(([nodes, places, hasLinks]) => (hasLinks ? withLinks(nodes, places) : nodes));

test("a packed upper gives the merged tree again, and its changes are the differences", async () => {
  await fc.assert(
    fc.asyncProperty(image, changed, fc.option(fc.nat(50)), async (base, plainUpper, move) => {
      const root = mkdtempSync(join(tmpdir(), "varve-property-"));
      try {
        const baseDir = buildTree(join(root, "base"), base);
        const index = build(root, "base", baseDir);
        const upper = move === null ? plainUpper : withMove(plainUpper, index, move);
        const upperDir = buildTree(join(root, "upper"), upper);
        const workDir = join(root, "work");
        const appliedDir = join(root, "applied");
        for (const dir of [workDir, appliedDir]) mkdirSync(dir);
        const merged = describeIndex(build(root, "merged", upperDir, "base"), [baseDir, upperDir], {
          contents: true,
        });
        const view = { upperDir, workDir, index, layerDirs: [baseDir], privileged: false };
        const before = describeIndex(index, [baseDir], { contents: true });
        const hasLinks = [...before.values(), ...merged.values()].some((line) =>
          line.includes(" = "),
        );
        const changes = listChanges(view).map(({ kind, path }) => `${kind} ${path}`);
        if (!hasLinks) expect([...changes].sort()).toEqual(differences(before, merged));
        const outputPath = join(root, "layer");
        const packed = await packLayer({ ...view, outputPath, compression: "none" });
        expect(packed.empty).toBe(changes.length === 0);
        if (packed.empty) return;
        const applied = await applyLayer({
          blobPath: outputPath,
          mediaType: packed.mediaType,
          expectedDiffId: packed.diffId,
          targetDir: appliedDir,
          privileged: false,
        });
        const rebuilt = build(root, "applied", appliedDir, "base", applied.impliedDirectories);
        const got = describeIndex(rebuilt, [baseDir, appliedDir], { contents: true });
        for (const tree of [got, merged]) tree.delete("");
        expect(got).toEqual(merged);
      } finally {
        rmSync(root, { recursive: true, force: true });
      }
    }),
    { numRuns: 80 },
  );
});
