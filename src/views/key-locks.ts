/** A lock for each key that somebody uses just now. */

import { Mutex } from "async-mutex";

/** Work on one key goes one after another; that on different keys does not wait. */
export class KeyLocks {
  readonly #locks = new Map<string, { readonly mutex: Mutex; users: number }>();

  /** Runs `work` once all earlier work on the key is done. */
  async exclusive<R>(key: string, work: () => Promise<R>): Promise<R> {
    const lock = this.#locks.get(key) ?? { mutex: new Mutex(), users: 0 };
    this.#locks.set(key, lock);
    lock.users++;
    try {
      return await lock.mutex.runExclusive(work);
    } finally {
      if (--lock.users === 0) this.#locks.delete(key);
    }
  }
}
