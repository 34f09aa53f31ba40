import { describe, expect, it } from "vitest";
import { emptyIndex } from "../../../src/layers/index-reader.js";
import { DirectoryState } from "../../../src/overlay/directory-state.js";
import { toBytes } from "../../../src/system/bytes.js";
import { S_IFREG } from "../../../src/system/constants.js";

/** A directory without a lower one, whose names came in this order. */
function stateOf(names: Iterable<string>): DirectoryState {
  const state = new DirectoryState(emptyIndex(), 0);
  for (const name of names) state.setObject(toBytes(name), S_IFREG, 0);
  return state;
}

const listed = (state: DirectoryState, after = 0): [string, number][] =>
  [...state.upperOnlyAfter(after)].map(({ name, cookie }) => [name, cookie]);

const NAMES = Array.from({ length: 500 }, (_, number) => `name ${number}`);

describe("the order of upper-only names", () => {
  it("is the same in whatever order they came, and whenever they were listed", () => {
    const atOnce = stateOf(NAMES);
    const piecemeal = stateOf([]);
    for (const name of NAMES.toReversed()) {
      piecemeal.setObject(toBytes(name), S_IFREG, 0);
      if (name.endsWith("7")) listed(piecemeal);
    }
    expect(listed(piecemeal)).toEqual(listed(atOnce));
  });

  it("gives each name a cookie above all positions in an index, which a number holds", () => {
    const cookies = listed(stateOf(NAMES)).map(([, cookie]) => cookie);
    expect(new Set(cookies).size).toBe(NAMES.length);
    expect(cookies).toEqual(cookies.toSorted((a, b) => a - b));
    expect(cookies.every((cookie) => cookie > 2 ** 32 && Number.isSafeInteger(cookie))).toBe(true);
  });

  it("lets a reader go on behind a name that is gone", () => {
    const state = stateOf(NAMES);
    const all = listed(state);
    const [name, cookie] = all[200]!;
    for (const [gone] of all.slice(0, 250)) state.delete(toBytes(gone));
    expect(name).not.toBe(listed(state)[0]![0]);
    expect(listed(state, cookie)).toEqual(all.slice(250));
  });

  it("tells names of the same hash apart, and those that were listed keep their cookies", () => {
    const pair = ["16cvi", "gwzji"];
    const [first, second] = listed(stateOf(pair));
    expect(second![1] - first![1]).toBe(1);
    expect(listed(stateOf(pair.toReversed()))).toEqual([first, second]);
    const state = stateOf([pair[1]!]);
    const alone = listed(state);
    state.setObject(toBytes(pair[0]!), S_IFREG, 0);
    expect(listed(state)[0]).toEqual(alone[0]);
    expect(listed(state, alone[0]![1]).map(([name]) => name)).toEqual([pair[0]]);
  });
});
