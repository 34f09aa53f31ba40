/** What scripts/bench/fs measures. */

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FILE_SIZES, PYTHON, REPOSITORY, SIZES } from "./fixtures.mjs";
import { has, must } from "./measure.mjs";

const program = fileURLToPath(new URL("workload.mjs", import.meta.url));

/** Rows that are no workloads: see FsRunner. */
export const MOUNT = "mount";
export const VIEWS = "views";

/**
 * @typedef {object} Workload
 * @property {string} name
 * @property {"warm" | "cold" | "fresh"} state warm: after one untimed run; cold: right after a mount (the disk's own
 *   cache stays warm, for everybody); fresh: without earlier changes
 * @property {(dir: string, scene: Scene) => string[]} argv the timed command
 * @property {(dir: string, scene: Scene) => string[]} [prepare] an untimed command before it, in the same mount
 * @property {(dir: string) => string[]} [cleanup] an untimed command after it
 * @property {boolean} [remount] mounted again between prepare and the timed command
 * @property {boolean} [selfTimed] the command prints its own time
 * @property {boolean} [altersImage] it changes or removes files of the image
 * @property {"repository" | "python" | "sizes"} [fixture] a layer that it needs, see lib/fixtures.mjs
 * @property {boolean} [onRequest] measured only when asked for by name, as its fixture is large
 */

/** Lists and archives made from the image's base layer, on first need. */
export class Scene {
  #made = new Map();

  /** @param {import("./workspace.mjs").Workspace} workspace */
  constructor(workspace, baseLayer) {
    this.workspace = workspace;
    this.baseLayer = baseLayer;
  }

  /** Files of up to 16 KiB. */
  get small() {
    return this.#list("small", "-type", "f", "-size", "-17k");
  }

  /** Everything. */
  get tree() {
    return this.#list("tree");
  }

  /** Files of 128 KiB to 4 MiB with one name. */
  get medium() {
    const sizes = ["-size", "+128k", "-size", "-4096k"];
    return this.#list("medium", "-type", "f", "-links", "1", ...sizes);
  }

  /** An archive of a large part of the image. */
  get archive() {
    return this.#once("archive.tar", (file) => {
      must(["tar", "-C", this.baseLayer, "-cf", file, "usr/share", "etc"]);
    });
  }

  /** The interpreter that the fixture "python" belongs to, without wrappers around it. */
  get python() {
    return must(["python3", "-c", "import sys; print(sys.executable)"]).trim();
  }

  /** A file with names relative to the root, sorted. */
  #list(name, ...tests) {
    return this.#once(`list-${name}`, (file) => {
      const names = must(["find", ".", "-mindepth", "1", ...tests], { cwd: this.baseLayer })
        .split("\n")
        .filter((line) => line.startsWith("./"))
        .map((line) => line.slice(2));
      writeFileSync(file, `${names.sort().join("\n")}\n`);
    });
  }

  #once(name, make) {
    const file = this.workspace.path(name);
    if (!this.#made.has(name)) make(file);
    this.#made.set(name, file);
    return file;
  }
}

const own =
  (verb, ...args) =>
  (dir, scene) => [
    process.execPath,
    program,
    verb,
    dir,
    ...args.map((arg) => (typeof arg === "function" ? arg(scene) : String(arg))),
  ];
const shell = (script) => (dir) => ["bash", "-c", script, "bash", dir];
const both = (name, argv, more = {}) =>
  ["cold", "warm"].map((state) => ({ name: `${name} (${state})`, state, argv, ...more }));
const selfTimed = true;
const small = (scene) => scene.small;
const tree = (scene) => scene.tree;

/**
 * @param {{files: number, megabytes: number}} sizes of the created tree and of the big file
 * @returns {Workload[]}
 */
export function fsWorkloads({ files, megabytes }) {
  return [
    ...walks(),
    ...programs(),
    ...changes(files),
    ...bigFiles(megabytes),
    ...copyUps(),
    ...deletions(files),
  ];
}

function walks() {
  // Not -f /dev/null: GNU tar would not read the files then.
  const tar = 'tar -C "$1" --one-file-system -c . | cat >/dev/null';
  return [
    ...both("find -ls", shell('find "$1" -xdev -ls >/dev/null')),
    ...both("tar c", shell(tar)),
    ...both("grep -r", shell('grep -rc --devices=skip no-such-words "$1" >/dev/null || true')),
    ...both("4 parallel tar c", shell(`for i in 1 2 3 4; do ${tar} & done; wait`)),
    ...both("open/read/close small files", own("readFiles", small), { selfTimed }),
    {
      name: "stat existing x5 (warm)",
      state: "warm",
      argv: own("stat", tree, 5),
      selfTimed,
    },
    {
      name: "stat missing x5 (warm)",
      state: "warm",
      argv: own("statMissing", tree, 5),
      selfTimed,
    },
  ];
}

