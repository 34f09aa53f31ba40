/**
 * Gives memory back that work has freed. malloc returns by itself only what lies above everything that is still
 * used, so one small object keeps all below it; and V8 has been seen to keep 100 MB of garbage for as long as nothing
 * was done after twenty minutes of load.
 */

import v8 from "node:v8";
import vm from "node:vm";
import { sys } from "../system/addon.js";

const INTERVAL_MS = 10_000;
/** More CPU time than the timers of an idle daemon use between two looks, and less than any work. */
const WORK_MS = 50;
/** The first frees, the second lets go of the pages that the first has emptied. */
const COLLECTIONS = 2;

/** Looks now and then, and does nothing while the daemon stays idle. */
export class FreedMemory {
  readonly #cpuMs: () => number;
  #timer: NodeJS.Timeout | undefined;
  #seenMs = 0;
  /** Looks in a row that saw no work, from the last work on. */
  #quietLooks = COLLECTIONS;
  #collect: (() => void) | undefined;

  /** @param cpuMs the CPU time that the process has used, milliseconds; for tests */
  constructor(cpuMs: () => number = processCpuMs) {
    this.#cpuMs = cpuMs;
  }

  /** Begins to look; keeps no process alive. */
  start(): void {
    this.#timer = setInterval(() => void this.look(), INTERVAL_MS);
    this.#timer.unref();
  }

  /** Ends the looks. */
  stop(): void {
    clearInterval(this.#timer);
  }

  /**
   * Has malloc give back what is free if there was work since the last look. At the first looks without work garbage
   * is collected before: a pause of this thread that nobody notices then.
   *
   * @returns what was done
   */
  async look(): Promise<"nothing" | "trimmed" | "collected"> {
    const nowMs = this.#cpuMs();
    const isQuiet = nowMs - this.#seenMs < WORK_MS;
    this.#seenMs = nowMs;
    if (isQuiet && this.#quietLooks === COLLECTIONS) return "nothing";
    this.#quietLooks = isQuiet ? this.#quietLooks + 1 : 0;
    if (isQuiet) {
      this.#collect ??= garbageCollection();
      this.#collect();
      // What it took is no work.
      this.#seenMs = this.#cpuMs();
    }
    await sys.trimHeapAsync();
    return isQuiet ? "collected" : "trimmed";
  }
}

function processCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** V8's own, which Node.js gives only to contexts that are made while the flag is set. */
function garbageCollection(): () => void {
  v8.setFlagsFromString("--expose-gc");
  try {
    return vm.runInNewContext("gc") as () => void;
  } finally {
    v8.setFlagsFromString("--no-expose-gc");
  }
}
