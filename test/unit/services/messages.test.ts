import { describe, expect, it } from "vitest";
import { parseTimestamp, toTimestamp } from "../../../src/services/messages.js";

describe("timestamps", () => {
  it("keep nanoseconds", () => {
    expect(toTimestamp(1_700_000_000_123_456_789n)).toMatchObject({
      seconds: 1_700_000_000n,
      nanos: 123_456_789,
    });
  });

  it("count nanoseconds forward before 1970", () => {
    expect(toTimestamp(-1n)).toMatchObject({ seconds: -1n, nanos: 999_999_999 });
    expect(toTimestamp(-1_000_000_000n)).toMatchObject({ seconds: -1n, nanos: 0 });
  });

  it.each([
    ["1970-01-01T00:00:01Z", 1n, 0],
    ["2023-11-14T22:13:20.123456789Z", 1_700_000_000n, 123_456_789],
    ["2023-11-14T23:13:20.5+01:00", 1_700_000_000n, 500_000_000],
  ])("read %s", (text, seconds, nanos) => {
    expect(parseTimestamp(text)).toMatchObject({ seconds, nanos });
  });

  it.each([undefined, "", "yesterday", "2023-13-40T00:00:00Z"])("read nothing in %j", (text) => {
    expect(parseTimestamp(text)).toBeUndefined();
  });
});
