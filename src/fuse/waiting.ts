/** Requests whose answer is still to come, and which of them nobody waits for any more. */

import { readFileSync } from "node:fs";

/** SIGKILL in a mask of signals; every fatal signal is turned into it. */
const KILLED = 1n << 8n;

/** See the file comment. */
export class Waiting {
  /** Thread IDs of callers, by the request's identifier. */
  readonly #callers = new Map<number, number>();
  /** Work under way, and whether it changes anything (a flush does not). */
  readonly #pending = new Map<Promise<void>, boolean>();

  /** No work is under way, whether or not somebody waits for it. */
  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  /** Resolves when all changes that are under way now are done; what comes meanwhile does not count. */
  async settled(): Promise<void> {
    await Promise.all([...this.#pending].map(([work, isChange]) => (isChange ? work : undefined)));
  }

  /** Calls `goOn` when `promise`, which never rejects, has resolved; `isWanted`: the caller still waits. */
  after<R>(
    { unique, caller }: { unique: number; caller: { pid: number } },
    promise: Promise<R>,
    isChange: boolean,
    goOn: (result: R, isWanted: boolean) => void,
  ): void {
    this.#callers.set(unique, caller.pid);
    const done = promise.then((result) => {
      this.#pending.delete(done);
      goOn(result, this.#callers.delete(unique));
    });
    this.#pending.set(done, isChange);
  }

  /** When a request waits whose caller is about to die: forgets the caller, who is to be answered now. */
  releaseTheDying(unique: number): boolean {
    const pid = this.#callers.get(unique);
    return pid !== undefined && isBeingKilled(pid) && this.#callers.delete(unique);
  }
}

/** Whether a thread will never return to its program. False for those that cannot be seen from here. */
function isBeingKilled(tid: number): boolean {
  try {
    const status = readFileSync(`/proc/${tid}/status`, "latin1");
    return [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].some(
      ([, mask]) => (BigInt(`0x${mask}`) & KILLED) !== 0n,
    );
  } catch {
    return false;
  }
}
