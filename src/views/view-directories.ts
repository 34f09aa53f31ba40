/** Upper and work directories: `views/<id>/{upper,work}` below the root. */

import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { WORK_INDEX, WORK_ORPHANS, WORK_TEMPORARY } from "../overlay/format.js";
import type { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { syncDirectory } from "../snapshots/sync.js";
import { faultPoint } from "../system/fault-points.js";

const TEMPORARY = ".tmp-";
// 64 bits: unique among any number of views, short enough for paths and tables.
const ID_BYTES = 8;

/** The directories of one root. */
export class ViewDirectories {
  readonly #directory: string;
  readonly #tasks: LayerTasks;
  readonly #log: Log;
  readonly #flushes = new Map<string, Promise<void>>();

  constructor(o: { root: string; tasks: LayerTasks; log: Log }) {
    this.#directory = path.join(o.root, "views");
    this.#tasks = o.tasks;
    this.#log = o.log;
  }

  /** Makes the directory and removes those of no view in `ids`. */
  async open(ids: readonly string[]): Promise<void> {
    await fs.mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const expected = new Set(ids);
    for (const name of await fs.readdir(this.#directory)) {
      if (expected.has(name)) continue;
      this.#log.info(`views: removed left-over directory ${name}`);
      await this.#tasks.removeTree(path.join(this.#directory, name));
    }
  }

  /** A random ID, hexadecimal. */
  newId(): string {
    return randomBytes(ID_BYTES).toString("hex");
  }

  /** Where a view's directories are. */
  of(viewId: string): { upper: string; work: string } {
    const directory = path.join(this.#directory, viewId);
    return { upper: path.join(directory, "upper"), work: path.join(directory, "work") };
  }

  /**
   * Makes an empty upper directory and its work directory; the first mount gives the upper's root the
   * attributes of the image's. Durable once `flushed` has answered. No work for another thread, which would
   * have to be started first: a mount waits for it.
   */
  create(viewId: string): void {
    const { upper, work } = this.of(viewId);
    for (const name of [WORK_TEMPORARY, WORK_INDEX, WORK_ORPHANS]) {
      mkdirSync(path.join(work, name), { recursive: true, mode: 0o700 });
    }
    faultPoint("prepare.work");
    mkdirSync(upper, { mode: 0o700 });
    faultPoint("prepare.upper");
    const flush = this.#flush(path.dirname(upper));
    flush.catch(() => undefined); // told by `flushed`, to whom it matters
    this.#flushes.set(viewId, flush);
  }

  async #flush(directory: string): Promise<void> {
    await syncDirectory(directory);
    await syncDirectory(this.#directory);
  }

  /** Waits until the directories made by `create` are durable. @throws SyscallError the disk fails */
  async flushed(viewId: string): Promise<void> {
    const flush = this.#flushes.get(viewId);
    await flush;
    this.#flushes.delete(viewId);
  }

  /** Removes a view's directories, for which there must be no row any more. Failures are logged. */
  async remove(viewId: string): Promise<void> {
    faultPoint("remove.recorded");
    await this.flushed(viewId).catch(() => undefined);
    this.#flushes.delete(viewId);
    const removed = path.join(this.#directory, TEMPORARY + viewId);
    try {
      await fs.rename(path.join(this.#directory, viewId), removed);
      faultPoint("remove.renamed");
      await this.#tasks.removeTree(removed);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      this.#log.warn(`views: ${removed} is left for the next start to remove`, error);
    }
  }
}
