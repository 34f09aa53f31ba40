/** The seed corpus of scripts/conformance/fuzz, made anew by the programs that make such files. */

import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";

const SHAPES = [
  ["--format=v7"],
  ["--format=ustar"],
  ["--format=oldgnu", "-S"],
  ["--format=gnu", "-S"],
  ["--format=posix", "--xattrs"],
  ["--format=posix", "-S", "--sparse-version=0.0"],
  ["--format=posix", "-S", "--sparse-version=0.1"],
  ["--format=posix", "-S", "--sparse-version=1.0"],
  ["--format=posix", "--pax-option=globexthdr.name=g,uid=77,SCHILY.xattr.user.k=v"],
];

/** Archives by GNU tar in every format, of a small tree with everything that layers have. */
export function tarSeeds(directory) {
  const tree = mkdtempSync(path.join(directory, "tree-"));
  const at = (...names) => path.join(tree, ...names);
  mkdirSync(at("usr/lib"), { recursive: true });
  mkdirSync(at("d"));
  writeFileSync(at("usr/lib/file"), "content of a file\n".repeat(40));
  writeFileSync(at("d/.wh..wh..opq"), "");
  writeFileSync(at("usr/.wh.gone"), "");
  writeFileSync(at("empty"), "");
  symlinkSync("usr/lib", at("lib"));
  linkSync(at("usr/lib/file"), at("hard"));
  execFileSync("mkfifo", [at("fifo")]);
  execFileSync("bash", [
    "-c",
    'truncate -s 1M "$0"; printf x | dd of="$0" bs=1 seek=500000 conv=notrunc status=none',
    at("sparse"),
  ]);
  const short = ["usr", "d", "empty", "lib", "hard"];
  const seeds = SHAPES.map((shape) => {
    // Elsewhere a megabyte of zeros would take all the time.
    const more = shape.includes("-S") ? ["sparse", "fifo"] : [];
    return tarOf(tree, shape, [...short, ...more]);
  });
  writeFileSync(at("usr", "n".repeat(200)), "long");
  seeds.push(tarOf(tree, ["--format=gnu"], ["usr"]), tarOf(tree, ["--format=posix"], ["usr"]));
  rmSync(tree, { recursive: true });
  return seeds;
}

function tarOf(tree, shape, names) {
  return execFileSync("tar", [
    "-C",
    tree,
    "--numeric-owner",
    "-b1",
    ...shape,
    "-cf",
    "-",
    ...names,
  ]);
}

/** The archives, compressed in several ways. */
export function gzipSeeds(tars) {
  const [first, second] = tars;
  return [
    ...tars.map((tar) => gzipSync(tar)),
    gzipSync(first, { level: 0 }),
    gzipSync(first, { strategy: 4 }), // fixed codes
    Buffer.concat([gzipSync(first), gzipSync(Buffer.alloc(0)), gzipSync(second)]),
    Buffer.concat([gzipSync(first), Buffer.alloc(100)]),
    execFileSync("gzip", ["-9", "-c"], { input: second }),
  ];
}

/** The same with zstd. */
export function zstdSeeds(tars) {
  const zstd = (data, ...args) => execFileSync("zstd", ["-q", "-c", ...args], { input: data });
  const skippable = Buffer.from("502a4d1803000000aabbcc", "hex");
  return [
    zstd(tars[0]),
    zstd(tars[1], "-19"),
    Buffer.concat([skippable, zstd(tars[2]), zstd(tars[3])]),
  ];
}