function programs() {
  const status = shell(`git -C "$1/${REPOSITORY}" status --porcelain`);
  const modules =
    "argparse,asyncio,ctypes,csv,dataclasses,decimal,difflib,doctest,email.mime.text,ftplib,http.server,imaplib,json,logging.config,multiprocessing.pool,pdb,pickle,pydoc,smtplib,sqlite3,ssl,subprocess,tarfile,tempfile,timeit,typing,unittest.mock,urllib.request,uuid,xml.dom.minidom,xml.etree.ElementTree,xmlrpc.client,zipfile";
  return [
    // The first status after a change of inode numbers reads all files and writes the index anew.
    ...both("git status of 50000 files", status, {
      prepare: status,
      remount: true,
      fixture: "repository",
      onRequest: true,
    }),
    ...both(
      "python start with imports",
      (dir, { python }) => [
        ...["env", `PYTHONHOME=${dir}/${PYTHON}`, "PYTHONDONTWRITEBYTECODE=1", python],
        ...["-c", `import ${modules}`],
      ],
      { fixture: "python", onRequest: true },
    ),
  ];
}

function changes(files) {
  const grown = own("create", "made", files);
  const state = "fresh";
  return [
    { name: `create ${files} files`, state, argv: grown, selfTimed },
    {
      name: "untar usr/share and etc",
      state,
      argv: (dir, scene) => ["tar", "-C", dir, "--one-top-level=untarred", "-xf", scene.archive],
    },
    {
      name: `rename ${files} files`,
      state,
      prepare: grown,
      argv: own("rename", "made"),
      selfTimed,
    },
    {
      name: "chown -R lower usr",
      state,
      argv: (dir) => ["chown", "-hR", "1234:1234", `${dir}/usr`],
      altersImage: true,
    },
  ];
}

function bigFiles(megabytes) {
  const big = own("writeFile", "big", megabytes);
  const cleanup = (dir) => ["rm", "-f", `${dir}/big`]; // several GB otherwise
  const changed = { state: "fresh", selfTimed, cleanup };
  const cold = { ...changed, prepare: big, remount: true };
  return [
    { name: `write ${megabytes} MB`, argv: big, ...changed },
    { name: `read ${megabytes} MB (cold)`, argv: own("readFile", "big"), ...cold },
    { name: "4k random reads x20000 (cold)", argv: own("randomRead", "big", 20000), ...cold },
    {
      name: "4k random writes x20000",
      argv: own("randomWrite", "big", 20000),
      prepare: big,
      ...changed,
    },
    { name: "mapped reads x20000 (cold)", argv: mapped("big", 20000), ...cold },
    { name: "4 readers at once (cold)", argv: readers("big"), ...cold, selfTimed: false },
    ...(has("fio") ? fioJobs(cold) : []),
    ...imageFile(),
  ];
}

/** fio tells the kernel that it reads at random, so that nothing is read ahead. */
function fioJobs(cold) {
  const engines = { "read and write": "psync", mapping: "mmap" };
  const patterns = { reads: "randread", writes: "randwrite" };
  return Object.entries(engines).flatMap(([way, engine]) =>
    Object.entries(patterns).map(([what, pattern]) => ({
      name: `fio by ${way}: 20000 random ${what} (cold)`,
      argv: own("fio", "big", pattern, engine, 20000),
      ...cold,
    })),
  );
}

/** The same with a file of the image, which passthrough leaves in the page cache until it is written to. */
function imageFile() {
  const file = `${SIZES}/1G`;
  const cold = { state: "cold", fixture: "sizes", onRequest: true };
  return [
    { name: "image file: read 1 GB (cold)", argv: own("readFile", file), selfTimed, ...cold },
    {
      name: "image file: random reads x20000 (cold)",
      argv: own("randomRead", file, 20000),
      selfTimed,
      ...cold,
    },
    {
      name: "image file: 20000 pages of a mapping (cold)",
      argv: mapped(file, 20000),
      selfTimed,
      ...cold,
    },
    { name: "image file: 4 readers (cold)", argv: readers(file), ...cold },
  ];
}

/** `count` pages of a mapping, here and there. */
function mapped(name, count) {
  const script = `
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
pages, at, start = len(m) // 4096, 12345, time.perf_counter()
cpu = time.process_time()
for _ in range(int(sys.argv[2])):
    at = (at * 1103515245 + 12345) & 0x7fffffff
    m[(at >> 8) % pages * 4096]
print('{"wallMs": %f, "cpuMs": %f}' % ((time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3))`;
  return (dir) => ["python3", "-c", script, `${dir}/${name}`, String(count)];
}

/** Four programs that read the whole file. */
function readers(name) {
  return shell(`for i in 1 2 3 4; do cat "$1/${name}" >/dev/null & done; wait`);
}

function copyUps() {
  const state = "fresh";
  const more = { state, selfTimed, altersImage: true };
  return [
    {
      name: "first byte of files of 128K-4M",
      argv: own("firstByte", (scene) => scene.medium),
      ...more,
    },
    ...Object.keys(FILE_SIZES).map((size) => ({
      name: `copy-up of ${size}: first byte with fsync`,
      argv: own("firstByteAndSync", `${SIZES}/${size}`),
      fixture: "sizes",
      onRequest: true,
      ...more,
    })),
  ];
}

/** Last, for what deletions do to later creations (see makeDisk in workspace.mjs). */
function deletions(files) {
  const state = "fresh";
  return [
    {
      name: `rm -r ${files} files`,
      state,
      prepare: own("create", "made", files),
      argv: (dir) => ["rm", "-r", `${dir}/made`],
    },
    {
      name: "rm -r lower usr/share",
      state,
      argv: (dir) => ["rm", "-r", `${dir}/usr/share`],
      altersImage: true,
    },
  ];
}
