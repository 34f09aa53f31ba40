/** A private directory with layers, an upper directory and real FUSE mounts of them, for one test. */

import { type ChildProcess, execFileSync, fork } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { buildIndex } from "../../../src/layers/index-builder.js";
import type { ViewOptions } from "./view-server.js";

const ADDON = join(import.meta.dirname, "../../../native/build/Release/varve_native.node");

/**
 * How the kernel gets at file data; "old kernel": passthrough is asked of one that knows nothing newer
 * than Linux 5.10.
 */
export type BenchMode = "cached" | "passthrough" | "old kernel";

/** All of them. */
export const BENCH_MODES: readonly BenchMode[] = ["cached", "passthrough", "old kernel"];

interface Message {
  ready?: boolean;
  ended?: boolean;
  warning?: string;
}

/** See the file comment. */
export class ViewBench {
  readonly path = mkdtempSync(join(tmpdir(), "varve-overlay-"));
  readonly target = join(this.path, "view");
  upperDir = join(this.path, "upper");
  workDir = join(this.path, "work");
  readonly layerDirs: string[] = [];
  /** Complaints of the server: must stay empty. */
  readonly warnings: string[] = [];
  #indexPath: string | undefined;
  #script: string | undefined;
  #child: ChildProcess | undefined;
  #overlays: string[] = [];
  readonly #disks: string[] = [];

  constructor(readonly io: BenchMode = "cached") {
    chmodSync(this.path, 0o755);
    for (const directory of [this.target, this.upperDir, this.workDir]) mkdirSync(directory);
  }

  /** Adds a layer that `script` (bash, in the layer's directory) makes. */
  addLayer(script: string): string {
    const number = this.layerDirs.length;
    const fsDir = join(this.path, `layer-${number}`);
    mkdirSync(fsDir);
    execFileSync("bash", ["-euc", script], { cwd: fsDir, stdio: ["ignore", "ignore", "inherit"] });
    const outputPath = join(this.path, `index-${number}`);
    buildIndex({
      ...(this.#indexPath !== undefined && { parentIndexPath: this.#indexPath }),
      chainId: `chain-${number}`,
      fsDir,
      impliedDirectories: [],
      outputPath,
      privileged: true,
    });
    this.#indexPath = outputPath;
    this.layerDirs.push(fsDir);
    return fsDir;
  }

  /** Makes this a view of the layers that another bench has, which must outlive it. */
  shareLayers(other: ViewBench): void {
    this.layerDirs.push(...other.layerDirs);
    this.#indexPath = other.indexPath;
  }

  /** Puts the upper and the work directory on a disk mounted on `path`, which is unmounted at the end. */
  useDisk(path: string): void {
    this.#disks.push(path);
    this.upperDir = join(path, "upper");
    this.workDir = join(path, "work");
    for (const directory of [this.upperDir, this.workDir]) mkdirSync(directory);
  }

  /** Path of the chain's index. */
  get indexPath(): string {
    return this.#indexPath!;
  }

  /** Mounts the view; use it freely from here, another process serves it. */
  async mount(readOnly = false): Promise<string> {
    const options: ViewOptions = {
      target: this.target,
      layerDirs: this.layerDirs,
      passthrough: this.io !== "cached",
      ...(this.#indexPath !== undefined && { indexPath: this.#indexPath }),
      ...(!readOnly && { upperDir: this.upperDir, workDir: this.workDir }),
    };
    const file = join(this.path, "view.json");
    writeFileSync(file, JSON.stringify(options));
    const child = fork(this.#bundle(), [file], {
      env: {
        ...process.env,
        VARVE_NATIVE_ADDON: ADDON,
        VARVE_OLD_KERNEL: this.io === "old kernel" ? "1" : "",
      },
      execArgv: [],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.on("message", (message: Message) => {
        if (message.warning !== undefined) this.warnings.push(message.warning);
        if (message.ready) resolve();
      });
      child.once("exit", (code) => reject(new Error(`view server exited with ${code}`)));
    });
    return this.target;
  }

  #bundle(): string {
    if (this.#script !== undefined) return this.#script;
    this.#script = join(this.path, "server.mjs");
    buildSync({
      entryPoints: [join(import.meta.dirname, "view-server.ts")],
      outfile: this.#script,
      bundle: true,
      platform: "node",
      format: "esm",
      logLevel: "error",
    });
    return this.#script;
  }

  /** Pid of the serving process. */
  get pid(): number {
    return this.#child!.pid!;
  }

  /** Unmounts the view and waits for its server to end. */
  async unmount(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    execFileSync("umount", [this.target]);
    await ended;
  }

  /** Kills the server as kill -9 does, and clears the dead mount away. */
  async kill(): Promise<void> {
    const child = this.#child!;
    this.#child = undefined;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill("SIGKILL");
    await ended;
    execFileSync("umount", ["-l", this.target]);
  }

  /** Unmounts and mounts again. */
  async remount(): Promise<void> {
    await this.unmount();
    await this.mount();
  }

  /** The same tree by the kernel's own overlayfs, read-only; the view must not be mounted. */
  mountKernelOverlay(): string {
    const target = join(this.path, `kernel-${this.#overlays.length}`);
    mkdirSync(target);
    const lower = [this.upperDir, ...[...this.layerDirs].reverse()].join(":");
    const options = `lowerdir=${lower},redirect_dir=follow,metacopy=on`;
    execFileSync("mount", ["-t", "overlay", "overlay", "-o", options, target]);
    this.#overlays.push(target);
    return target;
  }

  /** Undoes every `mountKernelOverlay`. */
  unmountKernelOverlays(): void {
    for (const target of this.#overlays.splice(0)) {
      execFileSync("umount", [target]);
      rmdirSync(target);
    }
  }

  /** Unmounts everything and removes the directory. */
  async dispose(): Promise<void> {
    this.unmountKernelOverlays();
    try {
      await this.unmount();
    } catch {
      execFileSync("umount", ["-l", this.target]);
      this.#child?.kill("SIGKILL");
    }
    for (const disk of this.#disks) execFileSync("umount", [disk]);
    execFileSync("rm", ["-rf", this.path]);
  }
}

/** Runs a bash script in `cwd`: its standard output. Fails with its standard error. */
export function shell(cwd: string, script: string): string {
  return execFileSync("bash", ["-euo", "pipefail", "-c", script], {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 64 << 20,
  });
}
