import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileFilters } from "../../../../src/services/containerd/filter.js";

const labels: Readonly<Record<string, string>> = {
  plain: "x",
  "containerd.io/gc.root": "a b",
  empty: "",
};

function read([field, ...rest]: readonly string[]): string | undefined {
  if (field === "name") return "default/1/snap";
  if (field === "parent") return "";
  return field === "labels" ? labels[rest.join(".")] : undefined;
}

const passes = (...filters: string[]) => compileFilters(filters)(read);

describe("a filter", () => {
  it.each([
    ["", true],
    ["name", true],
    ["missing", false],
    ["name==default/1/snap", true],
    ["name == default/1/snap", true],
    ['name=="default/1/snap"', true],
    ["name!=default/1/snap", false],
    ['parent==""', true],
    ['parent!=""', false],
    ["missing!=x", true],
    ['missing!=""', false],
    ['missing==""', false],
    ["name~=^default/[0-9]+/", true],
    ["name~=/^default/", true],
    ["name~=/default\\/1/", true],
    ["name~=|snap$|", true],
    ["missing~=^$", true],
    ["labels.plain", true],
    ["labels.plain==x", true],
    ["labels.empty", true],
    ['labels."containerd.io/gc.root"', true],
    ['labels."containerd.io/gc.root"=="a b"', true],
    ['labels."containerd.io/gc.root"=="a\\x20b"', true],
    ["labels.containerd", false],
    ["name==default/1/snap,labels.plain==x", true],
    ["name==default/1/snap,labels.plain==y", false],
  ])("%s: %s", (filter, expected) => {
    expect(passes(filter)).toBe(expected);
  });

  it.each([
    "==x",
    "name=",
    "name===",
    "name==",
    "name=x",
    "name,",
    "a b",
    'name=="x',
    "name~=(",
    '"\\q"',
  ])("%s is refused", (filter) => {
    expect(() => compileFilters([filter])).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });

  it("holds for any text that is quoted as JSON quotes it", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(compileFilters([`name==${JSON.stringify(text)}`])(() => text)).toBe(true);
      }),
    );
  });
});

describe("several filters", () => {
  it("hold when one of them does, and none at all always", () => {
    expect(passes("missing", "name")).toBe(true);
    expect(passes("missing", "name==x")).toBe(false);
    expect(passes()).toBe(true);
  });
});
