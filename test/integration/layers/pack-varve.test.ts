/**
 * Layers packed from the uppers of our own views: hard links that survive copy-up, moved
 * directories, metadata without data. The oracle is a copy of the mounted view made by cp.
 */

import { execFile } from "node:child_process";
import { mkdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FuseSession } from "../../../src/fuse/session.js";
import { applyLayer } from "../../../src/layers/apply.js";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import { type PackedLayer, packLayer } from "../../../src/layers/pack.js";
import { OverlayFileSystem } from "../../../src/overlay/overlay-file-system.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { shell, Workbench } from "./kernel-overlay.js";
import { OPERATIONS } from "./random-work.mjs";

const run = promisify(execFile);

let bench: Workbench;
let session: FuseSession | undefined;

beforeEach(() => {
  bench = new Workbench();
});

afterEach(async () => {
  await unmount();
  bench.dispose();
});

const BASE = `
  mkdir -p a/b/c d/e f; for i in 1 2 3; do echo $i > a/f$i; echo $i > a/b/g$i; echo $i > d/e/h$i; done
  echo linked > a/link; ln a/link a/b/link; ln a/link d/e/link; echo two > f/two; ln f/two a/b/c/two
  echo x > a/b/c/deep; ln -s ../a d/sym; ln -s x f/l1; ln f/l1 f/l2; setfattr -n user.k -v v a/b
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

async function unmount(): Promise<void> {
  const ending = session;
  session = undefined;
  if (ending === undefined) return;
  try {
    await run("umount", [ending.target]);
  } catch {
    await run("umount", ["-l", ending.target]);
  }
}

const OPTIONS = { contents: true };

function withoutRoot(tree: Map<string, string>): Map<string, string> {
  tree.delete("");
  return tree;
}

/** Runs a script in the mount. The shell goes there itself: spawn waits for its child's chdir. */
function script(target: string, text: string): Promise<unknown> {
  return run("bash", ["-euc", `cd ${target}; ${text}`]);
}

/** Removes a file and gives its directory the (whole) second that it had. */
function removeQuietly(path: string): void {
  const { atime, mtime } = statSync(dirname(path));
  rmSync(path);
  utimesSync(dirname(path), atime, mtime);
}

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

/** Does `work` in a view of BASE, packs it, and compares the new chain with what the view showed. */
// Packs it once more whole, as one layer over nothing, which must show the same.
async function roundTrip(
  id: string,
  work: (target: string) => Promise<unknown>,
  /** Names in the view that no layer can hold. */
  omitted: readonly string[] = [],
): Promise<PackedLayer> {
  const base = bench.directory(`${id}/base`);
  shell(base, BASE);
  const index = build(`${id}/base`, base);
  const [target, upperDir, workDir, treeDir] = ["target", "upper", "work", "tree"].map((name) =>
    bench.directory(`${id}/${name}`),
  ) as [string, string, string, string];
  const view = { index, layerDirs: [base], upperDir, workDir, privileged: true };
  session = FuseSession.mount({
    target,
    fileSystem: new OverlayFileSystem(view),
    readOnly: false,
    privileged: true,
    log: { warn: () => {} },
    onEnd: () => {},
  });
  await work(target);
  const copy = bench.directory(`${id}/copy`);
  await run("cp", ["-a", "--sparse=never", `${target}/.`, copy]);
  await unmount();
  const outputPath = join(bench.path, `${id}/layer`);
  const packed = await packLayer({ ...view, outputPath, compression: "none" });
  const implied = await applyPacked(packed, outputPath, treeDir);
  const rebuilt = build(`${id}/tree`, treeDir, `${id}/base`, implied);
  const got = withoutRoot(describeIndex(rebuilt, [base, treeDir], OPTIONS));
  for (const name of omitted) removeQuietly(join(copy, name));
  const want = withoutRoot(describeDisk(copy, OPTIONS));
  expect(got).toEqual(want);
  const wholeDir = bench.directory(`${id}/whole`);
  const whole = { ...view, outputPath, compression: "none", isWhole: true } as const;
  const impliedOfWhole = await applyPacked(await packLayer(whole), outputPath, wholeDir);
  const alone = build(`${id}/whole`, wholeDir, undefined, impliedOfWhole);
  expect(withoutRoot(describeIndex(alone, [wholeDir], OPTIONS))).toEqual(want);
  return packed;
}

test("hard links, moves and metadata changes come out as the view shows them", async () => {
  const text = `
    echo more >> a/b/link; mv a/b b; chmod 600 b/c/two; echo n > b/c/n; ln b/c/n f/n; rm f/l1
    mv d/e d/f; touch -d @5 a/f1; chown 3:4 b/g1; mkdir -p b/c/x/y; mv b/c/x x; rm -r d/f; mkdir d/f
  `;
  await roundTrip("fixed", (target) => script(target, text));
});

test("devices 0:0 that users make are left out with a warning, and what they replaced is gone", async () => {
  const time = "touch -d @7 . a";
  const packed = await roundTrip(
    "devices",
    (target) => script(target, `mknod new c 0 0; rm a/f1; mknod a/f1 c 0 0; ${time}`),
    ["new", "a/f1"],
  );
  expect(packed).toMatchObject({
    warnings: ["a/f1", "new"].map((name) => expect.stringContaining(`${name}: left out`)),
  });
});

test("a view that only looked around packs to nothing", async () => {
  const id = "quiet";
  await roundTrip(id, (target) => script(target, "find . -type f -exec cat {} + ; exec 3<>a/f1"));
  const index = openIndex(join(bench.path, `${id}/base.index`));
  mkdirSync(join(bench.path, "none"));
  const packed = await packLayer({
    index,
    layerDirs: [join(bench.path, `${id}/base`)],
    upperDir: join(bench.path, `${id}/upper`),
    workDir: join(bench.path, `${id}/work`),
    privileged: true,
    outputPath: join(bench.path, "none/layer"),
    compression: "none",
  });
  expect(packed.empty).toBe(true);
});

test("any work in a view comes out as the view shows it", async () => {
  let count = 0;
  const program = new URL("./random-work.mjs", import.meta.url).pathname;
  const steps = fc.array(fc.tuple(fc.nat(OPERATIONS - 1), fc.nat(60), fc.nat(60)), {
    minLength: 1,
    maxLength: 25,
  });
  await fc.assert(
    fc.asyncProperty(steps, async (work) => {
      count += 1;
      const id = `random-${count}`;
      try {
        await roundTrip(id, (target) =>
          run(process.execPath, [program, target, JSON.stringify(work)]),
        );
      } finally {
        await unmount();
        await run("rm", ["-rf", join(bench.path, id)]);
      }
    }),
    { numRuns: 25 },
  );
});
