/** An ext4 file system on a disk whose power can be cut. */

import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { buildSync } from "esbuild";
import type { CutCommand } from "./volatile-disk-server.js";

const PROJECT = path.resolve(import.meta.dirname, "../../..");
const BYTES = 160 * 1024 * 1024;

/** Mounts what is in an image file. */
export function mountImage(image: string, target: string): void {
  mkdirSync(target, { recursive: true });
  execFileSync("mount", ["-o", "loop,noatime,nodiscard", image, target]);
}

/** See the file comment. Its parts lie in `directory`. */
export class VolatileDisk {
  readonly #directory: string;
  #child: ChildProcess | undefined;
  #lastCommand = 0;
  readonly #mountPoint: string;

  constructor(directory: string) {
    this.#directory = directory;
    this.#mountPoint = path.join(directory, "fuse");
  }

  /** Makes the file system and mounts it. */
  async start(target: string): Promise<void> {
    mkdirSync(this.#mountPoint, { recursive: true });
    const script = path.join(this.#directory, "server.mjs");
    buildSync({
      entryPoints: [path.join(import.meta.dirname, "volatile-disk-server.ts")],
      ...({
        outfile: script,
        bundle: true,
        platform: "node",
        format: "esm",
        logLevel: "error",
      } as const),
    });
    const addon = path.join(PROJECT, "native/build/Release/varve_native.node");
    this.#child = fork(script, [this.#mountPoint, String(BYTES)], {
      env: { ...process.env, VARVE_NATIVE_ADDON: process.env.VARVE_NATIVE_ADDON ?? addon },
    });
    await this.#answerTo(0);
    const blank = path.join(this.#directory, "blank");
    writeFileSync(blank, "");
    truncateSync(blank, BYTES);
    const quiet = [
      "-q",
      "-F",
      "-J",
      "size=8",
      "-E",
      "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    ];
    execFileSync("mkfs.ext4", [...quiet, blank]);
    const disk = path.join(this.#mountPoint, "disk");
    copyFileSync(blank, disk);
    execFileSync("sync", [disk]);
    rmSync(blank);
    mountImage(disk, target);
  }

  /** Writes the disk as a power cut now would leave it. @param losesOneIn see CutCommand */
  async cut(output: string, losesOneIn: number): Promise<void> {
    const id = ++this.#lastCommand;
    const command: CutCommand = { id, output, losesOneIn };
    this.#child?.send(command);
    await this.#answerTo(id);
  }

  #answerTo(id: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const exited = (code: number | null) => reject(new Error(`the disk ended with ${code}`));
      const listen = (answer: { id: number }) => {
        if (answer.id !== id) return;
        this.#child?.off("message", listen);
        this.#child?.off("exit", exited);
        resolve();
      };
      this.#child?.on("message", listen);
      this.#child?.once("exit", exited);
    });
  }

  /** Unmounts, in the order in which nothing waits for what is gone. */
  stop(target: string): void {
    spawnSync("umount", [target]);
    spawnSync("umount", [this.#mountPoint]);
    this.#child?.kill("SIGKILL");
    spawnSync("umount", ["-l", this.#mountPoint]);
  }
}
