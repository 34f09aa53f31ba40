import { afterEach, describe, expect, it, type MockInstance, vi } from "vitest";
import {
  type OpenFile,
  type OpenKind,
  OpenTable,
  PrivateMemory,
} from "../../../src/overlay/open-table.js";

afterEach(() => {
  vi.restoreAllMocks();
});

type Store = (array: Uint32Array, at: number, value: number) => number;

const KINDS: readonly OpenKind[] = ["cached", "through"];

/** The memory as it is now, for another process. */
function copyOf(memory: PrivateMemory): PrivateMemory {
  const copy = new PrivateMemory();
  copy.words = memory.words.slice();
  return copy;
}

const facts = (table: OpenTable) =>
  [...table.files()].map(({ slot: _, ...file }) => file).sort((a, b) => a.serial - b.serial);

/** Runs `change` and returns what a kill before and after each of its stores would leave. */
function killedAtEachStore(memory: PrivateMemory, change: () => void): PrivateMemory[] {
  const left = [copyOf(memory)];
  const real = memory.words;
  const put = (at: number, value: number) => {
    real[at] = value;
    const copy = new PrivateMemory();
    copy.words = real.slice();
    left.push(copy);
  };
  memory.words = new Proxy(real, {
    get: (_, name) => Reflect.get(real, name, real),
    set: (_, at, value: number) => {
      put(Number(at), value);
      return true;
    },
  });
  const spy = vi.spyOn(Atomics, "store") as unknown as MockInstance<Store>;
  spy.mockImplementation((_, at, value) => {
    put(at, value);
    return value;
  });
  change();
  vi.restoreAllMocks();
  memory.words = real;
  return left;
}

/** Serves a request as OpenFiles does: what an unanswered try counted is taken back first. */
function serve(table: OpenTable, request: number, change: (table: OpenTable) => void): void {
  if (table.countedFor(request) !== undefined) table.takeBack();
  change(table);
}

describe("a table that another process takes over", () => {
  it("says the same, and goes on with other serials", () => {
    const memory = new PrivateMemory();
    const table = new OpenTable(memory);
    const files = [7, 2 ** 48 + 12345, 9].map((id, at) => table.add(id, at * 1000, at === 1));
    table.count(files[0]!, "cached", 1, 2);
    table.setBacking(files[1]!, 77);
    for (const request of [4, 6]) table.count(files[1]!, "through", 1, request);
    table.remove(files[2]!);
    const next = new OpenTable(copyOf(memory));
    expect(facts(next)).toEqual(facts(table));
    expect(next.add(1, 0, false).serial).toBe(4);
    expect(next.find(2)).toMatchObject({ id: 2 ** 48 + 12345, incarnation: 1000, through: 2 });
  });

  it("holds more files than it had room for at first", () => {
    const memory = new PrivateMemory();
    const table = new OpenTable(memory);
    const files: OpenFile[] = [];
    for (let id = 1; id <= 5000; id++) files.push(table.add(id, 0, false));
    for (const file of files.splice(0, 4000)) table.remove(file);
    for (let id = 1; id <= 4000; id++) table.add(id, 0, true);
    expect(memory.words.length).toBeLessThan(3 * 5000 * 8);
    expect(facts(new OpenTable(copyOf(memory)))).toEqual(facts(table));
  });

  it.each(KINDS)("counts a request once, wherever the first try was killed: %s", (kind) => {
    const memory = new PrivateMemory();
    const table = new OpenTable(memory);
    const file = table.add(5, 0, true);
    table.count(file, kind, 1, 2);
    for (const difference of [1, -1] as const) {
      const request = difference === 1 ? 4 : 6;
      const change = (to: OpenTable) => to.count(to.find(1)!, kind, difference, request);
      const start = table.find(1)![kind];
      for (const left of killedAtEachStore(memory, () => change(table))) {
        const unanswered = new OpenTable(left);
        serve(unanswered, request, change);
        expect(unanswered.find(1)![kind]).toBe(start + difference);
        // Killed once more, after the answer.
        expect(new OpenTable(copyOf(left)).find(1)![kind]).toBe(start + difference);
      }
    }
    expect(table.find(1)![kind]).toBe(1);
  });

  it("has a new file whole or not at all, and a removed one likewise", () => {
    const memory = new PrivateMemory();
    const table = new OpenTable(memory);
    const old = table.add(5, 0, false);
    table.count(old, "cached", 1, 2);
    table.count(old, "cached", -1, 4);
    const ids = (left: PrivateMemory) => facts(new OpenTable(left)).map(({ id }) => id);
    for (const left of killedAtEachStore(memory, () => table.add(8, 3, true))) {
      expect([[5], [5, 8]]).toContainEqual(ids(left));
    }
    for (const left of killedAtEachStore(memory, () => table.remove(old))) {
      expect([[5, 8], [8]]).toContainEqual(ids(left));
    }
    // Its slot is another file's now, which the announced change does not concern.
    table.add(6, 0, false);
    const next = new OpenTable(copyOf(memory));
    expect(facts(next).every(({ cached, through }) => cached + through === 0)).toBe(true);
    expect(next.countedFor(4)).toBeUndefined();
  });
});
