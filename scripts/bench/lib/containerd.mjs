/** A private containerd below a workspace, for the benchmarks that compare with `ctr`. */

import { spawn, spawnSync } from "node:child_process";
import { existsSync, openSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export class PrivateContainerd {
  #child;

  /**
   * @param {import("./workspace.mjs").Workspace} workspace
   * @param {string} [snapshotter] socket of a proxy snapshotter, which is called "varve"
   */
  constructor(workspace, name = "containerd", snapshotter = undefined) {
    this.snapshotter = snapshotter;
    this.workspace = workspace;
    this.name = name;
    this.dir = workspace.makeDir(name);
    this.socket = path.join(this.dir, "c.sock");
  }

  async start() {
    const config = path.join(this.dir, "config.toml");
    // Only what images and snapshots need: no CRI, no other snapshotters that probe the host.
    writeFileSync(
      config,
      `version = 2
root = "${this.dir}/root"
state = "${this.dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "${this.socket}"
[ttrpc]
  address = "${this.dir}/t.sock"
${this.snapshotter === undefined ? "" : `[proxy_plugins.varve]\n  type = "snapshot"\n  address = "${this.snapshotter}"\n`}`,
    );
    const log = openSync(path.join(this.dir, "log"), "a");
    this.#child = spawn("containerd", ["--config", config], { stdio: ["ignore", log, log] });
    this.pid = this.#child.pid;
    this.workspace.atEnd(() => this.#kill());
    for (let tries = 0; !existsSync(this.socket); tries++) {
      if (this.#child.exitCode !== null || tries > 1000)
        throw new Error(`containerd did not start; see ${this.dir}/log`);
      await sleep(10);
    }
    while (spawnSync("ctr", ["-a", this.socket, "version"]).status !== 0) await sleep(20);
    return this;
  }

  /** A ctr command line against it. */
  ctr(...args) {
    return ["ctr", "-a", this.socket, ...args];
  }

  async stop() {
    if (this.#child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGTERM");
    await gone;
    this.workspace.remove(this.dir);
  }

  #kill() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    spawnSync("sleep", ["0.1"]);
  }
}
