import { describe, expect, it } from "vitest";
import { parseChallenges } from "../../../src/registry/challenge.js";
import { retryAfterMs } from "../../../src/registry/failures.js";

describe("WWW-Authenticate", () => {
  it("is taken apart, with quoted commas and escapes", () => {
    const header =
      'Bearer realm="https://auth.example/token",service="a, \\"b\\"",scope="repository:x:pull,push"';
    expect(parseChallenges(header)).toEqual([
      {
        scheme: "bearer",
        parameters: {
          realm: "https://auth.example/token",
          service: 'a, "b"',
          scope: "repository:x:pull,push",
        },
      },
    ]);
  });

  it("may hold several challenges, in one header or in many", () => {
    const schemes = (header: string | string[]) => parseChallenges(header).map((one) => one.scheme);
    expect(schemes('Negotiate, Basic realm=x, Bearer realm="y"')).toEqual([
      "negotiate",
      "basic",
      "bearer",
    ]);
    expect(schemes(["Basic", 'Bearer realm="y"'])).toEqual(["basic", "bearer"]);
  });

  it("that makes no sense is none", () => {
    expect(parseChallenges(undefined)).toEqual([]);
    expect(parseChallenges(',,, "')).toEqual([]);
  });
});

describe("Retry-After", () => {
  it("is seconds or a date, and never longer than a minute", () => {
    expect(retryAfterMs("3")).toBe(3000);
    expect(retryAfterMs("99999")).toBe(60_000);
    expect(retryAfterMs(new Date(Date.now() - 5000).toUTCString())).toBe(0);
    expect(retryAfterMs("soon")).toBeUndefined();
    expect(retryAfterMs(undefined)).toBeUndefined();
  });
});
