/** Finding the daemon that a command means, and starting it when none runs. */

import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  statSync,
} from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { UnavailableError } from "../system/errors.js";
import { VarveClient } from "./client.js";

/** Which daemon to start. Unset paths are left to the daemon's own configuration. */
export interface AutostartOptions {
  /** Where the daemon must answer. */
  readonly socket: string;
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly config?: string | undefined;
  readonly logLevel?: string | undefined;
  /** Directory of the log file; `state` when unset, else the socket's directory. */
  readonly logDirectory?: string | undefined;
  /** How long to wait for its answer; 20 s when unset. */
  readonly timeoutMs?: number | undefined;
}

/** What `ensureDaemon` did. */
export interface AutostartResult {
  /** False when a daemon was already there. */
  readonly started: boolean;
  /** The log of a daemon that was started. */
  readonly logPath?: string;
}

/** A daemon with much garbage keeps it small: 20 to 40 MB less at its peak. */
const NODE_FLAGS = ["--max-semi-space-size=2"];
/** Likewise, for what is not JavaScript; said before the threads of Node.js have made arenas of their own. */
const ENVIRONMENT = { MALLOC_ARENA_MAX: "2" };
const DEFAULT_TIMEOUT_MS = 20_000;
const LOG_TAIL_BYTES = 2048;
// The daemon itself does not rotate: service managers do, and this log is for those without one.
const MAX_LOG_BYTES = 4 * 1024 * 1024;

/**
 * Returns when a daemon answers at `socket`; starts one, detached, when none does.
 *
 * Two callers at once are fine: the daemon's lock lets one live, and both wait for its socket.
 *
 * @throws UnavailableError the daemon ended or did not answer in time; the message has its last lines
 */
export async function ensureDaemon(options: AutostartOptions): Promise<AutostartResult> {
  if (await isListening(options.socket)) return { started: false };
  const directory = options.logDirectory ?? options.state ?? path.dirname(options.socket);
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  const logPath = path.join(directory, "daemon.log");
  if (sizeOf(logPath) > MAX_LOG_BYTES) renameSync(logPath, `${logPath}.old`);
  const logStart = sizeOf(logPath);
  const daemon = startDaemon(options, logPath);
  const deadline = Date.now() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  for (let pauseMs = 10; Date.now() < deadline; pauseMs = Math.min(pauseMs * 1.5, 200)) {
    await sleep(pauseMs);
    // It listens before it is ready, and may still fail then.
    if ((await isListening(options.socket)) && (await isAnswered(daemon, options.socket))) {
      return { started: true, logPath };
    }
    // Ours may have lost the race for the lock: then the winner's socket appears shortly.
    if (hasFailed(daemon)) {
      throw notStarted(options.socket, `it ended with code ${daemon.exitCode}`, logPath, logStart);
    }
    if (daemon.signalCode !== null) {
      throw notStarted(options.socket, `${daemon.signalCode} ended it`, logPath, logStart);
    }
  }
  throw notStarted(options.socket, "it does not answer", logPath, logStart);
}

/**
 * True when a daemon answers. Ends ours if that is another one, which won the race. Ours would end by itself at the
 * lock, unless the winner is stopped before it gets there: then a daemon would live that nobody asked for any more.
 */
async function isAnswered(daemon: ChildProcess, socket: string): Promise<boolean> {
  const client = VarveClient.connect({ socket });
  try {
    const { pid } = await client.info();
    if (Number(pid) !== daemon.pid) daemon.kill("SIGTERM");
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}

/** It ended, and not because another one is there. */
function hasFailed({ exitCode }: ChildProcess): boolean {
  return exitCode !== null && exitCode !== LOCKED_EXIT_CODE;
}

/** The daemon's exit code when another one has its directories (EX_TEMPFAIL of sysexits.h). */
export const LOCKED_EXIT_CODE = 75;

/** True when something accepts connections on the Unix socket. */
export function isListening(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ path: socketPath });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

// From src/client, dist/client, a bundle in dist, and a bundle beside it.
const ENTRY_CANDIDATES = [
  "../../dist/daemon/bundle/main.mjs",
  "../daemon/bundle/main.mjs",
  "./daemon/bundle/main.mjs",
  "../dist/daemon/bundle/main.mjs",
];

/**
 * The daemon's compiled entry point.
 *
 * @throws UnavailableError this checkout is not built
 */
export function daemonEntry(): string {
  const found = ENTRY_CANDIDATES.map((url) => fileURLToPath(new URL(url, import.meta.url))).find(
    (file) => existsSync(file),
  );
  if (found !== undefined) return found;
  throw new UnavailableError(
    'start a daemon: dist/daemon/bundle/main.mjs is missing; run "npm run build"',
  );
}

function startDaemon(options: AutostartOptions, logPath: string) {
  const flags: [string, string | undefined][] = [
    ["--socket", options.socket],
    ["--root", options.root],
    ["--state", options.state],
    ["--config", options.config],
    ["--log-level", options.logLevel],
  ];
  const given = flags.flatMap(([flag, value]) => (value === undefined ? [] : [flag, value]));
  const log = openSync(logPath, "a", 0o600);
  try {
    const daemon = spawn(process.execPath, [...NODE_FLAGS, daemonEntry(), ...given], {
      detached: true,
      stdio: ["ignore", "ignore", log],
      env: { ...ENVIRONMENT, ...process.env },
      // Not the caller's directory, which it would keep from being unmounted or removed.
      cwd: "/",
    });
    daemon.on("error", () => undefined);
    daemon.unref();
    return daemon;
  } finally {
    closeSync(log);
  }
}

function notStarted(socket: string, reason: string, logPath: string, logStart: number) {
  const tail = readTail(logPath, logStart);
  const lines = tail === "" ? "" : `; its last words:\n${tail}`;
  return new UnavailableError(`start a daemon at ${socket}: ${reason} (log: ${logPath})${lines}`);
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/** The end of what this start wrote. */
function readTail(file: string, start: number): string {
  const size = sizeOf(file);
  const from = Math.max(start, size - LOG_TAIL_BYTES);
  const buffer = Buffer.alloc(Math.max(0, size - from));
  const fd = openSync(file, "r");
  try {
    readSync(fd, buffer, 0, buffer.length, from);
  } finally {
    closeSync(fd);
  }
  return buffer.toString("utf8").trimEnd().split("\n").slice(-8).map(messageOf).join("\n");
}

/** The text of a JSON log line; other lines as they are. */
function messageOf(line: string): string {
  try {
    const record = JSON.parse(line) as { msg?: unknown };
    if (typeof record.msg === "string") return record.msg;
  } catch {
    // A stack trace or a line of Node's own.
  }
  return line;
}
