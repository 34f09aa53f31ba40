/**
 * The process of `varve overlay` and `mount.fuse.varve`. The launcher (bin/mount.fuse.varve) starts it
 * in the background and waits on a pipe, STATUS_FD, for the exit code to end with: an empty one
 * once the mount is there. `VARVE_OVERLAY_STATUS_FD` is absent when it runs in the foreground.
 */

import { closeSync, openSync, writeSync } from "node:fs";
import type { FuseSession } from "../fuse/session.js";
import { BaseError } from "../system/errors.js";
import { mountOverlay } from "./overlay-mount.js";
import { type OverlayMountOptions, parseOverlayArguments } from "./overlay-options.js";

const STDERR = 2;
const EXIT_FAILURE = 1;

function say(text: string): void {
  try {
    writeSync(STDERR, `${text}\n`);
  } catch {
    // Nobody listens any more.
  }
}

/** Runs the process to its end: the end of the mount. */
async function runOverlay(argv: readonly string[]): Promise<void> {
  const statusFd = Number(process.env.VARVE_OVERLAY_STATUS_FD || -1);
  // Objects get the modes that callers ask for; the kernel tells us each caller's own umask.
  process.umask(0);
  let session: FuseSession;
  try {
    const options = parseOverlayArguments(argv);
    session = mountOverlay(options, { warn });
    // Neither the mount point's directory nor anybody else's is kept busy.
    process.chdir("/");
    unmountOnSignals(session);
    if (statusFd >= 0 && !options.debug) release(statusFd);
    else sayWhere(options);
  } catch (error) {
    say(`varve: ${error instanceof BaseError ? error.message : stackOf(error)}`);
    if (statusFd >= 0) writeSync(statusFd, String(EXIT_FAILURE));
    process.exit(EXIT_FAILURE);
  }
  await session.ended;
  process.exit(0);
}

function sayWhere({ debug, target }: OverlayMountOptions): void {
  if (debug) say(`varve: serving ${target}; end with Ctrl-C or umount`);
}

function warn(message: string, error?: unknown): void {
  say(`varve: overlay: ${message}${error === undefined ? "" : `: ${stackOf(error)}`}`);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Lets the launcher end with success, and gives up the caller's error stream. */
function release(statusFd: number): void {
  closeSync(STDERR);
  // The lowest free number, hence the one just given up: late messages have somewhere to go.
  openSync("/dev/null", "w");
  writeSync(statusFd, "0");
  closeSync(statusFd);
}

function unmountOnSignals(session: FuseSession): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      session.unmount(true).catch((error: unknown) => {
        warn("unmount failed", error);
        session.close();
      });
    });
  }
}

void runOverlay(process.argv.slice(2));
