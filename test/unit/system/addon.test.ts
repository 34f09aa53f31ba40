import { execFileSync } from "node:child_process";
import { constants as osConstants } from "node:os";
import { Worker } from "node:worker_threads";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { addonPath, native, sys } from "../../../src/system/addon.js";
import * as constants from "../../../src/system/constants.js";
import * as errno from "../../../src/system/errno.js";
import { SyscallError } from "../../../src/system/errors.js";
import { bytes, makeScratch, run, writeFile } from "./scratch.js";

const SCRIPT = `
  const { parentPort, workerData } = require("node:worker_threads");
  const { syscalls } = require(workerData.addon);
  const record = new Float64Array(20);
  const fd = syscalls.openat(-100, workerData.directory, 0, 0);
  syscalls.statx(fd, "f", 0, record);
  const { names } = syscalls.scanDirectory(fd);
  syscalls.syncAsync("fsync", fd).then((synced) => {
    syscalls.close(fd);
    parentPort.postMessage({ size: record[6], names, synced });
  });
`;

/** The call writes to a full pipe, which has room only when the worker is gone. */
const TERMINATED_CALLER = `
  const { constants, openSync, readSync, writeSync } = require("node:fs");
  const { Worker } = require("node:worker_threads");
  const [, addon, fifo] = process.argv;
  const caller = \`
    const { workerData, parentPort } = require("node:worker_threads");
    const { fuse } = require(workerData.addon);
    fuse.fromDescriptor(workerData.fd).notifyAsync(Buffer.alloc(4096));
    parentPort.postMessage("waits");
  \`;
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  const full = Buffer.alloc(65536);
  writeSync(reader, full);
  const worker = new Worker(caller, {
    eval: true,
    workerData: { addon, fd: openSync(fifo, constants.O_WRONLY) },
  });
  worker.on("message", async () => {
    await worker.terminate();
    readSync(reader, full);
    setTimeout(() => readSync(reader, full, 0, 4096), 100);
  });
`;

function inWorker(directory: string): Promise<unknown> {
  return new Promise((done, fail) => {
    const worker = new Worker(SCRIPT, { eval: true, workerData: { addon: addonPath, directory } });
    worker.once("message", (message) => worker.terminate().then(() => done(message)));
    worker.once("error", fail);
  });
}

describe("the addon", () => {
  it("loads in worker threads, several at once and one after another", async () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("f"), "12345");
    const expected = { size: 5, names: ["f"], synced: 0 };
    expect(await Promise.all([inWorker(path), inWorker(path), inWorker(path)])).toEqual([
      expected,
      expected,
      expected,
    ]);
    expect(await inWorker(path)).toEqual(expected);
    expect(sys.close(-1)).toBe(-errno.EBADF);
  });

  it("survives a worker that ends while its flush is under way", async () => {
    const { path } = makeScratch();
    const script = `
      const { workerData } = require("node:worker_threads");
      const { syscalls } = require(workerData.addon);
      const fd = syscalls.openat(-100, workerData.directory, 0, 0);
      for (let i = 0; i < 20; i++) syscalls.syncAsync("fsync", fd);
      process.exit(0);
    `;
    const worker = new Worker(script, {
      eval: true,
      workerData: { addon: addonPath, directory: path },
    });
    expect(await new Promise((done) => worker.once("exit", done))).toBe(0);
  });

  it("survives a worker that is terminated while a call waits on a thread of its own", () => {
    const { path } = makeScratch();
    const fifo = `${path}/fifo`;
    execFileSync("mkfifo", [fifo]);
    // In a process of its own, which such a call once took along.
    execFileSync(process.execPath, ["-e", TERMINATED_CALLER, addonPath, fifo]);
  });

  it("exports every call and all parts", () => {
    expect(Object.keys(native).sort()).toEqual(["StreamReader", "codecs", "fuse", "syscalls"]);
    expect(Object.values(sys).every((call) => typeof call === "function")).toBe(true);
  });

  it("throws a TypeError for arguments of a wrong type, and for missing ones", () => {
    const wrong = sys as unknown as Record<string, (...args: unknown[]) => unknown>;
    expect(() => wrong.openat!("x", "y", 0, 0)).toThrow(TypeError);
    expect(() => wrong.openat!(1, Buffer.from("y"), 0, 0)).toThrow(TypeError);
    expect(() => wrong.openat!(1, "y")).toThrow(TypeError);
    expect(() => wrong.pread!(1, "buffer", 0, 0, 0)).toThrow(TypeError);
    expect(() => wrong.statx!(1, "", 0, new Float32Array(20))).toThrow(TypeError);
    expect(() => wrong.statx!(1, "", 0, {})).toThrow(TypeError);
    expect(() => wrong.setxattrat!(1, "f", "user.x", undefined, 0)).toThrow(TypeError);
  });

  it("that is not where it should be says how to build it", async () => {
    vi.resetModules();
    vi.stubEnv("VARVE_NATIVE_ADDON", "/nowhere/varve_native.node");
    onTestFinished(() => void vi.unstubAllEnvs());
    await expect(import("../../../src/system/addon.js")).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringMatching(/\/nowhere\/varve_native.node.*npm run build:native/s),
    });
  });
});

