/**
 * Random operations on a mounted view and on a plain copy of its tree: every result, every error and the
 * whole tree must agree after each (side-by-side.py has the operations), remounts in between change
 * nothing, and the view's changes, packed as a layer and applied by umoci, give the same tree.
 */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openIndex } from "../../src/layers/index-reader.js";
import { packLayer } from "../../src/layers/pack.js";
import { BENCH_MODES, shell, ViewBench } from "../integration/overlay/view-bench.js";
import { compareTrees, readTree } from "../tools/tree.js";
import { KEPT_BY_UMOCI, umociTree } from "../tools/umoci.js";

const LAYERS = [
  `mkdir -p a/b/c d/e d/f empty many; echo one >a/one; echo two >a/b/two; ln a/one d/uno; ln a/one d/e/eins
   head -c 40000 /dev/zero | tr '\\0' x >a/big; ln -s none a/link; echo deep >a/b/c/deep; echo gone >d/gone
   echo red >d/f/x; ln d/f/x a/b/x; for i in $(seq 60); do echo $i >many/n$i; done; mkfifo d/fifo
   setfattr -n user.k1 -v image a/big; chown 7:65534 a/b d/f; chmod 1777 empty; mkdir hidden; echo x >hidden/y
   find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +`,
  `mkdir -p a/b d hidden; echo three >a/b/three; mknod d/gone c 0 0; echo new >a/new; setfattr -n trusted.overlay.opaque -v y hidden
   find . -exec touch -h -d '2002-02-03 04:05:06.123456789' {} +`,
];
const OPERATIONS = [
  ..."create mkdir mknod symlink link unlink rmdir rename write truncate chmod chown utimens".split(
    " ",
  ),
  ..."setxattr removexattr open close unnamed name pread pwrite ftruncate fchmod fchown".split(" "),
  ..."futimens fallocate seek fsync user map rename open write".split(" "),
  ...[
    "map privately",
    "map open",
    "copy range",
    "open directory",
    "read directory",
    "read directory",
  ],
];
const number = fc.nat(100_000);
const operation = fc.oneof(
  { weight: 60, arbitrary: fc.tuple(fc.constantFrom(...OPERATIONS), number, number, number) },
  { weight: 1, arbitrary: fc.constant(["remount"] as const) },
);

describe.each(BENCH_MODES)("a mounted view (%s)", (io) => {
  let bench: ViewBench;
  let origin: string;
  let plain: string;

  beforeEach(() => {
    bench = new ViewBench(io);
    for (const layer of LAYERS) bench.addLayer(layer);
    origin = path.join(bench.path, "origin");
    plain = path.join(bench.path, "plain");
    // Merged by the kernel, not by us.
    execFileSync("cp", ["-a", bench.mountKernelOverlay(), origin]);
    bench.unmountKernelOverlays();
    execFileSync("touch", ["-r", bench.layerDirs.at(-1)!, origin]);
  });
  afterEach(() => bench.dispose());

  /** Does the operations in both trees; what differed, or nothing. */
  async function sideBySide(script: unknown): Promise<string> {
    // See docs/file-system.md, "What is different from ext4".
    const lenience = io === "passthrough" ? ["--fewer-set-id"] : [];
    const program = path.join(import.meta.dirname, "side-by-side.py");
    const child = spawn("python3", [program, bench.target, plain, ...lenience], { cwd: "/" });
    const ended = once(child, "close");
    const complaint = text(child.stderr);
    child.stdin.write(`${JSON.stringify(script)}\n`);
    let said = "";
    for await (const line of createInterface({ input: child.stdout })) {
      if (line !== "remount") said += line;
      else {
        await bench.remount();
        child.stdin.write("\n");
      }
    }
    await ended;
    return said + (await complaint);
  }

  /** The view's changes as umoci applies them to a copy of the image. */
  async function committed() {
    const layer = path.join(bench.path, "layer.tar");
    rmSync(layer, { force: true });
    const packed = await packLayer({
      upperDir: bench.upperDir,
      workDir: bench.workDir,
      index: openIndex(bench.indexPath),
      layerDirs: bench.layerDirs,
      privileged: true,
      outputPath: layer,
      compression: "none",
    });
    const options = ["-C", origin, "--xattrs", "--numeric-owner", "--format=pax", "-c", "."];
    const image = execFileSync("tar", options);
    const layers = packed.empty ? [image] : [image, readFileSync(layer)];
    return umociTree(layers, path.join(bench.path, "umoci"));
  }

  it("does what a plain tree does, through remounts and into a committed layer", async () => {
    const property = fc.asyncProperty(
      fc.array(operation, { maxLength: 90, size: "max" }),
      async (script) => {
        for (const directory of [plain, bench.upperDir, bench.workDir])
          rmSync(directory, { recursive: true, force: true });
        for (const directory of [bench.upperDir, bench.workDir]) mkdirSync(directory);
        execFileSync("cp", ["-a", origin, plain]);
        await bench.mount();
        try {
          expect(await sideBySide(script)).toBe("");
          expect(bench.warnings).toEqual([]);
          // What a layer cannot hold: sockets, and the device that means a deletion there.
          shell(
            bench.target,
            `find . -type s -delete
             find . -type c -exec sh -c '[ "$(stat -c %t:%T "$1")" != 0:0 ] || rm "$1"' - {} ';'`,
          );
          const shown = readTree(bench.target, KEPT_BY_UMOCI);
          await bench.unmount();
          expect(compareTrees(shown, await committed())).toEqual([]);
        } finally {
          await bench.unmount();
        }
      },
    );
    await fc.assert(property, { numRuns: Number(process.env.VARVE_PROPERTY_RUNS ?? 4) });
  }, 300_000);
});
