/**
 * A bounded cache of open descriptors, least recently used out first.
 *
 * Many views share one process and its hard limit on descriptors, so no node may own one: every
 * descriptor here can be closed at any moment between two operations and is opened again on demand.
 * An operation uses at most a handful at once, far below any capacity, so one that it has just
 * fetched cannot be evicted under it.
 *
 * Beside its own capacity each cache keeps to what all caches of the thread may hold together: past
 * that, every new descriptor costs one of them its oldest, in turn, down to a few each. Views that
 * nobody works in give theirs back this way.
 */

import { sys } from "../system/addon.js";

/**
 * What the caches of one thread hold together. Threads are few (half the cores by default), and the
 * limit of a process is rarely below 4,096 (20,000 and more are usual).
 */
const THREAD_CAPACITY = 1024;
/** What no other cache can take from one: more than an operation borrows at once. */
const RESERVE = 8;

/** Caches of this thread. */
const caches: DescriptorCache[] = [];
/** Descriptors in them. */
let held = 0;
/** Whose turn it is to give one up. */
let turn = 0;

function giveOneUp(): void {
  for (let tried = 0; tried < caches.length; tried++) {
    turn = (turn + 1) % caches.length;
    const cache = caches[turn]!;
    if (cache.size <= RESERVE) continue;
    cache.dropOldest();
    return;
  }
}

/** Descriptors by number key. Closes what it evicts, drops or disposes of. */
export class DescriptorCache {
  readonly #capacity: number;
  readonly #descriptors = new Map<number, number>();
  /** The most recently used, which one request after the other asks for; its key is 0 when there is none. */
  #lastKey = 0;
  #lastFd = -1;

  /** @param capacity how many descriptors to keep at most; at least 8 */
  constructor(capacity: number) {
    this.#capacity = capacity;
    caches.push(this);
  }

  get size(): number {
    return this.#descriptors.size;
  }

  /** The descriptor of `key`, now the most recently used, or -1. Borrowed until the next `put`s. */
  get(key: number): number {
    if (key === this.#lastKey) return this.#lastFd;
    const fd = this.#descriptors.get(key);
    if (fd === undefined) return -1;
    // A Map iterates in insertion order: to insert again is to mark as used.
    this.#descriptors.delete(key);
    this.#insert(key, fd);
    return fd;
  }

  #insert(key: number, fd: number): void {
    this.#descriptors.set(key, fd);
    this.#lastKey = key;
    this.#lastFd = fd;
  }

  /** Takes ownership of `fd` and returns it. */
  put(key: number, fd: number): number {
    this.drop(key);
    this.#insert(key, fd);
    held++;
    if (this.#descriptors.size > this.#capacity) this.dropOldest();
    else if (held > THREAD_CAPACITY) giveOneUp();
    return fd;
  }

  /** Closes the least recently used descriptor, if there is any. */
  dropOldest(): void {
    for (const oldest of this.#descriptors.keys()) {
      this.drop(oldest);
      return;
    }
  }

  /** Closes the descriptor of `key`, if there is one. */
  drop(key: number): void {
    const fd = this.#descriptors.get(key);
    if (fd === undefined) return;
    this.#descriptors.delete(key);
    if (key === this.#lastKey) this.#lastKey = 0;
    held--;
    sys.close(fd);
  }

  /** Closes all, for good: the cache no longer counts among the thread's. */
  dispose(): void {
    for (const fd of this.#descriptors.values()) sys.close(fd);
    held -= this.#descriptors.size;
    this.#descriptors.clear();
    this.#lastKey = 0;
    const at = caches.indexOf(this);
    if (at >= 0) caches.splice(at, 1);
  }
}
