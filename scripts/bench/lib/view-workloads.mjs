/** What scripts/bench/view measures. */

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { must } from "./measure.mjs";

const program = fileURLToPath(new URL("workload.mjs", import.meta.url));

/**
 * @typedef {object} Workload
 * @property {string} name
 * @property {"warm" | "cold" | "fresh"} state warm: after one untimed run; cold: right after a mount (the disk's own
 *   cache stays warm, for everybody); fresh: on an empty upper
 * @property {(dir: string) => string[]} argv the timed command
 * @property {(dir: string) => string[]} [prepare] an untimed command before it, in the same mount
 * @property {(dir: string) => string[]} [cleanup] an untimed command after it
 * @property {boolean} [remount] mounted again between prepare and the timed command
 * @property {boolean} [selfTimed] the command prints its own time
 */

/**
 * @param {import("./workspace.mjs").Workspace} workspace
 * @param {string} layerDir the base layer's directory, for names and archives that exist in the image
 * @param {{files: number, megabytes: number}} sizes of the created tree and of the big file
 * @returns {Workload[]}
 */
export function viewWorkloads(workspace, layerDir, { files, megabytes }) {
  const small = list(workspace, "small", layerDir, ["-type", "f", "-size", "-17k"]);
  const tree = list(workspace, "tree", layerDir, []);
  const medium = list(workspace, "medium", layerDir, [
    "-type",
    "f",
    "-links",
    "1",
    "-size",
    "+128k",
    "-size",
    "-4096k",
  ]);
  const archive = workspace.path("usr-share.tar");
  must(["tar", "-C", layerDir, "-cf", archive, "usr/share", "etc"]);
  const own =
    (verb, ...args) =>
    (dir) => [process.execPath, program, verb, dir, ...args.map(String)];
  const shell = (script) => (dir) => ["bash", "-c", script, "bash", dir];
  const timed = (name, state, argv, more = {}) => ({ name, state, argv, selfTimed: true, ...more });
  const big = own("writeFile", "big", megabytes);
  const cleanup = (dir) => ["rm", "-f", `${dir}/big`]; // several GB otherwise
  const onColdBigFile = { prepare: big, cleanup, remount: true };
  const grown = own("create", "made", files);
  return [
    { name: "find -ls, cold", state: "cold", argv: shell('find "$1" -xdev -ls >/dev/null') },
    { name: "find -ls, warm", state: "warm", argv: shell('find "$1" -xdev -ls >/dev/null') },
    // Not -f /dev/null: GNU tar would not read the files then.
    {
      name: "tar c, cold",
      state: "cold",
      argv: shell('tar -C "$1" --one-file-system -c . | cat >/dev/null'),
    },
    {
      name: "tar c, warm",
      state: "warm",
      argv: shell('tar -C "$1" --one-file-system -c . | cat >/dev/null'),
    },
    {
      name: "grep -r, cold",
      state: "cold",
      argv: shell('grep -rc --devices=skip no-such-words "$1" >/dev/null || true'),
    },
    {
      name: "grep -r, warm",
      state: "warm",
      argv: shell('grep -rc --devices=skip no-such-words "$1" >/dev/null || true'),
    },
    timed("open/read/close small files, cold", "cold", own("readFiles", small)),
    timed("open/read/close small files, warm", "warm", own("readFiles", small)),
    timed("stat existing x5, warm", "warm", own("stat", tree, 5)),
    timed("stat missing x5, warm", "warm", own("statMissing", tree, 5)),
    timed(`create ${files} files`, "fresh", own("create", "made", files)),
    {
      name: "untar usr/share and etc",
      state: "fresh",
      argv: (dir) => ["tar", "-C", dir, "--one-top-level=untarred", "-xf", archive],
    },
    timed(`rename ${files} files`, "fresh", own("rename", "made"), { prepare: grown }),
    {
      name: "chown -R lower usr",
      state: "fresh",
      argv: (dir) => ["chown", "-hR", "1234:1234", `${dir}/usr`],
    },
    timed("first byte of files of 128K-4M", "fresh", own("firstByte", medium)),
    timed(`write ${megabytes} MB`, "fresh", big, { cleanup }),
    timed(`read ${megabytes} MB, cold`, "fresh", own("readFile", "big"), onColdBigFile),
    timed("4k random reads x20000, cold", "fresh", own("randomRead", "big", 20000), onColdBigFile),
    timed("4k random writes x20000", "fresh", own("randomWrite", "big", 20000), {
      prepare: big,
      cleanup,
    }),
    // Last, for what deletions do to later creations (see makeDisk in workspace.mjs).
    {
      name: `rm -r ${files} files`,
      state: "fresh",
      prepare: grown,
      argv: (dir) => ["rm", "-r", `${dir}/made`],
    },
    {
      name: "rm -r lower usr/share",
      state: "fresh",
      argv: (dir) => ["rm", "-r", `${dir}/usr/share`],
    },
  ];
}

/** A file with the names, relative to `layerDir`, that find(1) gives for the tests. */
function list(workspace, name, layerDir, tests) {
  const file = workspace.path(`list-${name}`);
  const names = must(["find", ".", "-mindepth", "1", ...tests], { cwd: layerDir })
    .split("\n")
    .filter((line) => line.startsWith("./"));
  writeFileSync(
    file,
    `${names
      .map((line) => line.slice(2))
      .sort()
      .join("\n")}\n`,
  );
  return file;
}
