import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LockFile } from "../../../src/daemon/lock-file.js";

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-lock-"));
  file = path.join(directory, "daemon.lock");
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

describe("LockFile", () => {
  it("holds the process ID and goes with release", () => {
    const lock = LockFile.acquire(file, "root directory");
    expect(readFileSync(file, "utf8")).toBe(`${process.pid}\n`);
    lock.release();
    expect(existsSync(file)).toBe(false);
  });

  it("refuses a second holder and names the first", () => {
    const lock = LockFile.acquire(file, "root directory /r");
    try {
      expect(() => LockFile.acquire(file, "root directory /r")).toThrowError(
        expect.objectContaining({
          code: "ALREADY_EXISTS",
          message: expect.stringMatching(new RegExp(`/r is in use.*process ${process.pid}`)),
        }),
      );
    } finally {
      lock.release();
    }
  });

  it("takes over the file of a process that died", () => {
    writeFileSync(file, "999999\n-stale-");
    const lock = LockFile.acquire(file, "root directory");
    expect(readFileSync(file, "utf8")).toBe(`${process.pid}\n`);
    lock.release();
  });

  it("is not inherited by child processes", async () => {
    const lock = LockFile.acquire(file, "root directory");
    const child = spawn("sleep", ["60"], { stdio: "ignore" });
    try {
      await once(child, "spawn");
      lock.release();
      LockFile.acquire(file, "root directory").release();
    } finally {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });
});
