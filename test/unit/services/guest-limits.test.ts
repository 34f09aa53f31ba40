import { beforeEach, describe, expect, it } from "vitest";
import { GuestLimits } from "../../../src/services/guest-limits.js";

const guest = { pid: 1, uid: 1000, gid: 1000, groups: [], isOwner: false };
const other = { ...guest, uid: 1001 };
const owner = { ...guest, uid: 0, isOwner: true };
const exhausted = expect.objectContaining({ code: "RESOURCE_EXHAUSTED" }) as Error;

let nowMs = 0;
let warnings: string[];
let limits: GuestLimits;

beforeEach(() => {
  nowMs = 0;
  warnings = [];
  const log = { debug: () => {}, info: () => {}, warn: (text: string) => void warnings.push(text) };
  limits = new GuestLimits(log, () => nowMs);
});

describe("a guest", () => {
  it("has so many connections, and another one when one is closed; a flood is told of once", () => {
    const opened = () => limits.connected(guest);
    expect(Array.from({ length: 70 }, opened).filter(Boolean)).toHaveLength(64);
    expect(warnings).toEqual([expect.stringContaining("user 1000")]);
    expect(limits.connected(other)).toBe(true);
    limits.disconnected(guest);
    expect([opened(), opened()]).toEqual([true, false]);
    nowMs = 60_001;
    expect(opened()).toBe(false);
    expect(warnings).toHaveLength(2);
  });

  it("has so many calls at once", () => {
    const ends = Array.from({ length: 128 }, () => limits.begin(guest, "Events"));
    expect(() => limits.begin(guest, "Events")).toThrowError(exhausted);
    limits.begin(other, "Events");
    ends[0]!();
    limits.begin(guest, "Events");
  });

  it("calls no more often than a hundred times a second, after a burst", () => {
    const call = () => limits.begin(guest, "Version")();
    limits.connected(guest);
    for (let count = 0; count < 500; count++) call();
    expect(call).toThrowError(exhausted);
    nowMs += 20;
    call();
    call();
    expect(call).toThrowError(exhausted);
    // Coming back under another connection is no way around.
    limits.disconnected(guest);
    expect(call).toThrowError(exhausted);
  });
});

it("an owner has no limits", () => {
  for (let count = 0; count < 1000; count++) {
    expect(limits.connected(owner)).toBe(true);
    limits.begin(owner, "Events");
  }
});
