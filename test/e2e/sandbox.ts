/** A private varve for one test file: own directories, own daemon, nothing left afterwards. */

import { execFileSync, type SpawnSyncReturns, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** The checkout. */
export const PROJECT = resolve(import.meta.dirname, "../..");

/** What a command printed and how it ended. */
export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Options of a command's run. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: Buffer | string;
}

/** Runs a program; never throws for its exit code. */
export function attempt(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Outcome {
  const result: SpawnSyncReturns<string> = spawnSync(command, [...args], {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.input === undefined ? {} : { input: options.input }),
  });
  if (result.error !== undefined) throw result.error;
  return { status: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
}

/** Runs a program that must succeed; its standard output. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): string {
  const { status, stdout, stderr } = attempt(command, args, options);
  if (status !== 0)
    throw new Error(`${command} ${args.join(" ")}: exit ${status}\n${stdout}\n${stderr}`);
  return stdout;
}

/** Runs a shell script that must succeed. */
export function shell(script: string, options: RunOptions = {}): string {
  return run("bash", ["-euo", "pipefail", "-c", script], options);
}

/** An archive of a real image, made once per checkout. */
export function makeImage(image: "busybox" | "debian", output: string): string {
  run(join(PROJECT, "scripts/make-image"), ["--image", image, "-o", output]);
  return output;
}

/** Mount points below a directory, deepest first. */
export function mountsBelow(directory: string): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((target) => target.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length);
}

/** Private directories and a daemon that commands start by themselves. */
export class Sandbox {
  readonly directory: string;
  readonly env: Readonly<Record<string, string>>;

  constructor(name: string) {
    this.directory = mkdtempSync(join(tmpdir(), `varve-e2e-${name}-`));
    this.env = {
      VARVE_ROOT: this.path("root"),
      VARVE_STATE: this.path("state"),
      VARVE_SOCKET: this.path("state/varve.sock"),
      NO_COLOR: "1",
    };
  }

  /** A path inside the sandbox. */
  path(...parts: string[]): string {
    return join(this.directory, ...parts);
  }

  /** A new directory inside the sandbox. */
  makeDirectory(name: string): string {
    mkdirSync(this.path(name), { recursive: true });
    return this.path(name);
  }

  /** Runs `varve`, which must succeed; its standard output without the last newline. */
  varve(...args: string[]): string {
    return run(join(PROJECT, "bin/varve"), args, { env: this.env }).replace(/\n$/, "");
  }

  /** Runs `varve` and reports how it ended. */
  try(...args: string[]): Outcome {
    return attempt(join(PROJECT, "bin/varve"), args, { env: this.env });
  }

  /** Mounts a view of an image; its path. */
  mount(image: string, name: string, ...flags: string[]): string {
    return this.varve("mount", image, "--name", name, ...flags);
  }

  /** Stops the daemon and removes everything, mounts of other tools included. */
  dispose(): void {
    attempt(join(PROJECT, "bin/varve"), ["--no-autostart", "daemon", "stop"], { env: this.env });
    for (const target of mountsBelow(this.directory)) attempt("umount", ["-l", target]);
    execFileSync("rm", ["-rf", "--one-file-system", this.directory]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}
