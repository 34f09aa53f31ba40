import { expect, it } from "vitest";
import { nowNs } from "../../../src/metadata/clock.js";
import { parseDuration, parsePointInTime } from "../../../src/metadata/point-in-time.js";

const SECOND = 1_000_000_000n;

it.each([
  ["0s", 0n],
  ["90s", 90n * SECOND],
  ["1h30m", 5400n * SECOND],
  ["1.5m", 90n * SECOND],
  ["250ms", SECOND / 4n],
  ["2d", 2n * 86_400n * SECOND],
  ["1µs", 1000n],
])("the duration %s is %d ns", (text, ns) => {
  expect(parseDuration(text)).toBe(ns);
});

it.each([
  ["0", 0n],
  ["1700000000", 1_700_000_000n * SECOND],
  ["1700000000.5", 1_700_000_000n * SECOND + SECOND / 2n],
  ["1700000000.000000001", 1_700_000_000n * SECOND + 1n],
  ["2023-11-14T22:13:20Z", 1_700_000_000n * SECOND],
  ["2023-11-14T23:13:20+01:00", 1_700_000_000n * SECOND],
  ["2023-11-14T22:13:20.25Z", 1_700_000_000n * SECOND + SECOND / 4n],
  ["2023-11-14T22Z", 1_699_999_200n * SECOND],
  ["2023-11-14Z", 1_699_920_000n * SECOND],
])("the time %s is %d ns since 1970", (text, ns) => {
  expect(parsePointInTime(text)).toBe(ns);
});

it("a time without a zone is local time", () => {
  const local = BigInt(new Date(2023, 10, 14, 5, 6).getTime()) * 1_000_000n;
  expect(parsePointInTime("2023-11-14T05:06")).toBe(local);
  const midnight = BigInt(new Date(2023, 10, 14).getTime()) * 1_000_000n;
  expect(parsePointInTime("2023-11-14")).toBe(midnight);
});

it("a duration counts back from now", () => {
  const before = nowNs();
  const hourAgo = parsePointInTime("1h");
  expect(hourAgo).toBeGreaterThanOrEqual(before - 3600n * SECOND);
  expect(hourAgo).toBeLessThanOrEqual(nowNs() - 3600n * SECOND);
});

it.each(["", "yesterday", "10", "5 m", "-1h", "2023-13-01", "2023-11-14T25:00:00Z", "1h2"])(
  "%j is no duration",
  (text) => {
    expect(() => parseDuration(text)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  },
);

it.each(["", "yesterday", "5 m", "-1h", "2023-13-01", "2023-11-14T25:00:00Z", "1h2"])(
  "%j is no point in time",
  (text) => {
    expect(() => parsePointInTime(text)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  },
);
