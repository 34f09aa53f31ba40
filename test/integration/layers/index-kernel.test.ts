import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { openIndex } from "../../../src/layers/index-reader.js";
import { LiveIndex } from "../../../src/layers/live-index.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { shell, Workbench } from "./kernel-overlay.js";

let bench: Workbench;

beforeEach(() => {
  bench = new Workbench();
});

afterEach(() => bench.dispose());

/** Builds the indexes of a chain of layer trees and returns the last one's path. */
function buildChain(layers: readonly string[], implied: readonly string[] = []): string {
  let parent: string | undefined;
  layers.forEach((fsDir, position) => {
    const outputPath = join(bench.path, `index-${position}-${layers.length}`);
    const isLast = position === layers.length - 1;
    buildIndex({
      ...(parent === undefined ? {} : { parentIndexPath: parent }),
      chainId: `sha256:${position}`,
      fsDir,
      impliedDirectories: isLast ? (implied as ByteString[]) : [],
      outputPath,
      privileged: true,
    });
    parent = outputPath;
  });
  return parent as string;
}

function expectSameAsKernel(layers: readonly string[], implied: readonly string[] = []): void {
  const index = openIndex(buildChain(layers, implied));
  const target = bench.mount(layers, undefined, "redirect_dir=on,metacopy=on");
  const options = { contents: true };
  const shown = describeDisk(target, options);
  expect(describeIndex(index, layers, options)).toEqual(shown);
  if (implied.length === 0) expect(describeLive(layers)).toEqual(shown);
}

/** What an index that reads the layers as it goes says. */
function describeLive(layers: readonly string[]): Map<string, string> {
  const live = new LiveIndex(layers);
  try {
    // It knows a file's names once it has come across them: the second walk knows all.
    describeIndex(live, layers);
    return describeIndex(live, layers, { contents: true });
  } finally {
    live.close();
  }
}

function layer(name: string, script: string): string {
  const path = bench.directory(name);
  shell(path, script);
  return path;
}

/** Applies a script through a real overlay mount and returns the upper that it left. */
function upperOf(name: string, lower: readonly string[], script: string, options: string): string {
  const upperDir = bench.directory(`${name}/upper`);
  const workDir = bench.directory(`${name}/work`);
  const target = bench.mount(lower, { upperDir, workDir }, options);
  shell(target, script);
  bench.unmount(target);
  return upperDir;
}

const BASE = `
  mkdir -p etc usr/lib usr/share/doc var/empty
  echo root > etc/passwd; chmod 640 etc/passwd; chown 3:4 etc/passwd
  echo data > usr/lib/libc.so; ln usr/lib/libc.so usr/lib/libc.so.6; ln usr/lib/libc.so usr/share/c
  ln -s usr/lib lib; mkfifo var/pipe; mknod var/null c 1 3; mknod var/disk b 259 70000
  setfattr -n user.note -v hello etc/passwd; setfattr -n trusted.t -v x usr/lib
  touch -d '2001-02-03 04:05:06.123456789' usr/share/doc
  for i in $(seq 30); do echo $i > usr/share/doc/f$i; done
  printf 'x' > $'name\\nwith\\xffbytes'; chmod 4755 usr/lib/libc.so; chmod 1777 var
`;

