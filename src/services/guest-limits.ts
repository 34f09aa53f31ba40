/**
 * What one guest may take of the daemon at a time, so that others still get their share: connections are
 * descriptors, calls are memory, and both keep the one thread busy that answers everybody. Owners have no
 * limits: they could stop the daemon as well.
 */

import type { Log } from "../snapshots/log.js";
import { ResourceExhaustedError } from "../system/errors.js";
import type { Caller } from "./caller.js";

/** Far beyond what commands of a person, or a build with many jobs, open. */
const MAX_CONNECTIONS = 64;
const MAX_CALLS = 128;
/** Calls in a row, and how many a second go on. */
const BURST = 500;
const CALLS_PER_SECOND = 100;
/** A flood is told of once in this time. */
const WARNING_INTERVAL_MS = 60_000;

interface Share {
  connections: number;
  calls: number;
  /** Calls that may begin at once. */
  tokens: number;
  /** When they were counted last, by the monotonic clock. */
  countedMs: number;
  warnedMs: number;
}

/** The shares of all guests of one server. */
export class GuestLimits {
  readonly #shares = new Map<number, Share>();
  readonly #log: Log;
  readonly #now: () => number;

  constructor(log: Log, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  /** False when a guest has too many connections; else call `disconnected` at its end. */
  connected({ isOwner, uid, pid }: Caller): boolean {
    if (isOwner) return true;
    const share = this.#share(uid);
    if (share.connections < MAX_CONNECTIONS) {
      share.connections++;
      return true;
    }
    const now = this.#now();
    if (now - share.warnedMs > WARNING_INTERVAL_MS) {
      share.warnedMs = now;
      this.#log.warn(
        `user ${uid} has ${MAX_CONNECTIONS} connections; refused another one, of process ${pid}`,
      );
    }
    return false;
  }

  disconnected({ isOwner, uid }: Caller): void {
    if (isOwner) return;
    this.#share(uid).connections--;
    this.#forgetIdle(uid);
  }

  /**
   * A call begins; the returned function is to be called at its end.
   *
   * @throws ResourceExhaustedError too many at once, or one after the other
   */
  begin({ isOwner, uid }: Caller, method: string): () => void {
    if (isOwner) return () => undefined;
    const share = this.#share(uid);
    this.#refill(share);
    if (share.calls >= MAX_CALLS) {
      throw new ResourceExhaustedError(
        `${method}: user ${uid} has ${MAX_CALLS} calls under way; wait until some have ended`,
      );
    }
    if (share.tokens < 1) {
      throw new ResourceExhaustedError(
        `${method}: user ${uid} calls more than ${CALLS_PER_SECOND} times a second; call less often`,
      );
    }
    share.tokens--;
    share.calls++;
    return () => {
      share.calls--;
      this.#forgetIdle(uid);
    };
  }

  #share(uid: number): Share {
    const known = this.#shares.get(uid);
    if (known !== undefined) return known;
    const fresh = { connections: 0, calls: 0, tokens: BURST, warnedMs: Number.NEGATIVE_INFINITY };
    const share = { ...fresh, countedMs: this.#now() };
    this.#shares.set(uid, share);
    return share;
  }

  #refill(share: Share): void {
    const now = this.#now();
    const earned = ((now - share.countedMs) / 1000) * CALLS_PER_SECOND;
    share.tokens = Math.min(BURST, share.tokens + earned);
    share.countedMs = now;
  }

  /** Not before its tokens are back: who comes anew begins with all of them. */
  #forgetIdle(uid: number): void {
    const share = this.#share(uid);
    if (share.connections > 0 || share.calls > 0) return;
    this.#refill(share);
    if (share.tokens === BURST) this.#shares.delete(uid);
  }
}
