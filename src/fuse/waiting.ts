/** Requests whose answer is still to come, and which of them nobody waits for any more. */

import { isBeingKilled } from "./caller-thread.js";

/** How often a caller that was interrupted is looked at again. */
const LOOK_AGAIN_MS = 50;

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

  /**
   * The caller of a request got a signal. Calls `letGo`, which is to answer, once the caller is about to die, at
   * once or later: the kernel tells of the first signal only, which may have been a timer's.
   */
  interrupted(unique: number, letGo: () => void): void {
    const pid = this.#callers.get(unique);
    if (pid === undefined) return;
    if (isBeingKilled(pid)) {
      this.#callers.delete(unique);
      letGo();
    } else {
      setTimeout(() => this.interrupted(unique, letGo), LOOK_AGAIN_MS).unref();
    }
  }
}
