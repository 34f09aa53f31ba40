import { describe, expect, it } from "vitest";
import {
  compatiblePlatforms,
  formatPlatform,
  hostPlatform,
  parsePlatform,
  platformRank,
} from "../../../src/images/platform.js";

const rank = (wanted: string, candidate: string) =>
  platformRank(parsePlatform(wanted), parsePlatform(candidate));

describe("parsePlatform", () => {
  it.each([
    ["linux/amd64", "linux/amd64"],
    ["linux/x86_64", "linux/amd64"],
    ["linux/amd64/v1", "linux/amd64"],
    ["linux/amd64/v3", "linux/amd64/v3"],
    ["linux/aarch64", "linux/arm64"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/arm64/8", "linux/arm64"],
    ["linux/arm", "linux/arm/v7"],
    ["linux/arm/6", "linux/arm/v6"],
    ["linux/armhf", "linux/arm/v7"],
    ["linux/armel", "linux/arm/v6"],
    ["arm64", "linux/arm64"],
    ["riscv64", "linux/riscv64"],
    ["Linux/AMD64", "linux/amd64"],
  ])("reads %s as %s", (text, normal) => {
    expect(formatPlatform(parsePlatform(text))).toBe(normal);
  });

  it("fills in the host's architecture for a system", () => {
    expect(parsePlatform("linux")).toEqual(hostPlatform());
  });

  it.each(["", "/", "linux/", "linux//v7", "a/b/c/d", "no-such-thing", "linux/am d64"])(
    "refuses %j",
    (text) => {
      expect(() => parsePlatform(text)).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    },
  );
});

describe("platformRank", () => {
  it("prefers the exact variant, then older ones, and takes no newer one", () => {
    expect(rank("linux/arm/v7", "linux/arm/v7")).toBe(0);
    expect(rank("linux/arm/v7", "linux/arm/v6")).toBe(1);
    expect(rank("linux/arm/v7", "linux/arm/v5")).toBe(2);
    expect(rank("linux/arm/v6", "linux/arm/v7")).toBeUndefined();
    expect(rank("linux/amd64/v3", "linux/amd64")).toBe(2);
    expect(rank("linux/amd64", "linux/amd64/v2")).toBeUndefined();
  });

  it("lets 64-bit processors run 32-bit images, last", () => {
    expect(rank("linux/amd64", "linux/386")).toBe(1);
    expect(rank("linux/arm64", "linux/arm/v7")).toBe(2);
    expect(rank("linux/386", "linux/amd64")).toBeUndefined();
  });

  it("knows that arm64 is arm64/v8 and how v9 relates to v8", () => {
    expect(rank("linux/arm64", "linux/arm64/v8")).toBe(0);
    const order = compatiblePlatforms(parsePlatform("linux/arm64/v9.1")).map(formatPlatform);
    expect(order.slice(0, 4)).toEqual([
      "linux/arm64/v9.1",
      "linux/arm64/v9",
      "linux/arm64/v8.6",
      "linux/arm64/v8.5",
    ]);
  });

  it("keeps systems apart", () => {
    expect(rank("linux/amd64", "windows/amd64")).toBeUndefined();
  });
});
