/**
 * What happened in the store, for those who watch: the latest events are remembered, in memory only.
 */

import { nowNs } from "./clock.js";
import type { Labels } from "./labels.js";

/** What an event is about. */
export type EventType = "image" | "view" | "lease" | "store";

/** Something that happened; told after it is durable. */
export type StoreEvent = {
  readonly timeNs: bigint;
  readonly type: EventType;
  /** docker's verbs where docker has the event. */
  readonly action: string;
  /** Image ID, view ID or lease ID; empty for the store. */
  readonly id: string;
  readonly attributes: Labels;
};

// docker's 256 are soon gone when a script tags in a loop; this is still less than a megabyte.
const REMEMBERED = 1024;

/** Takes events in and hands them out. */
export class EventLog {
  readonly #remembered: StoreEvent[] = [];
  readonly #listeners = new Set<(event: StoreEvent) => void>();

  /** Tells everyone who listens, before it returns. */
  publish(type: EventType, action: string, id: string, attributes: Labels = {}): void {
    const event = { timeNs: nowNs(), type, action, id, attributes };
    this.#remembered.push(event);
    if (this.#remembered.length > REMEMBERED) this.#remembered.shift();
    for (const listener of this.#listeners) listener(event);
  }

  /** The remembered events, oldest first. */
  past(): readonly StoreEvent[] {
    return [...this.#remembered];
  }

  /** Calls `listener`, which must not throw, for each event from now on. @returns ends that */
  subscribe(listener: (event: StoreEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}
