import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FrozenFiles } from "../../../src/layers/frozen-files.js";
import { STAT_SIZE } from "../../../src/system/native.js";

let directory: string;
let frozen: FrozenFiles | undefined;
let writer: ChildProcess | undefined;
const descriptors: number[] = [];

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "varve-frozen-"));
});

afterEach(() => {
  writer?.kill("SIGKILL");
  frozen?.close();
  for (const fd of descriptors.splice(0)) closeSync(fd);
  rmSync(directory, { recursive: true });
});

function open(name: string): number {
  const fd = openSync(path.join(directory, name), "a+");
  descriptors.push(fd);
  return fd;
}

function inodeOf(name: string): number {
  return statSync(path.join(directory, name)).ino;
}

/** Runs a script of the shell's until the test's end. */
function write(script: string): void {
  writer = spawn("sh", ["-c", script], { cwd: directory, stdio: "ignore" });
}

it("a file that nobody writes to is copied, holes and all", async () => {
  const fd = open("sparse");
  writeSync(fd, "head");
  ftruncateSync(fd, 8 << 20);
  frozen = await FrozenFiles.take([fd], directory);
  const copy = frozen.get(inodeOf("sparse"))!;
  expect(frozen.isStill(inodeOf("sparse"))).toBe(true);
  expect(copy.stats[STAT_SIZE]).toBe(8 << 20);
  const original = readFileSync(path.join(directory, "sparse"));
  expect(readFileSync(`/proc/self/fd/${copy.fd}`).equals(original)).toBe(true);
  expect(statSync(`/proc/self/fd/${copy.fd}`).blocks).toBeLessThan(1024);
  expect(frozen.get(1)).toBeUndefined();
});

it("files that are written to in turn are copied as they were at one moment", async () => {
  writeFileSync(path.join(directory, "a"), "");
  writeFileSync(path.join(directory, "b"), "");
  write("n=0; while :; do n=$((n+1)); echo $n >>a; echo $n >>b; sleep 0.2; done");
  const fds = [open("b"), open("a")];
  while (statSync(path.join(directory, "b")).size === 0) await new Promise(setImmediate);
  frozen = await FrozenFiles.take(fds, directory);
  const [a, b] = ["a", "b"].map((name) => {
    expect(frozen!.isStill(inodeOf(name))).toBe(true);
    return readFileSync(`/proc/self/fd/${frozen!.get(inodeOf(name))!.fd}`, "utf8");
  });
  expect(a).toBe(b);
});

it("a file that is written to all the time is said to be so", async () => {
  const fd = open("log");
  writeSync(fd, "x");
  const writing = setInterval(() => writeSync(fd, "x"), 1);
  frozen = await FrozenFiles.take([fd], directory);
  clearInterval(writing);
  expect(frozen.isStill(inodeOf("log"))).toBe(false);
  expect(frozen.get(inodeOf("log"))).toBeDefined();
});
