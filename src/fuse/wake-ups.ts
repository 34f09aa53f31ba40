/**
 * Keeps the CPUs from sleeping deeply while requests come in bursts.
 *
 * A round trip wakes two threads, ours and then the caller, mostly on a CPU that has just gone idle.
 * Waking such a CPU takes 35 to 85 us in a virtual machine, where a halted CPU is the host's to wake,
 * and many times what most requests take to answer. The kernel's PM QoS interface holds CPUs in a
 * shallow idle state instead, at the price of power (in a virtual machine: of idle CPUs that spin).
 * So it is asked for only while it pays: from a number of requests in quick succession until a
 * fraction of a second has passed with fewer.
 *
 * @see Documentation/power/pm_qos_interface.rst of the Linux kernel
 */

import { openSync, readFileSync, writeSync } from "node:fs";
import { performance } from "node:perf_hooks";

/** Where the wish is written; for root. */
export const CPU_LATENCY_DEVICE = "/dev/cpu_dma_latency";
/** So many requests within BURST_MS begin a burst. */
const BURST_REQUESTS = 8;
const BURST_MS = 4;
/** A burst ends when so much time passes with fewer than BURST_REQUESTS. */
const PERIOD_MS = 10;
/** What the kernel takes for no wish at all, in us. */
const ANY_LATENCY = 2_000_000_000;
/** Physical CPUs: no deeper than a halt, which takes 1 or 2 us to leave and saves most of the power. */
const HALT_LATENCY = 2;

function message(latencyUs: number): Buffer {
  const value = Buffer.alloc(4);
  value.writeInt32LE(latencyUs);
  return value;
}

/** In a virtual machine a halt is slow to leave, whatever its idle states are said to cost. */
function isVirtualMachine(): boolean {
  try {
    return /^flags\s*:.*\bhypervisor\b/m.test(readFileSync("/proc/cpuinfo", "latin1"));
  } catch {
    return false;
  }
}

/** The wish of one thread. Without the right to express it (root), it does nothing. */
export class WakeUps {
  readonly #device: string;
  /** Opened at the first burst; -1 where that is not possible. The thread's end closes it. */
  #descriptor: number | undefined;
  #quick: Buffer | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Requests since `#since`, or since the timer's last tick. */
  #requests = 0;
  #since = 0;

  constructor(device = CPU_LATENCY_DEVICE) {
    this.#device = device;
  }

  /** True while CPUs are held awake. */
  get isHolding(): boolean {
    return this.#timer !== undefined;
  }

  /** So many requests were served just now, at `now` ms of a clock that never goes back. */
  note(requests: number, now = performance.now()): void {
    if (this.#timer !== undefined) {
      this.#requests += requests;
      return;
    }
    if (this.#descriptor === -1) return;
    if (now - this.#since > BURST_MS) {
      this.#since = now;
      this.#requests = 0;
    }
    this.#requests += requests;
    if (this.#requests >= BURST_REQUESTS) this.#hold();
  }

  #hold(): void {
    this.#descriptor ??= this.#open();
    if (this.#descriptor === -1) return;
    this.#quick ??= message(isVirtualMachine() ? 0 : HALT_LATENCY);
    this.#write(this.#quick);
    this.#requests = 0;
    this.#timer = setInterval(() => this.#tick(), PERIOD_MS);
    this.#timer.unref();
  }

  #tick(): void {
    if (this.#requests >= BURST_REQUESTS) {
      this.#requests = 0;
      return;
    }
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#write(message(ANY_LATENCY));
  }

  #open(): number {
    try {
      return openSync(this.#device, "r+");
    } catch {
      return -1;
    }
  }

  #write(wish: Buffer): void {
    try {
      writeSync(this.#descriptor!, wish, 0, wish.length, 0);
    } catch {
      // A wish, not a need.
    }
  }
}
