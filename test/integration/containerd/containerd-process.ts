/** A containerd with directories of its own, whose snapshotter "varve" is at a given socket. */

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const START_MS = 120_000;

/** Programs of another release than the installed one, for `scripts/conformance/containerd`. */
const PROGRAMS = process.env.VARVE_TEST_CONTAINERD;
const env = {
  ...process.env,
  ...(PROGRAMS === undefined ? {} : { PATH: `${PROGRAMS}:${process.env.PATH}` }),
};

/** "1.6", "2.1" */
function containerdRelease(): string {
  const version = execFileSync("containerd", ["--version"], { env, encoding: "utf8" });
  return /containerd\S* (?:v)?(\d+\.\d+)/.exec(version)?.[1] ?? version;
}

/** Debian's containerd 1.6, or another release. */
export class ContainerdProcess {
  static readonly release = containerdRelease();
  /** Since 1.7 a differ may be outside of containerd: it uses ours. */
  static readonly hasProxyDiffer = Number.parseFloat(ContainerdProcess.release) >= 1.7;
  readonly #directory: string;
  readonly #socket: string;
  #child: ChildProcess | undefined;

  /** @param directory short enough for sockets below it; made, and removed by `dispose` */
  constructor(directory: string, snapshotter: string, options: { cri?: boolean } = {}) {
    this.#directory = directory;
    this.#socket = path.join(directory, "containerd.sock");
    mkdirSync(directory);
    const cri = options.cri ?? false;
    writeFileSync(this.#config, configuration(directory, this.#socket, snapshotter, cri));
  }

  get socket(): string {
    return this.#socket;
  }

  async start(): Promise<void> {
    const log = path.join(this.#directory, "log");
    const child = spawn("sh", ["-c", `exec containerd -c ${this.#config} >>${log} 2>&1`], {
      stdio: "ignore",
      env,
    });
    this.#child = child;
    const deadline = Date.now() + START_MS;
    while (Date.now() < deadline && child.exitCode === null) {
      if (existsSync(this.#socket) && (await this.#answers())) return;
      await sleep(50);
    }
    throw new Error(`containerd did not start:\n${readFileSync(log, "utf8")}`);
  }

  /** Runs ctr; its standard output. */
  async ctr(...args: string[]): Promise<string> {
    return (await this.ctrBytes(...args)).toString();
  }

  async ctrBytes(...args: string[]): Promise<Buffer> {
    const { stdout } = await promisify(execFile)("ctr", ["-a", this.#socket, ...args], {
      encoding: "buffer",
      env,
      maxBuffer: 1 << 28,
    });
    return stdout;
  }

  /** Runs a shell line, which may run again, in a container that is running; its output. */
  async exec(container: string, line: string): Promise<string> {
    const end = "<end>\n";
    for (let attempt = 0; attempt < 10; attempt++) {
      const id = `exec-${process.hrtime.bigint()}`;
      const command = ["/bin/sh", "-c", `${line}; echo "${end.trim()}"`];
      const output = await this.ctr("task", "exec", "--exec-id", id, container, ...command);
      // ctr may leave before it has copied all output.
      if (output.endsWith(end)) return output.slice(0, -end.length);
    }
    throw new Error(`ctr lost the output of ${line}`);
  }

  /** Waits until containerd talks to its snapshotter again: it tries every few seconds. */
  async reconnected(): Promise<void> {
    const list = () => this.ctr("snapshots", "--snapshotter", "varve", "usage");
    const deadline = Date.now() + START_MS;
    while (Date.now() < deadline) {
      if (
        await list().then(
          () => true,
          () => false,
        )
      )
        return;
      await sleep(100);
    }
    await list();
  }

  /** Stops a container's task, and waits until it is gone. */
  async stopTask(container: string): Promise<void> {
    await this.ctr("task", "kill", "-s", "KILL", container);
    for (let attempt = 0; attempt < 100; attempt++) {
      if (/\bSTOPPED\b/.test(await this.ctr("task", "ls"))) break;
      await sleep(50);
    }
    await this.ctr("task", "rm", container);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill("SIGTERM");
    await exit;
  }

  /** Ends containers and containerd, and removes the directory. */
  async dispose(): Promise<void> {
    const containers = await this.ctr("task", "ls", "-q").catch(() => "");
    for (const container of containers.split("\n").filter((name) => name !== "")) {
      await this.ctr("task", "rm", "-f", container).catch(() => undefined);
    }
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get #config(): string {
    return path.join(this.#directory, "config.toml");
  }

  #answers(): Promise<boolean> {
    return this.ctr("version").then(
      () => true,
      () => false,
    );
  }
}

function configuration(
  directory: string,
  socket: string,
  snapshotter: string,
  cri: boolean,
): string {
  const disabled = ["io.containerd.snapshotter.v1.devmapper"];
  if (!cri) disabled.push("io.containerd.grpc.v1.cri");
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = ${JSON.stringify(disabled)}
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[proxy_plugins.varve]
  type = "snapshot"
  address = "${snapshotter}"
${ContainerdProcess.hasProxyDiffer ? withDiffer(snapshotter) : ""}`;
}

/** What docs/containerd.md says of 1.7 and 2. */
function withDiffer(socket: string): string {
  const platform = `linux/${process.arch === "x64" ? "amd64" : process.arch}`;
  return `[proxy_plugins.varve-diff]
  type = "diff"
  address = "${socket}"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["varve-diff", "walking"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "${platform}"
  snapshotter = "varve"
  differ = "varve-diff"
`;
}
