/** Events for one reader: those that are remembered, then those to come, as far as they are wanted. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { familiarReference, isDanglingName } from "../images/reference.js";
import { nowNs } from "../metadata/clock.js";
import type { EventLog, StoreEvent } from "../metadata/event-log.js";
import { parsePointInTime } from "../metadata/point-in-time.js";
import { InvalidArgumentError, ResourceExhaustedError } from "../system/errors.js";
import type { EventSchema } from "./gen/varve/v1/varve_pb.js";
import { toTimestamp } from "./messages.js";

/** What a reader wants; docker's words. */
export interface EventQuery {
  /** "KEY=VALUE": of one key any value, of different keys all. */
  readonly filters: readonly string[];
  /** Empty: from now on. */
  readonly since: string;
  /** Empty: without end. */
  readonly until: string;
  readonly signal: AbortSignal;
}

type Predicate = (event: StoreEvent) => boolean;

/** A reader that is further behind would cost the daemon its memory. */
const MAX_WAITING = 100_000;
// The largest delay that setTimeout takes.
const MAX_DELAY_MS = 2 ** 31 - 1;

/**
 * Yields events in their order, until `until` or until the signal is aborted.
 *
 * @throws InvalidArgumentError a malformed filter or time
 * @throws ResourceExhaustedError the reader is too slow
 */
export async function* eventStream(
  log: EventLog,
  query: EventQuery,
): AsyncGenerator<StoreEvent, void, undefined> {
  const isWanted = parseFilters(query.filters);
  const sinceNs = query.since === "" ? undefined : parsePointInTime(query.since);
  const untilNs = query.until === "" ? undefined : parsePointInTime(query.until);
  const inTime = (event: StoreEvent) => untilNs === undefined || event.timeNs < untilNs;
  const queue = new EventQueue((event) => isWanted(event) && inTime(event));
  // First listen, then look back: nothing falls between.
  const unsubscribe = log.subscribe((event) => queue.push(event));
  const end = () => queue.end();
  query.signal.addEventListener("abort", end, { once: true });
  const timer = untilNs === undefined ? undefined : endAt(untilNs, end);
  try {
    if (query.signal.aborted) end();
    if (sinceNs !== undefined) {
      const past = log.past().filter((event) => event.timeNs >= sinceNs);
      for (const event of past) if (isWanted(event) && inTime(event)) yield event;
    }
    yield* queue.take();
  } finally {
    clearTimeout(timer);
    query.signal.removeEventListener("abort", end);
    unsubscribe();
  }
}

function endAt(untilNs: bigint, end: () => void): NodeJS.Timeout {
  const delayMs = Math.max(0, Number((untilNs - nowNs()) / 1_000_000n) + 1);
  return setTimeout(end, Math.min(delayMs, MAX_DELAY_MS));
}

class EventQueue {
  readonly #isWanted: Predicate;
  #waiting: StoreEvent[] = [];
  #isEnded = false;
  #wake: () => void = () => undefined;

  constructor(isWanted: Predicate) {
    this.#isWanted = isWanted;
  }

  push(event: StoreEvent): void {
    if (this.#isEnded || !this.#isWanted(event)) return;
    this.#waiting.push(event);
    this.#wake();
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  async *take(): AsyncGenerator<StoreEvent, void, undefined> {
    for (;;) {
      const batch = this.#waiting;
      this.#waiting = [];
      for (const event of batch) {
        yield event;
        if (this.#waiting.length > MAX_WAITING) {
          throw new ResourceExhaustedError(
            `events: the reader is more than ${MAX_WAITING} events behind`,
          );
        }
      }
      if (this.#waiting.length > 0) continue;
      if (this.#isEnded) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

const MATCHERS: Readonly<Record<string, (value: string) => Predicate>> = {
  type: (value) => (event) => event.type === value,
  event: (value) => (event) => event.action === value,
  image: (value) => (event) =>
    event.type === "image" ? isNamed(event, value, event.id) : isImageOf(event, value),
  view: (value) => (event) =>
    event.type === "view" && (event.attributes.name === value || isIdOf(event.id, value)),
  lease: (value) => (event) => event.type === "lease" && isIdOf(event.id, value),
  label: (value) => (event) => {
    const [key = "", ...rest] = value.split("=");
    const found = Object.hasOwn(event.attributes, key) ? event.attributes[key] : undefined;
    return found !== undefined && (rest.length === 0 || found === rest.join("="));
  },
};

function isIdOf(id: string, value: string): boolean {
  const prefix = value.replace(/^sha256:/, "");
  return prefix !== "" && id.replace(/^sha256:/, "").startsWith(prefix);
}

function isNamed(event: StoreEvent, value: string, id: string): boolean {
  const name = event.attributes.name ?? event.attributes.image ?? "";
  if (/^(sha256:)?[0-9a-f]{6,64}$/.test(value) && isIdOf(id, value)) return true;
  if (name === "" || isDanglingName(name)) return false;
  const familiar = familiarReference(name);
  // With and without its tag, as docker does.
  return [name, familiar, familiar.replace(/:[^:/]*$/, "")].includes(value);
}

function isImageOf(event: StoreEvent, value: string): boolean {
  const { image = "", imageId = "" } = event.attributes;
  if (image === "" && imageId === "") return false;
  const named = { ...event, attributes: { image } };
  return image.startsWith("sha256:") ? isIdOf(imageId, value) : isNamed(named, value, imageId);
}

function parseFilters(filters: readonly string[]): Predicate {
  const byKey = new Map<string, Predicate[]>();
  for (const filter of filters) {
    const [key = "", ...rest] = filter.split("=");
    const matcher = Object.hasOwn(MATCHERS, key) ? MATCHERS[key] : undefined;
    if (matcher === undefined || rest.length === 0) {
      throw new InvalidArgumentError(
        `filter ${JSON.stringify(filter)}: want KEY=VALUE with one of the keys ${Object.keys(MATCHERS).join(", ")}`,
      );
    }
    byKey.set(key, [...(byKey.get(key) ?? []), matcher(rest.join("="))]);
  }
  const groups = [...byKey.values()];
  return (event) => groups.every((group) => group.some((matches) => matches(event)));
}

/** An event as a message. */
export function toEvent(event: StoreEvent): MessageInitShape<typeof EventSchema> {
  const { timeNs, type, action, id, attributes } = event;
  return { time: toTimestamp(timeNs), type, action, id, attributes: { ...attributes } };
}
