/**
 * Small file system workloads that shell tools cannot do without their own cost showing.
 * Prints {"wallMs", "cpuMs"} of the work itself. Run by scripts/bench/fs.
 *
 *   node workload.mjs VERB DIRECTORY [ARGUMENT…]
 */

import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";

const [verb, dir, ...args] = process.argv.slice(2);
const PAGE = 4096;
const MEBIBYTE = 1 << 20;

const verbs = {
  /** open, read, close of each listed file */
  readFiles: (list) => {
    const names = readList(list);
    const buffer = Buffer.alloc(64 * 1024);
    return () => {
      for (const name of names) {
        const fd = fs.openSync(name, "r");
        fs.readSync(fd, buffer);
        fs.closeSync(fd);
      }
    };
  },
  /** lstat of each listed file, `times` over */
  stat: (list, times) => {
    const names = readList(list);
    return () =>
      repeat(Number(times), () => {
        for (const name of names) fs.lstatSync(name);
      });
  },
  /** lstat of names that do not exist, `times` over */
  statMissing: (list, times) => {
    const missing = readList(list).map((name) => `${name}.missing`);
    return () =>
      repeat(Number(times), () => {
        for (const name of missing) fs.lstatSync(name, { throwIfNoEntry: false });
      });
  },
  /** `count` new files of 1 KiB, 200 to a directory */
  create: (name, count) => () => {
    const data = Buffer.alloc(1024, "varve ");
    fs.mkdirSync(path.join(dir, name));
    for (let i = 0; i < Number(count); i++) {
      const parent = path.join(dir, name, String(Math.floor(i / 200)));
      if (i % 200 === 0) fs.mkdirSync(parent);
      fs.writeFileSync(path.join(parent, `file-${i}`), data);
    }
  },
  /** renames every file of a tree made by `create` */
  rename: (name) => {
    const files = fs
      .readdirSync(path.join(dir, name), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile());
    return () => {
      for (const file of files)
        fs.renameSync(
          path.join(file.parentPath, file.name),
          path.join(file.parentPath, `${file.name}.renamed`),
        );
    };
  },
  /** first byte of each listed lower file written: copy-up */
  firstByte: (list) => {
    const names = readList(list);
    return () => {
      for (const name of names) {
        const fd = fs.openSync(name, "r+");
        fs.writeSync(fd, "x", 0);
        fs.closeSync(fd);
      }
    };
  },
  /** the first byte of one lower file written and brought to disk */
  firstByteAndSync: (name) => () => {
    const fd = fs.openSync(path.join(dir, name), "r+");
    fs.writeSync(fd, "x", 0);
    fs.fsyncSync(fd);
    fs.closeSync(fd);
  },
  writeFile: (name, mebibytes) => () => {
    const fd = fs.openSync(path.join(dir, name), "w");
    const chunk = Buffer.alloc(MEBIBYTE, "sequential ");
    for (let i = 0; i < Number(mebibytes); i++) fs.writeSync(fd, chunk);
    fs.closeSync(fd);
  },
  readFile: (name) => () => {
    const fd = fs.openSync(path.join(dir, name), "r");
    const chunk = Buffer.alloc(MEBIBYTE);
    while (fs.readSync(fd, chunk) > 0);
    fs.closeSync(fd);
  },
  randomRead: (name, count) => randomIo(name, count, "r", fs.readSync),
  randomWrite: (name, count) => randomIo(name, count, "r+", fs.writeSync),
  /** `count` blocks of a file by fio, which takes its own time: `pattern` is randread or randwrite, `engine` psync or mmap */
  fio: (name, pattern, engine, count) => () => {
    const job = {
      name: "bench",
      filename: path.join(dir, name),
      rw: pattern,
      ioengine: engine,
      bs: PAGE,
      io_size: PAGE * Number(count),
      size: fs.statSync(path.join(dir, name)).size,
      norandommap: 1,
      randseed: 1,
      invalidate: 0, // it would empty the cache of the disk's file for ext4, and that of the view's file for others
      "output-format": "json",
    };
    const options = Object.entries(job).map(([key, value]) => `--${key}=${value}`);
    const run = spawnSync("fio", options, { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`fio: ${run.stderr}`);
    const [{ read, write, usr_cpu: user, sys_cpu: system }] = JSON.parse(run.stdout).jobs;
    const wallMs = read.runtime + write.runtime;
    return { wallMs, cpuMs: (wallMs * (user + system)) / 100 };
  },
};

function randomIo(name, count, flags, operate) {
  const fd = fs.openSync(path.join(dir, name), flags);
  const pages = Math.floor(fs.fstatSync(fd).size / PAGE);
  const buffer = Buffer.alloc(PAGE, "random ");
  let state = 12345; // the same places for everybody
  return () => {
    for (let i = 0; i < Number(count); i++) {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      operate(fd, buffer, 0, PAGE, (state % pages) * PAGE);
    }
  };
}

function readList(list) {
  return fs
    .readFileSync(list, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((name) => path.join(dir, name));
}

function repeat(times, work) {
  for (let i = 0; i < times; i++) work();
}

if (!(verb in verbs) || !path.isAbsolute(dir ?? "")) {
  process.stderr.write("usage: node workload.mjs VERB DIRECTORY [ARGUMENT…]\n");
  process.exit(2);
}
const work = verbs[verb](...args);
const cpu = process.cpuUsage();
const start = performance.now();
const ownCost = work();
const wallMs = performance.now() - start;
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify(ownCost ?? { wallMs, cpuMs: (user + system) / 1000 }));
