/**
 * A hundred clients tag, move, remove, look up and list names at once, beside collections; whatever
 * they saw must have been the state at some moment of their call, in one order of all changes.
 */

import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Digest } from "../../src/content/digest.js";
import type { ImageRecord } from "../../src/images/image-store.js";
import { EventLog } from "../../src/metadata/event-log.js";
import { Layout, openStores, type Stores } from "../unit/images/image-fixture.js";

const CLIENTS = 100;
const NAMES = ["a:1", "a:2", "b:1", "c:1", "d:1"].map((name) => `docker.io/library/${name}`);
const IMAGES = 3;

type Operation =
  | { readonly kind: "tag"; readonly source: string; readonly target: string }
  | { readonly kind: "remove"; readonly name: string }
  | { readonly kind: "look"; readonly name: string }
  | { readonly kind: "list" };

/** A call with its answer, between how many changes had happened when it began and when it ended. */
type Call = {
  readonly operation: Operation;
  readonly from: number;
  readonly to: number;
  /** An ID, a list, "done", or undefined for "not found". */
  readonly answer: string | undefined;
};

/** One change of a name, as the store told of it: in the order in which they became durable. */
type NameChange = { readonly action: "tag" | "untag"; readonly name: string; readonly id: string };

const name = fc.constantFrom(...NAMES);
const base = fc.nat(IMAGES - 1).map((number) => `docker.io/library/base:${number}`);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ kind: fc.constant("tag" as const), source: fc.oneof(base, name), target: name }),
  fc.record({ kind: fc.constant("remove" as const), name }),
  fc.record({ kind: fc.constant("look" as const), name }),
  fc.constant({ kind: "list" as const }),
);
const plan = fc.array(fc.array(operation, { minLength: 1, maxLength: 4 }), {
  minLength: CLIENTS,
  maxLength: CLIENTS,
  size: "max",
});

const describeNames = (names: ReadonlyMap<string, string>) =>
  [...names]
    .map(([key, id]) => `${key}=${id}`)
    .sort()
    .join(" ");

function namesOf(images: readonly ImageRecord[]): string {
  const names = images.flatMap(({ id, repoTags }) => repoTags.map((tag) => [tag, id] as const));
  return describeNames(new Map(names));
}

async function perform(stores: Stores, one: Operation): Promise<string | undefined> {
  const { images } = stores;
  try {
    if (one.kind === "tag") await images.tag(one.source, one.target);
    else if (one.kind === "remove") await images.remove(one.name);
    else if (one.kind === "look") return (await images.get(one.name)).id;
    else return namesOf(await images.list());
    return "done";
  } catch (error) {
    expect(error).toMatchObject({ code: "NOT_FOUND" });
    return undefined;
  }
}

/** The states between the changes: `states[k]` after the first k. */
function replay(before: ReadonlyMap<string, string>, changes: readonly NameChange[]) {
  const states = [before];
  for (const { action, name: changed, id } of changes) {
    const next = new Map(states.at(-1));
    if (action === "tag") next.set(changed, id);
    else next.delete(changed);
    states.push(next);
  }
  return states;
}

/** Could the call have happened, as a whole, after `k` changes (and before the next)? */
function fits(
  call: Call,
  state: ReadonlyMap<string, string>,
  next: NameChange | undefined,
): boolean {
  const { operation: one, answer } = call;
  if (one.kind === "list") return answer === describeNames(state);
  if (one.kind === "look") return answer === state.get(one.name);
  if (one.kind === "remove") {
    if (answer === undefined) return !state.has(one.name);
    return next?.action === "untag" && next.name === one.name;
  }
  const id = state.get(one.source);
  if (answer === undefined) return id === undefined;
  const isChange = next?.action === "tag" && next.name === one.target && next.id === id;
  return id !== undefined && (state.get(one.target) === id || isChange);
}

async function prepare(stores: Stores): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  for (let number = 0; number < IMAGES; number++) {
    const layout = new Layout();
    const manifest = await layout.image({ layers: [`image ${number}`] });
    for (const data of layout.blobs.values()) await stores.content.writeBlob(data);
    const { id } = await stores.images.create(`base:${number}`, manifest);
    names.set(`docker.io/library/base:${number}`, id);
  }
  return names;
}

async function runClients(stores: Stores, events: EventLog, plans: readonly Operation[][]) {
  const changes: NameChange[] = [];
  const end = events.subscribe(({ action, attributes, id }) => {
    if (action === "tag" || action === "untag") {
      changes.push({ action, name: attributes.name!, id: id as Digest });
    }
  });
  const calls: Call[] = [];
  const client = async (operations: readonly Operation[]) => {
    for (const one of operations) {
      const from = changes.length;
      const answer = await perform(stores, one);
      calls.push({ operation: one, from, to: changes.length, answer });
    }
  };
  let isRunning = true;
  const collecting = (async () => {
    while (isRunning) {
      await stores.collectGarbage();
      await setImmediate();
    }
  })();
  await Promise.all(plans.map(client));
  isRunning = false;
  await collecting;
  end();
  return { calls, changes };
}

it("100 clients never see names in a state that no serial order explains", async () => {
  await fc.assert(
    fc.asyncProperty(plan, async (plans) => {
      const events = new EventLog();
      const stores = await openStores(events);
      try {
        const before = await prepare(stores);
        const { calls, changes } = await runClients(stores, events, plans);
        const states = replay(before, changes);
        for (const call of calls) {
          const moments = states.slice(call.from, call.to + 1);
          const hasMoment = moments.some((state, at) => fits(call, state, changes[call.from + at]));
          expect({ call, hasMoment }).toEqual({ call, hasMoment: true });
        }
        // Each removal that succeeded is one change, and no change has another cause.
        const removed = calls.filter((call) => call.operation.kind === "remove" && call.answer);
        expect(changes.filter((change) => change.action === "untag")).toHaveLength(removed.length);
        expect(namesOf(await stores.images.list())).toBe(describeNames(states.at(-1)!));
      } finally {
        await stores.close();
      }
    }),
    { numRuns: 5, endOnFailure: true },
  );
}, 120_000);
