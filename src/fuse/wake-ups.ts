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
 * In a burst our own thread need not sleep at all between two requests of a quick caller: it tries for
 * PATIENCE_US to receive the next one, as long as that mostly succeeds.
 *
 * @see Documentation/power/pm_qos_interface.rst of the Linux kernel
 */

import { openSync, readFileSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
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

/** How long to try for the next request. Callers that do little between two need 5 to 30 us. */
const PATIENCE_US = 50;
/** A success is worth one, up to BEST_CREDIT; a failure costs FAILURE, as it wastes far more than a success saves. */
const BEST_CREDIT = 8;
const FAILURE = 4;
/** Without credit, so many turns pass before the next trial. */
const TURNS_WITHOUT = 32;

/** On a single CPU nobody makes a request while we try. */
const HAS_OTHER_CPU = availableParallelism() > 1;

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
  /** For patience; below 0 it counts the turns without. */
  #credit = 0;
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

  /** How long to try for the next request before going to sleep; 0: not at all. */
  patienceUs(): number {
    if (this.#timer === undefined || !HAS_OTHER_CPU) return 0;
    if (this.#credit < 0) {
      this.#credit++;
      return 0;
    }
    return PATIENCE_US;
  }

  /** Whether patience was rewarded. */
  learn(received: boolean): void {
    if (received) this.#credit = Math.min(this.#credit + 1, BEST_CREDIT);
    else if (this.#credit >= FAILURE) this.#credit -= FAILURE;
    else this.#credit = -TURNS_WITHOUT;
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
