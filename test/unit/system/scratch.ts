/** A private directory for one test, opened for the *at calls, and gone after the test. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, toBytes } from "../../../src/system/bytes.js";
import * as C from "../../../src/system/constants.js";
import { must } from "../../../src/system/errno.js";

export interface Scratch {
  readonly path: string;
  /** O_RDONLY | O_DIRECTORY. */
  readonly fd: number;
}

/** Makes a directory; closes and removes it, whatever it holds, when the test ends. */
export function makeScratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), "varve-system-"));
  const fd = openDescriptor(C.AT_FDCWD, toBytes(path), C.O_RDONLY | C.O_DIRECTORY);
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return { path, fd };
}

/** An open descriptor that is closed when the test ends. */
export function openDescriptor(dirfd: number, name: ByteString, flags: number, mode = 0o644) {
  const fd = must(sys.openat(dirfd, name, flags, mode), "openat", name);
  onTestFinished(() => {
    sys.close(fd);
  });
  return fd;
}

/** A new file with this content. */
export function writeFile(dirfd: number, name: ByteString, content: Buffer | string): void {
  const fd = must(sys.openat(dirfd, name, C.O_WRONLY | C.O_CREAT | C.O_TRUNC, 0o644), "open", name);
  const data = Buffer.from(content);
  must(sys.pwrite(fd, data, 0, data.length, 0), "pwrite", name);
  must(sys.close(fd), "close", name);
}

/** The statx record of a name, not following it. */
export function statOf(dirfd: number, name: ByteString): Float64Array {
  const out = new Float64Array(20);
  must(sys.statx(dirfd, name, C.AT_SYMLINK_NOFOLLOW | C.AT_EMPTY_PATH, out), "statx", name);
  return out;
}

/** What another program prints, as bytes. */
export function run(program: string, ...args: string[]): ByteString {
  return execFileSync(program, args, { stdio: ["ignore", "pipe", "pipe"] }).toString(
    "latin1",
  ) as ByteString;
}

/** A ByteString literal. */
export function bytes(latin1: string): ByteString {
  return latin1 as ByteString;
}
