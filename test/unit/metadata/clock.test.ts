import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { nowNs } from "../../../src/metadata/clock.js";

/** The wall clock as another program reads it, in nanoseconds. */
const date = () => BigInt(execFileSync("date", ["+%s%N"], { encoding: "utf8" }).trim());

describe("nowNs", () => {
  it("lies between what another program's nanosecond clock shows before and after", () => {
    for (let round = 0; round < 20; round++) {
      const before = date();
      const now = nowNs();
      const after = date();
      // Calibrated on a machine that never rests, a tick is seen less sharply.
      expect(now).toBeGreaterThan(before - 200_000n);
      expect(now).toBeLessThan(after + 200_000n);
    }
  });

  it("moves within a millisecond", () => {
    const times = Array.from({ length: 100 }, nowNs);
    expect(new Set(times).size).toBeGreaterThan(50);
    expect(times).toEqual(times.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)));
  });
});
