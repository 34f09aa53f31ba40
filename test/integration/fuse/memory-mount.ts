/** Starts memory servers for tests, and cleans up after them whatever happened. */

import { type ChildProcess, execFileSync, fork } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildSync } from "esbuild";
import type { MemoryStatistics } from "./memory-file-system.js";
import type { ServerAnswer, ServerCommand } from "./memory-server.js";

const ROOT = join(import.meta.dirname, "../../..");

/** A refusal of the server, with the code of its error. */
export class ServerError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A running server with its mounts `targets`; use them freely from here, the server is another process. */
export class MemoryServer {
  readonly directory: string;
  readonly targets: string[];
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: ServerAnswer) => void>();
  #nextId = 1;

  private constructor(directory: string, targets: string[], child: ChildProcess) {
    this.directory = directory;
    this.targets = targets;
    this.#child = child;
    child.on("message", (answer: ServerAnswer) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  /** Serves `count` memory file systems from one thread of a new process. */
  static async start(count = 1, user: { uid?: number; gid?: number } = {}): Promise<MemoryServer> {
    const directory = mkdtempSync(join(tmpdir(), "varve-fuse-"));
    // Other users shall reach the mounts.
    chmodSync(directory, 0o755);
    chownSync(directory, user.uid ?? 0, user.gid ?? 0);
    const targets = Array.from({ length: count }, (_, i) => join(directory, `mount-${i}`));
    for (const target of targets) mkdirSync(target);
    const script = join(directory, "server.mjs");
    buildSync({
      entryPoints: [join(import.meta.dirname, "memory-server.ts")],
      outfile: script,
      bundle: true,
      platform: "node",
      format: "esm",
      logLevel: "error",
    });
    const addon = join(ROOT, "native/build/Release/varve_native.node");
    const child = fork(script, targets, {
      env: { ...process.env, VARVE_NATIVE_ADDON: process.env.VARVE_NATIVE_ADDON ?? addon },
      ...user,
    });
    const server = new MemoryServer(directory, targets, child);
    await new Promise<void>((resolve, reject) => {
      server.#waiting.set(0, () => resolve());
      child.once("exit", (code) => reject(new Error(`server exited with ${code}`)));
    });
    return server;
  }

  /** The first mount. */
  get target(): string {
    return this.targets[0]!;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** A path in the first mount. */
  path(...names: string[]): string {
    return join(this.target, ...names);
  }

  /** Has the server do something; rejects with ServerError. */
  async ask<T = void>(command: ServerCommand): Promise<T> {
    const id = this.#nextId++;
    const answer = await new Promise<ServerAnswer>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#child.send({ id, command });
    });
    if (answer.error !== undefined) throw new ServerError(answer.error.code, answer.error.message);
    return answer.value as T;
  }

  report(target = this.target): Promise<MemoryStatistics> {
    return this.ask<MemoryStatistics>({ kind: "report", target });
  }

  events(): Promise<{ warnings: string[]; ends: string[] }> {
    return this.ask({ kind: "events" });
  }

  /** Kills the process without warning; its mounts stay, dead. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await exited;
  }

  /** Ends the process and removes its mounts and directory. */
  async stop(): Promise<void> {
    await this.kill();
    for (const mountPoint of mountsUnder(this.directory))
      execFileSync("umount", ["-l", mountPoint]);
    rmSync(this.directory, { recursive: true });
  }
}

/** Mount points below a directory, from mountinfo, innermost first. */
export function mountsUnder(directory: string): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((mountPoint) => mountPoint.startsWith(`${directory}/`))
    .reverse();
}
