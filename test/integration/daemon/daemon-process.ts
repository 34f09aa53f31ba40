/** A daemon process with private directories. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isListening } from "../../../src/client/autostart.js";
import { VarveClient } from "../../../src/client/client.js";
import type { View } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { readMounts } from "../../../src/views/mount-table.js";

const ENTRY = path.resolve(import.meta.dirname, "../../../dist/daemon/bundle/main.mjs");

/** Directories of one daemon, and the daemon that runs on them now. */
export class DaemonSandbox {
  readonly directory = mkdtempSync(path.join(os.tmpdir(), "varve-daemon-"));
  readonly socket = this.path("state/varve.sock");
  readonly client = VarveClient.connect({ socket: this.socket });
  #child: ChildProcess | undefined;
  #log = "";

  path(...parts: string[]): string {
    return path.join(this.directory, ...parts);
  }

  /** What the daemons wrote to standard error. */
  get log(): string {
    return this.#log;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts a daemon that may fail; resolves with the exit code, or undefined once it answers. */
  async tryStart(...flags: string[]): Promise<number | undefined> {
    return this.#spawn({}, flags);
  }

  async #spawn(
    variables: Readonly<Record<string, string>>,
    flags: readonly string[],
  ): Promise<number | undefined> {
    const child = this.#launch(variables, flags);
    while (child.exitCode === null && child.signalCode === null) {
      // It listens before it is ready, and answers when it is.
      if (await isListening(this.socket)) {
        const isAnswered = await this.client.version().then(
          () => true,
          () => false,
        );
        if (isAnswered) return undefined;
      }
      await sleep(10);
    }
    return child.exitCode ?? -1;
  }

  #launch(variables: Readonly<Record<string, string>>, flags: readonly string[]): ChildProcess {
    // Unless a test says otherwise it starts the next daemon itself, and a dead one's views are dead.
    const unsupervised = flags.includes("--supervise") ? [] : ["--no-supervise"];
    const directories = ["--root", this.path("root"), "--state", this.path("state")];
    const given = [...directories, ...unsupervised, ...flags];
    const child = spawn(process.execPath, [ENTRY, ...given], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...variables },
    });
    this.#child = child;
    child.stderr.on("data", (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    return child;
  }

  /** Starts a daemon and kills it so long after that, however far it got. */
  async startAndKill(afterMs: number): Promise<void> {
    this.#launch({}, []);
    await sleep(afterMs);
    await this.end("SIGKILL");
  }

  async start(...flags: string[]): Promise<void> {
    await this.startWith({}, ...flags);
  }

  /** Starts a daemon with more environment variables. */
  async startWith(variables: Readonly<Record<string, string>>, ...flags: string[]): Promise<void> {
    const code = await this.#spawn(variables, flags);
    if (code !== undefined) throw new Error(`daemon ended with ${code}:\n${this.#log}`);
  }

  /** Sends a signal and waits for the end; the exit code, null for death by signal. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return null;
    const exit = once(child, "exit");
    child.kill(signal);
    const [code] = (await exit) as [number | null];
    return code;
  }

  /** The exit code of the daemon that was started last, when it has ended by itself. */
  async exitCode(): Promise<number | null> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      await once(child, "exit");
    }
    return child?.exitCode ?? null;
  }

  /** The signal that the daemon dies of, when it has died. */
  async deathSignal(): Promise<NodeJS.Signals | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    return child.signalCode;
  }

  /** The daemon at work, which a keeper may have started; 0 while there is none. */
  get currentPid(): number {
    const file = this.path("state/daemon.pid");
    return existsSync(file) ? Number(readFileSync(file, "utf8")) : 0;
  }

  /** Kills what runs, unmounts and removes everything. */
  async dispose(): Promise<void> {
    if (existsSync(this.path("state/keeper.sock"))) {
      // A keeper may be about to start another one.
      while (existsSync(this.path("state/keeper.sock"))) {
        await this.client.shutdown().catch(() => undefined);
        await sleep(20);
      }
    }
    this.client.close();
    await this.end("SIGKILL");
    for (const target of this.mounts()) spawnSync("umount", ["-l", target]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Mount points below the sandbox. */
  mounts(): string[] {
    return readMounts()
      .map((mount) => mount.mountPoint)
      .filter((target) => target.startsWith(`${this.directory}/`));
  }

  async load(layout: string): Promise<string[]> {
    const names: string[] = [];
    for await (const { loaded } of this.client.loadImages({ path: layout })) {
      if (loaded !== undefined) names.push(loaded.reference);
    }
    return names;
  }

  async mount(request: Parameters<VarveClient["mountView"]>[0]): Promise<View> {
    let view: View | undefined;
    for await (const message of this.client.mountView(request)) view = message.view ?? view;
    if (view === undefined) throw new Error("no view came back");
    return view;
  }

  async commit(request: Parameters<VarveClient["commitView"]>[0]) {
    for await (const { image } of this.client.commitView(request)) {
      if (image !== undefined) return image;
    }
    throw new Error("no image came back");
  }

  /** Unpacks what the first mount would. */
  async unpack(reference: string): Promise<void> {
    for await (const { chainId } of this.client.unpackImage({ reference })) void chainId;
  }

  /** docker-style lines: "A /path". */
  async diff(name: string): Promise<string[]> {
    const lines: string[] = [];
    for await (const { changes } of this.client.diffView({ name })) {
      for (const { kind, path: changed } of changes) {
        lines.push(`${" ACD"[kind]} ${Buffer.from(changed).toString()}`);
      }
    }
    return lines;
  }
}

/** A program's exit status and output; asynchronous, because the test's own thread serves nothing. */
export function run(command: string, ...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  return { status, output: `${stdout}${stderr}`.trim() };
}

/** True when a process with this ID exists. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
