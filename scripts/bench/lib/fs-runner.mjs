/** Runs workloads on all file systems, turn and turn about. */

import { closeSync, openSync, readSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { MOUNT, VIEWS } from "./fs-workloads.mjs";
import { IMAGE } from "./images.mjs";
import { cpuMsOf, memoryMiB, must, timed } from "./measure.mjs";
import { interleaved } from "./report.mjs";

/** A file that every image has. */
const FIRST_BYTE = "etc/passwd";

export class FsRunner {
  /**
   * @param {{workspace: import("./workspace.mjs").Workspace, report: import("./report.mjs").Report, rounds: number,
   *   suffix: string, sides: import("./contestants.mjs").Contestant[], scene: import("./fs-workloads.mjs").Scene}} o
   *   `suffix`: put behind the names of rows
   */
  constructor(o) {
    Object.assign(this, o);
  }

  /** Mounting with a new upper directory, mounting again, and each until the first byte of a file was read. */
  async mounts() {
    for (const kind of [`${MOUNT} new`, `${MOUNT} again`]) {
      this.#announce(kind);
      for (const side of this.sides) {
        await side.open(true);
        await side.close();
      }
      for (const [, side] of interleaved(Math.max(this.rounds, 5), this.sides)) {
        const wallMs = await side.open(kind.endsWith("new"));
        const start = performance.now();
        readFirstByte(path.join(side.dir, FIRST_BYTE));
        const readMs = performance.now() - start;
        this.#add(kind, side, { wallMs });
        this.#add(`${kind} to first byte`, side, { wallMs: wallMs + readMs });
        await side.close();
      }
    }
  }

  /** One workload of lib/fs-workloads.mjs. */
  async run(workload) {
    this.#announce(workload.name);
    await (workload.state === "warm" ? this.#warm(workload) : this.#mounted(workload));
  }

  /** The daemon's memory and CPU time with one walked view and with `more` of them. */
  async views(daemon, more) {
    this.#announce(VIEWS);
    const resident = () => memoryMiB(daemon.pid, "Pss", "smaps_rollup");
    const mountAndWalk = async () => {
      const last = await daemon.last(daemon.client.mountView({ image: IMAGE }));
      must(["find", this.workspace.mustOwn(last.view.target), "-xdev", "-ls"]);
    };
    await mountAndWalk();
    const [one, cpu] = [resident(), cpuMsOf(daemon.pid)];
    for (let i = 0; i < more; i++) await mountAndWalk();
    const perView = (total) => (total / more).toFixed(2);
    const name = (what) => `${what}${this.suffix}`;
    this.report.fact(name("daemon with one walked view, Pss"), `${one.toFixed(1)} MiB`);
    this.report.fact(name(`with ${more + 1}, Pss`), `${resident().toFixed(1)} MiB`);
    this.report.fact(name("per further view, Pss"), `${perView(resident() - one)} MiB`);
    this.report.fact(
      name("CPU per further view, mounted and walked"),
      `${perView(cpuMsOf(daemon.pid) - cpu)} ms`,
    );
  }

  /** All file systems stay mounted from round to round; the first run of each does not count. */
  async #warm(workload) {
    for (const side of this.sides) {
      await side.open(false);
      if (workload.prepare) this.#prepare(workload, side);
      this.#time(workload, side);
    }
    for (const [, side] of interleaved(this.rounds, this.sides))
      this.#add(workload.name, side, this.#time(workload, side));
    for (const side of this.sides) await side.close();
  }

  /** Each run gets a mount of its own. */
  async #mounted(workload) {
    for (const [, side] of interleaved(this.rounds, this.sides)) {
      await side.open(workload.state === "fresh", workload.altersImage === true);
      if (workload.prepare) this.#prepare(workload, side);
      if (workload.remount) {
        await side.close();
        await side.open(false);
      }
      this.#add(workload.name, side, this.#time(workload, side));
      if (workload.cleanup) must(workload.cleanup(this.workspace.mustOwn(side.dir)));
      await side.close();
    }
  }

  #prepare(workload, side) {
    must(workload.prepare(this.workspace.mustOwn(side.dir), this.scene), {
      cwd: this.workspace.dir,
    });
  }

  #time(workload, side) {
    const dir = this.workspace.mustOwn(side.dir);
    if (!this.workspace.mounts().includes(dir)) throw new Error(`${dir} is not mounted`);
    return timed(workload.argv(dir, this.scene), {
      workspace: this.workspace,
      cwd: this.workspace.dir,
      daemons: side.daemons(),
      selfTimed: workload.selfTimed,
    });
  }

  #add(row, side, cost) {
    this.report.add(`${row}${this.suffix}`, side.name, cost);
  }

  #announce(name) {
    process.stderr.write(`${name}${this.suffix}\n`);
  }
}

function readFirstByte(file) {
  const fd = openSync(file, "r");
  readSync(fd, Buffer.alloc(1));
  closeSync(fd);
}
