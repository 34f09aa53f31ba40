/**
 * A bounded cache of open descriptors, least recently used out first.
 *
 * Many views share one process and its hard limit on descriptors, so no node may own one: every
 * descriptor here can be closed at any moment between two operations and is opened again on demand.
 * An operation uses at most a handful at once, far below any capacity, so one that it has just
 * fetched cannot be evicted under it.
 */

import { sys } from "../system/addon.js";

/** Descriptors by number key. Closes what it evicts, drops or clears. */
export class DescriptorCache {
  readonly #capacity: number;
  readonly #descriptors = new Map<number, number>();

  /** @param capacity how many descriptors to keep at most; at least 8 */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#descriptors.size;
  }

  /** The descriptor of `key`, now the most recently used, or -1. Borrowed until the next `put`s. */
  get(key: number): number {
    const fd = this.#descriptors.get(key);
    if (fd === undefined) return -1;
    // A Map iterates in insertion order: to insert again is to mark as used.
    this.#descriptors.delete(key);
    this.#descriptors.set(key, fd);
    return fd;
  }

  /** Takes ownership of `fd` and returns it. */
  put(key: number, fd: number): number {
    this.drop(key);
    this.#descriptors.set(key, fd);
    if (this.#descriptors.size > this.#capacity) {
      for (const oldest of this.#descriptors.keys()) {
        this.drop(oldest);
        break;
      }
    }
    return fd;
  }

  /** Closes the descriptor of `key`, if there is one. */
  drop(key: number): void {
    const fd = this.#descriptors.get(key);
    if (fd === undefined) return;
    this.#descriptors.delete(key);
    sys.close(fd);
  }

  /** Closes all. */
  clear(): void {
    for (const fd of this.#descriptors.values()) sys.close(fd);
    this.#descriptors.clear();
  }
}
