/**
 * Gives memory back that work has freed. malloc returns by itself only what lies above everything that is still
 * used, so one small object keeps all below it: after many calls side by side that was the larger part of the daemon.
 */

import { sys } from "../system/addon.js";

const INTERVAL_MS = 10_000;
/** More CPU time than the timers of an idle daemon use between two looks, and less than any work. */
const WORK_MS = 50;

/** Looks now and then, and does nothing while the daemon is idle. */
export class FreedMemory {
  readonly #cpuMs: () => number;
  #timer: NodeJS.Timeout | undefined;
  #seenMs = 0;

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

  /** Gives back what is free if there was work since the last time. @returns whether there was */
  async look(): Promise<boolean> {
    const nowMs = this.#cpuMs();
    if (nowMs - this.#seenMs < WORK_MS) return false;
    this.#seenMs = nowMs;
    await sys.trimHeapAsync();
    return true;
  }
}

function processCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
