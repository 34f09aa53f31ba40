/**
 * Single flights: however many ask for the same work at once, it runs once, and all share its
 * result or its error.
 *
 * A *passenger* is one caller of a flight. Passengers may leave early; the work is cancelled only
 * when the last one left.
 */

import { CancelledError } from "../system/errors.js";

/** What the work of a flight gets: progress goes to all passengers on board. */
export interface FlightCrew<E> {
  report(event: E): void;
  /** Aborted when nobody waits any more. */
  readonly signal: AbortSignal;
}

/** A caller's hold on a flight. */
export interface Passage<R> {
  /** Settles as the flight does, or rejects with CancelledError after `leave`. */
  readonly result: Promise<R>;
  /** The flight's own outcome, whoever leaves. */
  readonly flight: Promise<R>;
  /** Stops caring. Resolves when the work has ended if nobody else wants it, at once otherwise. */
  leave(): Promise<void>;
}

class Flight<R, E> implements FlightCrew<E> {
  readonly #listeners = new Set<(event: E) => void>();
  readonly #controller = new AbortController();
  #passengers = 0;
  #last: E | undefined;
  readonly settled: Promise<void>;
  readonly result: Promise<R>;

  constructor(work: (crew: FlightCrew<E>) => Promise<R>) {
    this.result = work(this);
    this.settled = this.result.then(
      () => undefined,
      () => undefined,
    );
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  report(event: E): void {
    this.#last = event;
    for (const listener of this.#listeners) listener(event);
  }

  board(onEvent: ((event: E) => void) | undefined): Passage<R> {
    this.#passengers++;
    if (onEvent !== undefined) {
      this.#listeners.add(onEvent);
      // A late passenger sees how far it is.
      if (this.#last !== undefined) onEvent(this.#last);
    }
    let abandon: (error: Error) => void = () => undefined;
    const left = new Promise<never>((_, reject) => {
      abandon = reject;
    });
    left.catch(() => undefined);
    const result = Promise.race([this.result, left]);
    result.catch(() => undefined);
    let aboard = true;
    const leave = async (): Promise<void> => {
      if (aboard) {
        aboard = false;
        if (onEvent !== undefined) this.#listeners.delete(onEvent);
        abandon(new CancelledError("the caller left"));
        if (--this.#passengers === 0) this.#controller.abort();
      }
      if (this.signal.aborted) await this.settled;
    };
    return { result, flight: this.result, leave };
  }
}

/** Flights by key. */
export class Flights<R, E> {
  readonly #flights = new Map<string, Flight<R, E>>();

  /**
   * Boards the flight of `key`, which starts with `work` when there is none. A flight that is being
   * cancelled takes nobody: the new one waits until it has ended.
   */
  board(
    key: string,
    work: (crew: FlightCrew<E>) => Promise<R>,
    onEvent?: (event: E) => void,
  ): Passage<R> {
    const current = this.#flights.get(key);
    if (current !== undefined && !current.signal.aborted) return current.board(onEvent);
    const before = current?.settled ?? Promise.resolve();
    const flight: Flight<R, E> = new Flight((crew) => before.then(() => work(crew)));
    this.#flights.set(key, flight);
    void flight.settled.then(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    return flight.board(onEvent);
  }

  /** Waits until everything under way has ended. */
  async settle(): Promise<void> {
    await Promise.all([...this.#flights.values()].map((flight) => flight.settled));
  }
}
