/** A private varve daemon below a workspace. */

import { spawn, spawnSync } from "node:child_process";
import { existsSync, openSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { must } from "./measure.mjs";

export const project = fileURLToPath(new URL("../../..", import.meta.url)).replace(/\/$/, "");

/** The launcher to measure: of this checkout, or of another one for before and after (VARVE_BENCH_CHECKOUT). */
export const varveProgram = path.join(process.env.VARVE_BENCH_CHECKOUT ?? project, "bin/varve");

/** What autostart and the systemd unit give the daemon's Node. */
const NODE_FLAGS = "--max-semi-space-size=2";

export class PrivateDaemon {
  /** @param {import("./workspace.mjs").Workspace} workspace */
  constructor(workspace, name = "varve", args = []) {
    this.workspace = workspace;
    this.dir = workspace.makeDir(name);
    this.args = args;
    this.socket = path.join(this.dir, "state/varve.sock");
    this.root = path.join(this.dir, "root");
    if (this.socket.length > 107)
      throw new Error(`${this.socket}: too long for a Unix socket; choose a shorter --dir`);
    this.env = {
      VARVE_ROOT: this.root,
      VARVE_STATE: path.join(this.dir, "state"),
      VARVE_SOCKET: this.socket,
      VARVE_NO_AUTOSTART: "1",
    };
  }

  /** Starts it and waits until it answers. */
  async start() {
    const log = openSync(path.join(this.dir, "daemon.log"), "a");
    const given = process.env.VARVE_BENCH_DAEMON_NODE_ARGS ?? NODE_FLAGS;
    const nodeArgs = given.split(" ").filter(Boolean);
    // Nobody may start another one when a run is cut short and this one is killed.
    const daemonArgs = ["daemon", "--no-supervise", ...this.args];
    this.child = spawn(process.execPath, [...nodeArgs, varveProgram, ...daemonArgs], {
      // As the command line starts it.
      env: { MALLOC_ARENA_MAX: "2", ...process.env, ...this.env },
      cwd: this.dir,
      stdio: ["ignore", log, log],
    });
    this.pid = this.child.pid;
    this.workspace.atEnd(() => this.kill());
    for (let tries = 0; !existsSync(this.socket); tries++) {
      if (this.child.exitCode !== null || tries > 1000)
        throw new Error(`the daemon did not start; see ${this.dir}/daemon.log`);
      await sleep(10);
    }
    const { VarveClient } = await import(
      pathToFileURL(path.join(path.dirname(varveProgram), "../dist/client/index.js")).href
    );
    this.client = VarveClient.connect({ socket: this.socket });
    await this.client.version();
    return this;
  }

  /** Ends it cleanly and waits. */
  async stop() {
    this.client?.close();
    if (this.child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGTERM");
    await gone;
  }

  /** For the workspace's end, which is synchronous: asks, waits up to 5 s, then kills. */
  kill() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill("SIGTERM");
    const wait =
      "for i in $(seq 100); do [ -d /proc/$0/task ] && ! grep -q '^State:.Z' /proc/$0/status || exit 0; sleep 0.05; done; kill -9 $0";
    spawnSync("bash", ["-c", wait, String(this.pid)]);
  }

  /** Runs a command of varve against it. */
  cli(...args) {
    return must([process.execPath, varveProgram, ...args], {
      env: { ...process.env, ...this.env },
    });
  }

  /** The last message of a streaming call. */
  async last(stream) {
    let last;
    for await (const message of stream) last = message;
    return last;
  }
}
