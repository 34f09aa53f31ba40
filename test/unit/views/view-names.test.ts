import { describe, expect, it } from "vitest";
import { parseMountInfo } from "../../../src/views/mount-table.js";
import { checkViewName, generateViewName } from "../../../src/views/view-names.js";

describe("view names", () => {
  it.each(["a", "web-1", "A_b.c-d", "0x"])("accepts %s", (name) => {
    expect(() => checkViewName(name)).not.toThrow();
  });

  it.each(["", "-a", ".a", "_a", "a b", "a/b", "ä", "a".repeat(129), "a\n"])(
    "refuses %j",
    (name) => {
      expect(() => checkViewName(name)).toThrowError(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    },
  );

  it("generates names that it accepts", () => {
    for (let round = 0; round < 100; round++) checkViewName(generateViewName(() => false));
  });

  it("generates another name when one is taken", () => {
    const taken = new Set<string>();
    for (let round = 0; round < 50; round++) {
      taken.add(generateViewName((name) => taken.has(name)));
    }
    expect(taken.size).toBe(50);
  });

  it("numbers names when the plain ones are taken", () => {
    expect(generateViewName((name) => !/[0-9]/.test(name))).toMatch(/^[a-z]+-[a-z]+-[0-9]+$/);
  });
});

describe("parseMountInfo", () => {
  it("reads escapes and skips optional fields", () => {
    const text = [
      "36 35 98:0 / /mnt/with\\040space rw,noatime master:1 shared:2 - fuse.varve varve:ab rw",
      "37 35 98:1 / /plain rw - ext4 /dev/sda1 rw",
      "",
    ].join("\n");
    expect(parseMountInfo(text)).toEqual([
      { mountPoint: "/mnt/with space", type: "fuse.varve", source: "varve:ab" },
      { mountPoint: "/plain", type: "ext4", source: "/dev/sda1" },
    ]);
  });
});
