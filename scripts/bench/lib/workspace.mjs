/** A private directory for one run: nothing is written, mounted or deleted outside it. */

import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { must } from "./measure.mjs";

export class Workspace {
  #endings = [];
  #closed = false;

  /** @param {string | undefined} parent where the directory is made; the system's temporary directory when unset */
  constructor(parent) {
    // Lower case, because podman takes an image's path for a name.
    this.dir = path.join(
      realpathSync(parent ?? tmpdir()),
      `varve-bench.${randomBytes(4).toString("hex")}`,
    );
    mkdirSync(this.dir, { mode: 0o755 });
    process.on("exit", () => this.close());
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
      process.on(signal, () => process.exit(130));
  }

  /** A path below the directory; refuses empty names and ways out, since benchmarks run as root. */
  path(...names) {
    if (names.some((name) => typeof name !== "string" || name === ""))
      throw new Error("workspace: empty name");
    return this.mustOwn(path.join(this.dir, ...names));
  }

  /** The same, made as a directory. */
  makeDir(...names) {
    const made = this.path(...names);
    mkdirSync(made, { recursive: true });
    return made;
  }

  /** Throws unless `target` is strictly below the directory. */
  mustOwn(target) {
    if (typeof target !== "string" || !path.resolve(target).startsWith(`${this.dir}/`))
      throw new Error(`workspace: ${JSON.stringify(target)} is not below ${this.dir}`);
    return path.resolve(target);
  }

  /** Removes what is at `target`, never crossing into a mount. */
  remove(target) {
    spawnSync("rm", ["-rf", "--one-file-system", this.mustOwn(target)]);
  }

  /**
   * A fresh ext4 of its own, mounted at a directory of that name.
   *
   * Without it, figures depend on what ran before: ext4 does not use the inodes of deleted files
   * again for one to five minutes and looks each of them up at every create, which makes creating
   * files up to fifteen times slower after somebody removed a big tree. Nor does anybody pay here
   * for the dirty pages or the journal of somebody else.
   *
   * @param {number} gibibytes its size; takes only what is written
   */
  makeDisk(name, gibibytes) {
    const target = this.makeDir(name);
    const image = this.path(`${name.replaceAll("/", "-")}.img`);
    must(["truncate", "-s", `${gibibytes}G`, image]);
    must(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", image]);
    const device = must(["losetup", "-f", "--show", "--direct-io=on", image]).trim();
    try {
      must(["mount", "-o", "noinit_itable", device, target]);
    } finally {
      must(["losetup", "-d", device]); // takes effect when it is unmounted
    }
    return target;
  }

  /** Unmounts a disk and whatever is mounted on it, and deletes its image. */
  dropDisk(name) {
    const target = this.path(name);
    for (const mount of this.mounts().reverse())
      if (mount === target || mount.startsWith(`${target}/`)) must(["umount", "-l", mount]);
    this.remove(this.path(`${name.replaceAll("/", "-")}.img`));
  }

  /** Runs `ending` (synchronous) at the end, last registered first. */
  atEnd(ending) {
    this.#endings.push(ending);
  }

  /** Ends what was started, unmounts whatever is still mounted below, and removes the directory. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    for (const ending of this.#endings.reverse()) {
      try {
        ending();
      } catch (error) {
        process.stderr.write(`bench: cleaning up: ${error.message}\n`);
      }
    }
    for (const target of this.mounts().reverse()) spawnSync("umount", ["-l", target]);
    spawnSync("rm", ["-rf", "--one-file-system", this.dir]);
  }

  /** Mount points below the directory, outer ones first. */
  mounts() {
    return readFileSync("/proc/self/mounts", "latin1")
      .split("\n")
      .map((line) => line.split(" ")[1] ?? "")
      .filter((target) => target.startsWith(`${this.dir}/`));
  }
}
