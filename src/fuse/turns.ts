/**
 * The turns of one session: a request comes in, and its reply goes out with the call that asks for the
 * next. To go from JavaScript into native code and back takes long, compared with most requests.
 */

import { EAGAIN, ECONNABORTED, EINTR, EIO, ENODEV, ENOENT, syscallError } from "../system/errno.js";
import { EXCHANGE_UNSENT, type FuseChannel, type FuseExchange } from "../system/native.js";
import { OUT_HEADER_BYTES } from "./constants.js";
import type { Workspace } from "./exchange.js";
import type { ReplyBuffer } from "./reply.js";
import { WakeUps } from "./wake-ups.js";
import type { Warnings } from "./warnings.js";

/** Requests handled before other sessions, timers and promises of the thread get their turn. */
const BURST = 128;
/** From here down the kernel refuses a reply's error code, as those never reach programs; the caller would hang. */
const LOWEST_ERROR = -512;

/** Of this thread. */
const wakeUps = new WakeUps();

/** What a session does in its turns. */
export interface Turnee {
  isOver(): boolean;
  /** Handles the request of so many bytes that is in the buffer, and puts its reply if it has one. */
  serve(received: number): void;
  /** The reply to that request was refused, with a negative errno. */
  refused(error: number): void;
  /** No request will come any more. */
  ended(): void;
}

/** See the file comment. A reply that was put is sent before anybody else of the thread puts one. */
export class Turns {
  readonly #channel: FuseChannel;
  readonly #turnee: Turnee;
  readonly #quick: boolean;
  readonly #warnings: Warnings;
  readonly #reply: ReplyBuffer;
  readonly #exchange: FuseExchange;
  /** Bytes of the reply that waits to be sent. */
  #unsent = 0;

  /** @param o.quick keep the CPUs awake while requests come in bursts */
  constructor(
    channel: FuseChannel,
    o: { turnee: Turnee; work: Workspace; quick: boolean; warnings: Warnings },
  ) {
    this.#channel = channel;
    this.#turnee = o.turnee;
    this.#quick = o.quick;
    this.#warnings = o.warnings;
    this.#reply = o.work.reply;
    this.#exchange = channel.exchanger(o.work.request.buffer, o.work.reply.buffer);
  }

  /** Handles what waits, up to a burst; polling is level-triggered, so the rest comes back. */
  drain(): void {
    const turnee = this.#turnee;
    let served = 0;
    for (let tried = 0; tried < BURST && !turnee.isOver(); tried++) {
      const received = this.#next(served > 0 && this.#quick);
      if (received >= 0) {
        turnee.serve(received);
        served++;
      } else if (received === -EAGAIN) {
        break;
      } else {
        this.#failed(received);
      }
    }
    this.flush();
    if (this.#quick) wakeUps.note(served);
  }

  /** Sends what was put, then receives the next request. */
  #next(patiently: boolean): number {
    const length = this.#unsent;
    this.#unsent = 0;
    const patience = patiently ? wakeUps.patienceUs() : 0;
    const received = this.#exchange(length, patience);
    if (patience > 0) wakeUps.learn(received > 0);
    return received;
  }

  #failed(error: number): void {
    if (error < EXCHANGE_UNSENT) {
      this.#turnee.refused(error - EXCHANGE_UNSENT);
      return;
    }
    // ENOENT: the request was interrupted before we could have it.
    if (error === -EINTR || error === -ENOENT) return;
    if (error !== -ENODEV && error !== -ECONNABORTED) {
      this.#warnings.warn("receive failed", syscallError(error, "read", "/dev/fuse"));
    }
    this.#turnee.ended();
  }

  /** Puts a reply: `outcome` is the length of the body that is in the buffer, or a negative errno. */
  put(uniqueLow: number, uniqueHigh: number, outcome: number): void {
    const body = Math.max(outcome, 0);
    let error = Math.min(outcome, 0);
    if (error <= LOWEST_ERROR) {
      this.#warnings.warn(`a handler answered ${error}, which is no error number`);
      error = -EIO;
    }
    this.#reply.header(uniqueLow, uniqueHigh, body, error);
    this.#unsent = OUT_HEADER_BYTES + body;
  }

  /** Sends what was put, if anything, unless the session is over. False when it was refused. */
  flush(): boolean {
    const length = this.#unsent;
    this.#unsent = 0;
    if (length === 0 || this.#turnee.isOver()) return true;
    const sent = this.#channel.send(this.#reply.buffer, length);
    if (sent < 0) this.#turnee.refused(sent);
    return sent >= 0;
  }

  /** Answers a request other than the one at hand, at once; that its caller may be gone does not matter. */
  answer(uniqueLow: number, uniqueHigh: number, outcome: number): void {
    this.put(uniqueLow, uniqueHigh, outcome);
    const length = this.#unsent;
    this.#unsent = 0;
    this.#channel.send(this.#reply.buffer, length);
  }
}
