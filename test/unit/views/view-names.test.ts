import { describe, expect, it } from "vitest";
import type { ViewRow } from "../../../src/metadata/view-table.js";
import { parseMountInfo } from "../../../src/views/mount-table.js";
import { checkViewName, generateViewName } from "../../../src/views/view-names.js";
import { selectView } from "../../../src/views/view-selection.js";

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

function view(id: string, name: string, target = "", mounted = false): ViewRow {
  return { id, name, target, mounted } as ViewRow;
}

describe("selectView", () => {
  const views = [
    view("aa11", "web", "/mnt/a", true),
    view("aa22", "db", "/mnt/b"),
    view("bb33", "aa", "/mnt/b", true),
    view("cc44", "old", "/mnt/a"),
  ];

  it.each([
    ["a name", "web", "aa11"],
    ["an ID", "aa22", "aa22"],
    ["a unique beginning of an ID", "b", "bb33"],
    ["a name that is also the beginning of an ID", "aa", "bb33"],
    ["a mount path", "/mnt/a", "aa11"],
    ["a mount path with a slash too many", "/mnt/b/", "bb33"],
  ])("takes %s", (_, selector, id) => {
    expect(selectView(views, selector).id).toBe(id);
  });

  it("refuses an ambiguous beginning", () => {
    const ambiguous = views.filter((row) => row.name !== "aa");
    expect(() => selectView(ambiguous, "aa")).toThrowError(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });

  it.each(["zz", "", "/elsewhere"])("does not find %j", (selector) => {
    expect(() => selectView(views, selector)).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
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
