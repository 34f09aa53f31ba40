/**
 * Making unpacked layers durable after they are in use.
 *
 * A layer can be unpacked again from its blob, which is on disk already, so nobody needs to wait for
 * its files: its row carries a mark with the machine's boot ID, and loses it once the disk has all.
 * Whoever finds the mark of another boot knows that a power cut may have taken files away. After a
 * mere crash of the daemon the kernel still has them.
 *
 * Neither row nor mark need to be durable before the files are; they come into being together.
 */

import type { Database } from "../metadata/database.js";
import { bootId } from "../system/boot-id.js";
import { faultPoint } from "../system/fault-points.js";
import type { Log } from "./log.js";
import { syncFileSystem } from "./sync.js";

/** Long enough that layers which come one after the other share a flush. */
const DELAY_MS = 300;
/** While layers are being unpacked a flush would slow them down; the kernel writes back by itself about then. */
const MAX_DELAY_MS = 30_000;

/** See the file comment. One per root. */
export class LateSync {
  readonly #directory: string;
  readonly #database: Database;
  readonly #log: Log;
  readonly #isBusy: () => boolean;
  #timer: NodeJS.Timeout | undefined;
  /** When the oldest mark was set that no flush has been begun for. */
  #markedAt: number | undefined;
  #flush: Promise<void> = Promise.resolve();

  /**
   * @param o.directory any directory of the file system that holds the snapshots
   * @param o.isBusy layers are being unpacked right now
   */
  constructor(o: { directory: string; database: Database; log: Log; isBusy(): boolean }) {
    this.#isBusy = o.isBusy;
    this.#directory = o.directory;
    this.#database = o.database;
    this.#log = o.log;
  }

  /** Snapshots that may be incomplete, since the machine went down before they were on disk. */
  doubtful(): string[] {
    return this.#database.unsynced.listOfOtherBoots(bootId);
  }

  /** Marks a snapshot whose row has just been made, in the same transaction. */
  mark(name: string): void {
    this.#database.unsynced.insert(name, bootId);
    this.#markedAt ??= performance.now();
    this.#schedule();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const waited = performance.now() - (this.#markedAt ?? 0);
      if (this.#isBusy() && waited < MAX_DELAY_MS) this.#schedule();
      else void this.flush();
    }, DELAY_MS);
    this.#timer.unref();
  }

  /** Makes all marked snapshots durable and takes their marks away; failures leave the marks. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#markedAt = undefined;
    this.#flush = this.#flush.then(() => this.#run());
    return this.#flush;
  }

  async #run(): Promise<void> {
    try {
      const names = this.#database.unsynced.list();
      if (names.length === 0) return;
      await syncFileSystem(this.#directory);
      faultPoint("snapshot.flushed");
      this.#database.transaction(() => {
        for (const name of names) this.#database.unsynced.delete(name);
      });
    } catch (error) {
      this.#log.warn(
        "snapshots: unpacked layers could not be flushed to the disk; they are unpacked again after the machine's next start",
        error,
      );
    }
  }
}
