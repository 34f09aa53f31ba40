/** What the daemon has been asked and has done since it started. */

import type { EventLog } from "../../metadata/event-log.js";
import type { Distribution } from "./exposition.js";

/** From an answer out of memory to the pull of a large image, seconds. */
const CALL_BOUNDS = [0.001, 0.005, 0.025, 0.1, 0.5, 2, 10, 60, 600] as const;

interface CallCount {
  readonly method: string;
  readonly code: string;
  readonly classes: number[];
  sum: number;
}

/** Counts calls of the API and events of the store. */
export class Activity {
  readonly #calls = new Map<string, CallCount>();
  readonly #events = new Map<string, number>();
  readonly #underWay = new Map<string, number>();

  constructor(events: EventLog) {
    events.subscribe(({ type, action }) => {
      const key = `${type} ${action}`;
      this.#events.set(key, (this.#events.get(key) ?? 0) + 1);
    });
  }

  /** A call begins; the returned function is told how it ended: "OK" or an error's code. */
  begin(method: string): (code: string) => void {
    const startedMs = performance.now();
    this.#underWay.set(method, (this.#underWay.get(method) ?? 0) + 1);
    return (code) => {
      this.#underWay.set(method, this.#underWay.get(method)! - 1);
      this.#count(method, code, (performance.now() - startedMs) / 1000);
    };
  }

  #count(method: string, code: string, seconds: number): void {
    const key = `${method} ${code}`;
    const known = this.#calls.get(key);
    const call = known ?? {
      ...{ method, code, sum: 0 },
      classes: Array<number>(CALL_BOUNDS.length + 1).fill(0),
    };
    if (known === undefined) this.#calls.set(key, call);
    const above = CALL_BOUNDS.findIndex((bound) => seconds <= bound);
    call.classes[above < 0 ? CALL_BOUNDS.length : above]! += 1;
    call.sum += seconds;
  }

  /** Calls that have ended, by method and outcome. */
  *calls(): Generator<Distribution & { readonly method: string; readonly code: string }> {
    for (const { method, code, classes, sum } of this.#calls.values()) {
      yield { method, code, bounds: CALL_BOUNDS, classes, sum };
    }
  }

  /** Calls that are running, by method. */
  underWay(): ReadonlyMap<string, number> {
    return this.#underWay;
  }

  /** Events by "type action". */
  events(): ReadonlyMap<string, number> {
    return this.#events;
  }
}
