/** Locks that end with their process, however it ends. */

import { readFileSync, unlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  LOCK_EX,
  LOCK_NB,
  O_CLOEXEC,
  O_CREAT,
  O_RDWR,
} from "../system/constants.js";
import { EAGAIN, must } from "../system/errno.js";
import { AlreadyExistsError } from "../system/errors.js";
import { STAT_INO, STAT_SLOTS } from "../system/native.js";

/** How often a lock is tried: whoever waits for it keeps programs waiting. */
const RETRY_MS = 5;

/** A held lock; the file has this process's ID. */
export class LockFile {
  readonly #path: string;
  readonly #fd: number;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /**
   * Takes the lock.
   *
   * @param what what the lock protects, for the message
   * @throws AlreadyExistsError another process holds it
   * @throws SyscallError
   */
  static acquire(path: string, what: string): LockFile {
    for (;;) {
      const fd = must(sys.open(toBytes(path), O_RDWR | O_CREAT | O_CLOEXEC, 0o600), "open", path);
      const result = sys.flock(fd, LOCK_EX | LOCK_NB);
      if (result < 0) {
        sys.close(fd);
        if (result === -EAGAIN) throw heldError(path, what);
        must(result, "flock", path);
      }
      // Its last holder may have removed the name between our open and our lock.
      if (isStillNamed(fd, path)) return LockFile.#write(path, fd);
      sys.close(fd);
    }
  }

  /**
   * Takes the lock as `acquire` does, but waits for its holder to let go.
   *
   * @throws AlreadyExistsError it is still held after `patienceMs`
   */
  static async await(path: string, what: string, patienceMs: number): Promise<LockFile> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      try {
        return LockFile.acquire(path, what);
      } catch (error) {
        if (!(error instanceof AlreadyExistsError) || Date.now() >= deadline) throw error;
      }
      await sleep(RETRY_MS);
    }
  }

  /** The process that holds the lock; undefined when none does. */
  static holder(path: string): number | undefined {
    const fd = sys.open(toBytes(path), O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return undefined;
    const isHeld = sys.flock(fd, LOCK_EX | LOCK_NB) === -EAGAIN;
    sys.close(fd);
    return isHeld ? Number(readPid(path)) || undefined : undefined;
  }

  static #write(path: string, fd: number): LockFile {
    const text = Buffer.from(`${process.pid}\n`);
    must(sys.ftruncate(fd, 0), "ftruncate", path);
    must(sys.pwrite(fd, text, 0, text.length, 0), "write", path);
    return new LockFile(path, fd);
  }

  /** Removes the file, then lets go. */
  release(): void {
    try {
      unlinkSync(this.#path);
    } finally {
      sys.close(this.#fd);
    }
  }
}

function isStillNamed(fd: number, path: string): boolean {
  const held = new Float64Array(STAT_SLOTS);
  const named = new Float64Array(STAT_SLOTS);
  must(sys.statx(fd, toBytes(""), AT_EMPTY_PATH, held), "statx", path);
  return sys.statx(AT_FDCWD, toBytes(path), 0, named) === 0 && named[STAT_INO] === held[STAT_INO];
}

function heldError(path: string, what: string): AlreadyExistsError {
  const pid = readPid(path);
  return new AlreadyExistsError(
    `start the daemon: ${what} is in use by another daemon${pid === "" ? "" : ` (process ${pid})`}; stop it, or choose other directories with --root and --state`,
  );
}

function readPid(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
