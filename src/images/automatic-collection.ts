/**
 * Automatic collection: when the disk is fuller than one threshold, images that nothing uses go, the
 * least recently used first, until it is emptier than another.
 */

import { Mutex } from "async-mutex";
import type { DiskReserve } from "../content/disk-full.js";
import { nowNs } from "../metadata/clock.js";
import type { EventLog } from "../metadata/event-log.js";
import type { GarbageCollector } from "./garbage-collector.js";
import type { ImageStore } from "./image-store.js";
import { ImageUsers } from "./image-users.js";

/** How full the disk may become, in percent of what ordinary users can fill. */
export type Thresholds = { readonly high: number; readonly low: number };

/** What the collection works on. */
export type AutomaticCollectionOptions = {
  readonly images: ImageStore;
  readonly garbage: GarbageCollector;
  readonly events: EventLog;
  /** Undefined: only expired leases are looked after. */
  readonly thresholds: Thresholds | undefined;
  /** How full the disk is, in percent. */
  usedPercent(): Promise<number>;
  /** Given up while room is made. */
  readonly reserve?: Pick<DiskReserve, "hold" | "release">;
  readonly log: { info(message: string): void; warn(message: string, error?: unknown): void };
  /** What was used within this time stays: it was perhaps pulled to be mounted now. */
  readonly minAgeMs?: number;
};

const INTERVAL_MS = 60_000;
const MIN_AGE_MS = 60_000;

/** Something that can be removed, and when it was last used. */
type Candidate = { readonly usedNs: bigint; remove(): Promise<boolean> };

/** Looks at the disk now and then. */
export class AutomaticCollection {
  readonly #options: AutomaticCollectionOptions;
  readonly #mutex = new Mutex();
  #timer: NodeJS.Timeout | undefined;
  #unsubscribe: () => void = () => undefined;
  /** So that the log says once that nothing is left to remove. */
  #isStuck = false;
  /** The room that is being made just now, for everybody who found the disk full. */
  #making: Promise<boolean> | undefined;

  constructor(options: AutomaticCollectionOptions) {
    this.#options = options;
  }

  /** Checks every minute, and after each new image. */
  start(): void {
    this.#timer = setInterval(() => this.#checkSoon(), INTERVAL_MS);
    this.#timer.unref();
    this.#unsubscribe = this.#options.events.subscribe(({ type, action }) => {
      if (type === "image" && (action === "tag" || action === "create")) this.#checkSoon();
    });
  }

  /** Ends the checks; one that is under way has ended when this resolves. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#unsubscribe();
    await this.#mutex.waitForUnlock();
  }

  #checkSoon(): void {
    // One that is running sees what is new, or the next minute does.
    if (this.#mutex.isLocked()) return;
    this.check().catch((error: unknown) => {
      this.#options.log.warn("automatic collection failed; it is tried again", error);
    });
  }

  /** Collects if there is need; returns how many images and build steps went. */
  async check(): Promise<number> {
    return await this.#mutex.runExclusive(() => this.#check());
  }

  /**
   * Makes room for work that has found the disk full: garbage goes, what unfinished pulls had
   * fetched, and with thresholds images down to the low one. Never rejects.
   *
   * @returns false when nothing could be removed
   */
  makeRoom(): Promise<boolean> {
    this.#making ??= this.#mutex
      .runExclusive(() => this.#makeRoom())
      .catch((error: unknown) => {
        this.#options.log.warn("the disk is full, and collecting garbage failed", error);
        return false;
      })
      .finally(() => {
        this.#making = undefined;
      });
    return this.#making;
  }

  async #makeRoom(): Promise<boolean> {
    const { garbage, thresholds, images, reserve, log } = this.#options;
    const { database } = images;
    reserve?.release();
    try {
      database.transaction(() => database.leases.deleteUnfinishedPulls());
      const { blobs, snapshots } = await garbage.run();
      const removed = thresholds === undefined ? 0 : await this.#removeUntil(thresholds.low);
      const isMade = blobs.length + snapshots.length + removed > 0;
      if (isMade)
        log.info(`no space left: ${removed} images and build steps, and garbage, removed`);
      return isMade;
    } finally {
      reserve?.hold();
    }
  }

  async #check(): Promise<number> {
    const { garbage, thresholds, images, log } = this.#options;
    const { leases } = images.database;
    if (leases.list().some((lease) => leases.isExpired(lease))) await garbage.run();
    if (thresholds === undefined || (await this.#options.usedPercent()) <= thresholds.high) {
      this.#isStuck = false;
      return 0;
    }
    await garbage.run();
    const removed = await this.#removeUntil(thresholds.low);
    const used = Math.round(await this.#options.usedPercent());
    if (removed > 0) {
      log.info(
        `automatic collection: ${removed} images and build steps removed, disk ${used}% full`,
      );
    }
    if (used > thresholds.low && !this.#isStuck) {
      this.#isStuck = true;
      log.warn(`automatic collection: disk ${used}% full, and all images that are left are in use`);
    }
    return removed;
  }

  /** Removes one after another until the disk is so full, in percent; returns how many. */
  async #removeUntil(low: number): Promise<number> {
    let removed = 0;
    for (const candidate of await this.#candidates()) {
      if ((await this.#options.usedPercent()) <= low) break;
      if (!(await candidate.remove())) continue;
      removed += 1;
      await this.#options.garbage.run();
    }
    return removed;
  }

  /** What may go, the least recently used first. */
  async #candidates(): Promise<Candidate[]> {
    const { images, events, minAgeMs = MIN_AGE_MS } = this.#options;
    const { database } = images;
    const newest = nowNs() - BigInt(minAgeMs) * 1_000_000n;
    const steps = database.buildSteps.list().map(({ key, usedNs }) => ({
      usedNs,
      remove: async () => database.buildSteps.delete(key),
    }));
    const users = new ImageUsers(database);
    const unused = (await images.list()).filter((image) => !users.isInUse(image));
    const candidates = unused.map((image) => ({
      usedNs: image.lastUsedNs,
      remove: async () => {
        const isInUse = () => new ImageUsers(database).isInUse(image);
        const isGone = await images.removeUnused(image, isInUse);
        if (isGone) events.publish("store", "collect", "", { image: image.id });
        return isGone;
      },
    }));
    return [...steps, ...candidates]
      .filter(({ usedNs }) => usedNs < newest)
      .sort((a, b) => (a.usedNs < b.usedNs ? -1 : a.usedNs > b.usedNs ? 1 : 0));
  }
}
