/** The file systems that are compared: bare ext4, and unions of the same layer directories. */

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, renameSync, symlinkSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { IMAGE } from "./images.mjs";
import { has, must } from "./measure.mjs";

/** The workspace's disk that everything is on. */
export const DISK = "d";

/**
 * @typedef {object} Contestant
 * @property {string} name
 * @property {string} dir where it is mounted while open
 * @property {(fresh: boolean, altersImage?: boolean) => Promise<number>} open mounts it, without earlier changes when
 *   `fresh` (`altersImage`: what comes changes files of the image, not only adds some); returns the ms it took
 * @property {() => Promise<void>} close unmounts it; what was written stays
 * @property {() => number[]} daemons processes whose CPU time belongs to it
 */

/**
 * Bare ext4, kernel overlayfs, fuse-overlayfs when installed, and varve in each I/O mode asked for.
 *
 * @param {import("./workspace.mjs").Workspace} workspace
 * @param {import("./daemon.mjs").PrivateDaemon} daemon with the image loaded and unpacked
 * @param {string[]} modes of varve: "cached", "passthrough"
 * @returns {Contestant[]}
 */
export function contestants(workspace, daemon, modes) {
  const lowers = lowerDirs(workspace, daemon);
  const overlay = new OverlayMount(workspace, "overlayfs", lowers);
  const peers = [new PlainTree(workspace, overlay), overlay];
  if (has("fuse-overlayfs")) peers.push(new OverlayMount(workspace, "fuse-overlayfs", lowers));
  return [...peers, ...modes.map((mode) => new VarveView(daemon, mode))];
}

/** The layers' directories, uppermost first, by short relative names: mount(2) takes one page of options. */
function lowerDirs(workspace, daemon) {
  const [image] = JSON.parse(daemon.cli("inspect", IMAGE));
  workspace.remove(workspace.path("l")); // of an image with another number of layers
  const links = workspace.makeDir("l");
  return image.ChainIDs.map((chainId, i) => {
    symlinkSync(
      path.join(daemon.root, "snapshots", chainId.replace(/^sha256:/, ""), "fs"),
      path.join(links, String(i)),
    );
    return `l/${i}`;
  }).reverse();
}

/** Unmounts it, also when somebody who looks at every mount of the machine has it open for a moment. */
function unmount(target) {
  for (let tries = 0; tries < 100; tries++) {
    if (spawnSync("umount", [target]).status === 0) return;
    must(["sleep", "0.05"]);
  }
  must(["umount", target]);
}

/** A copy of the image's tree on the disk itself, seen through a bind mount like the others through theirs. */
class PlainTree {
  name = "ext4";
  #copies = 0;
  #asides = 0;
  #isAltered = true;

  /** @param {OverlayMount} image shows the tree to copy */
  constructor(workspace, image) {
    this.workspace = workspace;
    this.image = image;
    this.dir = workspace.makeDir(DISK, this.name, "merged");
  }

  async open(fresh, altersImage = false) {
    if (this.#copies === 0 || (fresh && this.#isAltered)) await this.#copy();
    else if (fresh) this.#putAside();
    this.#isAltered = altersImage || (this.#isAltered && !fresh);
    const start = performance.now();
    must(["mount", "--bind", this.#tree(), this.dir]);
    return performance.now() - start;
  }

  async close() {
    unmount(this.dir);
  }

  daemons() {
    return [];
  }

  #tree() {
    return this.workspace.path(DISK, this.name, `tree-${this.#copies}`);
  }

  /** A new copy beside the old, flushed, so that its writing out is not measured with the work. */
  async #copy() {
    this.#copies++;
    await this.image.open(true);
    must(["cp", "-a", this.image.dir, this.#tree()]);
    must(["sync", "-f", this.#tree()]);
    this.original = new Set(readdirSync(this.#tree()));
    this.#isAltered = false;
    await this.image.close();
  }

  /** Takes away what workloads added to the root. */
  #putAside() {
    const added = readdirSync(this.#tree()).filter((name) => !this.original.has(name));
    if (added.length === 0) return;
    const aside = this.workspace.makeDir(DISK, this.name, `aside-${++this.#asides}`);
    for (const name of added) renameSync(path.join(this.#tree(), name), path.join(aside, name));
  }
}

/** A union file system that a command mounts. */
class OverlayMount {
  #uppers = 0;

  constructor(workspace, name, lowers) {
    this.workspace = workspace;
    this.name = name;
    this.lowers = lowers;
    this.dir = workspace.makeDir(DISK, name, "merged");
  }

  async open(fresh) {
    // A new one beside the old: deleting trees would slow down what is created next.
    if (fresh || this.#uppers === 0) this.#uppers++;
    const [upper, work] = ["upper", "work"].map((part) =>
      this.workspace.makeDir(DISK, this.name, `${part}-${this.#uppers}`),
    );
    const options = `lowerdir=${this.lowers.join(":")},upperdir=${upper},workdir=${work}`;
    const argv =
      this.name === "overlayfs"
        ? ["mount", "-t", "overlay", "bench", "-o", options, this.dir]
        : ["fuse-overlayfs", "-o", options, this.dir];
    const start = performance.now();
    must(argv, { cwd: this.workspace.dir });
    return performance.now() - start;
  }

  async close() {
    unmount(this.dir);
    // fuse-overlayfs ends a moment after its mount; its upper must not be mounted again before.
    while (this.daemons().length > 0) must(["sleep", "0.01"]);
  }

  daemons() {
    if (this.name === "overlayfs") return [];
    return readdirSync("/proc")
      .filter((pid) => /^\d+$/.test(pid) && this.#isMine(pid))
      .map(Number);
  }

  #isMine(pid) {
    try {
      const argv = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
      return argv[0] === "fuse-overlayfs" && argv.includes(this.dir);
    } catch {
      return false;
    }
  }
}

/** A view of varve, opened and closed through its client as a program would. */
class VarveView {
  #views = [];

  constructor(daemon, mode) {
    this.daemon = daemon;
    this.mode = mode;
    this.name = mode === "passthrough" ? "varve-pt" : "varve";
  }

  get dir() {
    return this.#views.at(-1).target;
  }

  async open(fresh) {
    const { client } = this.daemon;
    if (fresh && this.#views.length > 0) await client.removeView({ name: this.#views.pop().id });
    const known = this.#views.at(-1);
    const start = performance.now();
    const last = await this.daemon.last(
      client.mountView(known ? { name: known.id } : { image: IMAGE, io: this.mode }),
    );
    const took = performance.now() - start;
    if (!known) this.#views.push(last.view);
    return took;
  }

  async close() {
    await this.daemon.client.unmountView({ name: this.#views.at(-1).id });
  }

  daemons() {
    return [this.daemon.pid];
  }
}
