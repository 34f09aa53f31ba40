/** No view leads to a path outside its own upper directory and its layers, whatever lies in them. */

import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeIndex, encodeIndex } from "../../../src/layers/index-format.js";
import { openIndex } from "../../../src/layers/index-reader.js";
import { compareTrees, readTree } from "../../tools/tree.js";
import { python } from "./python.js";
import { shell, ViewBench } from "./view-bench.js";

let bench: ViewBench;
let outside: string;
beforeEach(() => {
  bench = new ViewBench();
  outside = join(bench.path, "outside");
  shell(
    bench.path,
    "mkdir -p outside/d/sub; echo secret >outside/file; echo secret >outside/d/file; echo secret >outside/d/large; chmod 600 outside/file",
  );
});
afterEach(() => bench.dispose());

/** Runs `work`, after which the directory outside must be as it was. */
async function untouched(work: () => Promise<void>): Promise<void> {
  const before = readTree(outside);
  await work();
  expect(compareTrees(before, readTree(outside))).toEqual([]);
}

const LINKS = `
  ln -s OUTSIDE absolute; ln -s OUTSIDE/file file; mkdir -p in/deep; ln -s ../../../outside in/deep/up
  ln -s /proc/self/root/OUTSIDE magic; ln -s /proc/self/cwd cwd; mkdir real; echo x >real/file; ln -s real inside
  head -c 20M /dev/zero >real/large`;

describe("a view", () => {
  it("treats symlinks of the image as objects of their own, wherever they lead", () =>
    untouched(async () => {
      bench.addLayer(LINKS.replaceAll("OUTSIDE", outside));
      const view = await bench.mount();
      shell(
        view,
        `for l in absolute file in/deep/up magic cwd; do
           chown -h 7:7 $l; touch -h -d @5 $l; setfattr -h -n trusted.x -v y $l; ln $l $l.hard; mv $l $l.moved; cp -P $l.moved $l
         done
         tar c . | tar t >/dev/null; du -s . >/dev/null; find . -xdev -type f | xargs cat >/dev/null`,
      );
      await bench.remount();
      shell(view, "rm -rf -- *");
      expect(shell(view, "ls -A")).toBe("");
    }));

  it("does not follow what takes a directory's place in a layer", () =>
    untouched(async () => {
      const layer = bench.addLayer(
        "mkdir d e; echo image >d/file; echo image >e/file; mkdir d/sub",
      );
      const view = await bench.mount();
      shell(layer, `rm -r d e; ln -s ${outside}/d d; ln -s ../outside/d e`);
      for (const name of ["d/file", "e/file"]) {
        expect(() => shell(view, `cat ${name}`)).toThrow(/Too many levels/);
        expect(() => shell(view, `echo more >>${name}`)).toThrow(/Too many levels/);
      }
      expect(shell(view, "chmod 700 d; ls d; grep -rs secret . || true")).toBe("file\nsub\n");
    }));

  it("does not follow what takes a directory's place in the upper, at any moment", () =>
    untouched(async () => {
      bench.addLayer(
        "mkdir -p d/sub; echo image >d/file; for i in $(seq 100); do echo $i >d/n$i; done",
      );
      const view = await bench.mount();
      shell(view, "echo changed >>d/file");
      shell(bench.upperDir, `ln -s ${outside}/d other`);
      const EXCHANGE = `import ctypes, os
libc = ctypes.CDLL(None)
while True: libc.renameat2(-100, b"d", -100, b"other", 2)`;
      const swapper = spawn("python3", ["-c", EXCHANGE], { cwd: bench.upperDir });
      // In a chroot: what a symlink means to the program itself is not the view's business.
      const seen = python(
        view,
        `
os.chroot("."); os.chdir("/")
def add(name, text):
    with open(name, "a") as f: f.write(text)
for i in range(1, 101):
    for work in (lambda: add("d/n%d" % i, "x"), lambda: add("d/new%d" % i, "new"), lambda: os.mkdir("d/m%d" % i),
                 lambda: os.rename("d/n%d" % i, "d/sub/n%d" % i), lambda: os.chmod("d/file", 0o700), lambda: add("d/file", "more"),
                 lambda: os.link("d/file", "d/l%d" % i), lambda: os.unlink("d/new%d" % i), lambda: print(open("d/file").read()),
                 lambda: os.setxattr("d/sub", "user.x", b"y"), lambda: os.chown("d/large", 7, 7), lambda: print(os.listdir("d"))):
        attempt(work)
`,
      );
      const ended = new Promise((resolve) => swapper.once("exit", resolve));
      swapper.kill("SIGKILL");
      await ended;
      expect(seen).not.toContain("secret");
    }));

  it("copies up into the directory that it knows, though its name leads elsewhere by the end", () =>
    untouched(async () => {
      bench.addLayer(LINKS.replaceAll("OUTSIDE", outside));
      const view = await bench.mount();
      shell(
        view,
        `(printf X | dd of=real/large bs=1 conv=notrunc status=none) & sleep 0.01
         mv real moved; ln -s ${outside}/d real; wait`,
      );
      expect(shell(view, "head -c 1 moved/large; stat -c %s moved/large")).toBe("X20971520\n");
    }));
});

it("an index whose names lead anywhere is refused", () => {
  bench.addLayer("mkdir d; echo x >d/XXaaaa; echo y >d/zz; echo z >d/y");
  const whole = new Uint8Array(readFileSync(bench.indexPath)).buffer;
  const forged = join(bench.path, "forged");
  const forge = (name: string, other: string) => {
    const { arrays, counts } = decodeIndex(whole.slice(0), "index");
    const names = Buffer.from(arrays.names.buffer, arrays.names.byteOffset, arrays.names.length);
    names.write(other, names.indexOf(name), "latin1");
    writeFileSync(forged, Buffer.concat(encodeIndex(arrays, counts)));
    return openIndex(forged);
  };
  expect(forge("zz", "zx").inodeCount).toBe(5);
  const names = [
    ["XXaaaa", "../../"],
    ["XXaaaa", "a/aaaa"],
    ["XXaaaa", "/aaaaa"],
    ["XXaaaa", "aaaaa\0"],
    ["zz", ".."],
    ["y", "."],
  ] as const;
  for (const [name, other] of names) {
    expect(() => forge(name, other), other).toThrow(/one of its names cannot be a file's/);
  }
});