describe("the merged tree of an index equals what kernel overlayfs shows", () => {
  test("for one layer", () => {
    expectSameAsKernel([layer("a", BASE)]);
  });

  test("for whiteouts, opaque directories and replaced types", () => {
    const base = layer("a", BASE);
    const top = layer(
      "b",
      `mkdir -p usr/lib etc usr/share/doc var new/deep; mknod etc/passwd c 0 0
       mknod usr/lib/libc.so.6 c 0 0; setfattr -n trusted.overlay.opaque -v y usr/share/doc
       echo only > usr/share/doc/only; mkdir var/pipe; echo in > var/pipe/in; echo f > lib
       mknod new/deep/none c 0 0; chmod 700 usr; echo shadow > etc/shadow; mknod gone c 0 0`,
    );
    expectSameAsKernel([base, top]);
    const third = layer("c", "mkdir -p etc usr; echo again > etc/passwd; mknod usr/share c 0 0");
    expectSameAsKernel([base, top, third]);
  });

  test("for uppers that overlayfs made with redirected directories, as layers", () => {
    const base = layer("a", BASE);
    const first = upperOf(
      "b",
      [base],
      `mv usr/share usr/partage; mv usr opt; mkdir usr; echo new > usr/new; echo x > opt/lib/extra
       mv opt/partage/doc opt/partage/docs; rm opt/partage/docs/f3; mv var/empty void; mv void void2`,
      "redirect_dir=on",
    );
    expectSameAsKernel([base, first]);
    const second = upperOf(
      "c",
      [base, first],
      "mv opt/partage/docs papers; echo y > papers/y; mv opt uhh; mkdir -p opt/lib; rm -r uhh/lib; mv papers uhh/",
      "redirect_dir=on",
    );
    expectSameAsKernel([base, first, second]);
  });

  test("for metacopy files, also renamed and linked ones", () => {
    const base = layer("a", BASE);
    const first = upperOf(
      "b",
      [base],
      `chmod 600 etc/passwd; chown 7:8 usr/share/doc/f1; mv usr/share/doc/f1 usr/f1moved
       touch -d 2005-01-01 usr/share/doc/f2; mv usr/share/doc/f2 usr/share/doc/f2b; ln etc/passwd etc/p2
       mv usr/share/doc documents; chmod 700 documents/f9`,
      "redirect_dir=on,metacopy=on",
    );
    expectSameAsKernel([base, first]);
    const second = upperOf(
      "c",
      [base, first],
      "chown 1 usr/f1moved documents/f9; mv documents/f9 nine; mv usr/f1moved f1again",
      "redirect_dir=on,metacopy=on",
    );
    expectSameAsKernel([base, first, second]);
  });

  test("for a hundred layers", () => {
    const layers: string[] = [];
    for (let i = 0; i < 100; i += 1)
      layers.push(
        layer(
          `l${i}`,
          `mkdir -p d${i % 7}/e${i % 3}; echo ${i} > d${i % 7}/f${i % 11}; echo ${i} > d${i % 7}/e${i % 3}/g${i}
           [ ${i % 5} != 4 ] || mknod d${i % 7}/f${(i + 3) % 11} c 0 0
           [ ${i % 13} != 12 ] || setfattr -n trusted.overlay.opaque -v y d${i % 7}/e${i % 3}`,
        ),
      );
    expectSameAsKernel(layers.slice(0, 5));
    expectSameAsKernel(layers);
  });

  test("for implied directories, whose lower attributes also reach the disk", () => {
    const base = layer(
      "a",
      `${BASE} chmod 700 usr/lib; chown 5:6 usr/lib; mkdir deep; chmod 711 deep`,
    );
    const top = layer("b", "mkdir -p usr/lib deep none; echo n > usr/lib/new; echo m > deep/m");
    expectSameAsKernel([base, top], ["", "./usr/", "usr/lib", "deep", "none"]);
    const index = openIndex(join(bench.path, "index-1-2"));
    expect(index.mode(index.resolve("usr/lib" as ByteString))).toBe(0o40700);
    expect(shell(top, "stat -c '%a %u %g' usr/lib deep")).toBe("700 5 6\n711 0 0\n");
    expect(shell(top, "getfattr --only-values -n trusted.t usr/lib")).toBe("x");
  });

  test("for implied directories over symlinks: the link stays and the files land behind it", () => {
    const base = layer(
      "a",
      `mkdir -p usr/lib/x64/old root; ln -s usr/lib lib; ln -s /usr/../usr/lib/x64 lib64; ln -s lib64/old hop
       ln -s ../../../../etc out; ln -s self self; echo o > usr/lib/x64/old/o`,
    );
    const top = layer(
      "b",
      `mkdir -p lib/x64/old lib64 hop out self usr/lib/x64; echo a > lib/a; echo b > lib64/b; echo c > hop/c
       echo d > out/d; echo e > self/e; echo f > lib/x64/f; mknod hop/o c 0 0; echo g > usr/lib/x64/g
       chmod 755 lib`,
    );
    expectSameAsKernel(
      [base, top],
      ["lib", "lib/x64", "lib/x64/old", "lib64", "hop", "out", "self"],
    );
    const index = openIndex(join(bench.path, "index-1-2"));
    const paths = (path: string) => index.resolve(path as ByteString);
    for (const path of [
      "usr/lib/a",
      "usr/lib/x64/b",
      "usr/lib/x64/old/c",
      "usr/lib/x64/f",
      "out/d",
      "self/e",
    ])
      expect(paths(path), path).toBeGreaterThan(0);
    expect(paths("usr/lib/x64/old/o")).toBe(0);
    expect(index.symlinkTarget(paths("lib"))).toBe("usr/lib");
  });
});

test("a path longer than PATH_MAX is indexed", () => {
  const path = bench.directory("deep");
  const depth = 30;
  // 30 components of 200 bytes: longer than one openat2 path may be.
  shell(
    path,
    `for i in $(seq ${depth}); do mkdir $(printf 'd%.0s' $(seq 200)); cd $(printf 'd%.0s' $(seq 200)); done; echo x > f`,
  );
  const index = openIndex(buildChain([path]));
  expect(index.inodeCount).toBe(depth + 2);
  expect(index.path(index.inodeCount).length).toBe(depth * 201 + 1);
});
