/** The other tools, with private storage inside a sandbox. */

import { type ChildProcess, spawn } from "node:child_process";
import { openSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { attempt, mountsBelow, run, type Sandbox } from "./sandbox.js";

/** buildah and podman over one private containers-storage. */
export class ContainerStorage {
  readonly #flags: readonly string[];
  readonly #directory: string;

  constructor(sandbox: Sandbox) {
    // Podman takes no run directory of more than 50 characters.
    this.#directory = sandbox.makeDirectory("cs");
    this.#flags = [
      ...["--root", `${this.#directory}/root`, "--runroot", `${this.#directory}/run`],
      ...["--storage-driver", "overlay"],
    ];
  }

  buildah(...args: string[]): string {
    return run("buildah", [...this.#flags, ...args]).trim();
  }

  podman(...args: string[]): string {
    return run("podman", [...this.#flags, ...args]).trim();
  }

  dispose(): void {
    attempt("buildah", [...this.#flags, "umount", "--all"]);
    attempt("podman", [...this.#flags, "image", "umount", "--all", "--force"]);
    for (const target of mountsBelow(this.#directory)) attempt("umount", ["-l", target]);
  }
}

/** A containerd of our own, with the overlayfs snapshotter. */
export class Containerd {
  readonly #sandbox: Sandbox;
  #process: ChildProcess | undefined;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  get #address(): string {
    return this.#sandbox.path("containerd/sock");
  }

  /** Starts it and waits until it answers. */
  async start(): Promise<void> {
    const directory = this.#sandbox.makeDirectory("containerd");
    writeFileSync(
      `${directory}/config.toml`,
      [
        "version = 2",
        `root = "${directory}/root"`,
        `state = "${directory}/state"`,
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
        `[grpc]\n  address = "${this.#address}"`,
      ].join("\n"),
    );
    const log = openSync(`${directory}/log`, "w");
    this.#process = spawn("containerd", ["--config", `${directory}/config.toml`], {
      stdio: ["ignore", log, log],
    });
    for (let turn = 0; turn < 100; turn++) {
      if (attempt("ctr", ["--address", this.#address, "version"]).status === 0) return;
      await sleep(100);
    }
    throw new Error(`containerd did not answer; see ${directory}/log`);
  }

  ctr(...args: string[]): string {
    return run("ctr", ["--address", this.#address, ...args]).trim();
  }

  /** Ends it and whatever it left mounted. */
  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
    for (const target of mountsBelow(this.#sandbox.path("containerd")))
      attempt("umount", ["-l", target]);
  }
}