describe("must", () => {
  it("passes results through, also strings and objects", () => {
    expect(errno.must(0, "open", "x")).toBe(0);
    expect(errno.must(bytes("text"), "readlink", "x")).toBe("text");
    expect(errno.must<number[]>([1], "statfs", "x")).toEqual([1]);
  });

  it("throws a SyscallError that names the errno, the call and its object", () => {
    const fail = () => errno.must(sys.open(bytes("/no/such"), 0, 0), "open", "/no/such");
    expect(fail).toThrow(SyscallError);
    expect(fail).toThrow("open /no/such: No such file or directory (ENOENT)");
    expect(fail).toThrow(
      expect.objectContaining({ code: "SYSCALL", errno: 2, errnoName: "ENOENT", syscall: "open" }),
    );
  });
});

describe("constants", () => {
  it("of errors are this system's, and the C library knows their names", () => {
    const aliases = ["ENOTSUP", "EWOULDBLOCK", "ENOATTR"];
    const ours = Object.entries(errno).filter(([, value]) => typeof value === "number");
    expect(ours.length).toBeGreaterThan(40);
    for (const [name, value] of ours) {
      const known = (osConstants.errno as Record<string, number>)[name];
      if (known !== undefined) expect([name, value]).toEqual([name, known]);
      if (aliases.includes(name)) continue;
      expect(sys.errnoName(value as number)).toBe(name);
      expect(sys.errnoName(-(value as number))).toBe(name);
    }
    expect(sys.errnoName(4095)).toBe("E?4095");
    expect(sys.errnoText(4095)).toBe("Unknown error 4095");
  });

  it("of files are the C library's", () => {
    const headers = [
      "fcntl.h",
      "sys/stat.h",
      "sys/mount.h",
      "sys/file.h",
      "sys/xattr.h",
      "dirent.h",
    ];
    headers.push("unistd.h", "stdio.h", "limits.h", "linux/limits.h", "linux/openat2.h");
    headers.push("linux/falloc.h", "linux/magic.h");
    const ours = Object.entries(constants);
    const program = [
      ...headers.map((header) => `#include <${header}>`),
      "int main() {",
      // Older headers lack the newest names.
      ...ours.map(
        ([name]) => `#ifdef ${name}\nprintf("${name} %lld\\n", (long long)${name});\n#endif`,
      ),
      "}",
    ].join("\n");
    const binary = `${makeScratch().path}/constants`;
    const compile = ["-xc++", "-D_GNU_SOURCE", "-o", binary, "-"];
    execFileSync("g++", compile, { input: program, stdio: ["pipe", "pipe", "pipe"] });
    const theirs = new Map(
      run(binary)
        .trim()
        .split("\n")
        .map((line) => line.split(" ") as [string, string]),
    );
    expect(theirs.size).toBeGreaterThan(100);
    const known = ours.filter(([name]) => theirs.has(name));
    expect(known).toEqual(known.map(([name]) => [name, Number(theirs.get(name))]));
  });
});
