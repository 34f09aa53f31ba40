import { describe, expect, it } from "vitest";
import type { ViewRow } from "../../../src/metadata/view-table.js";
import { selectView } from "../../../src/views/view-selection.js";

function view(id: string, name: string, target = "", mounted = false): ViewRow {
  return { id, name, target, mounted } as ViewRow;
}

/** What a table of these views answers. */
const tableOf = (views: readonly ViewRow[]) => ({
  get: (id: string) => views.find((row) => row.id === id),
  getByName: (name: string) => views.find((row) => row.name === name),
  list: () => [...views],
});

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
    expect(selectView(tableOf(views), selector).id).toBe(id);
  });

  it("refuses an ambiguous beginning", () => {
    const ambiguous = views.filter((row) => row.name !== "aa");
    expect(() => selectView(tableOf(ambiguous), "aa")).toThrowError(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });

  it.each(["zz", "", "/elsewhere"])("does not find %j", (selector) => {
    expect(() => selectView(tableOf(views), selector)).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
  });

  it("answers an image's name with how to mount it", () => {
    const select = (selector: string) => () => selectView(tableOf(views), selector);
    expect(select("demo/app:1")).toThrow('"varve mount demo/app:1" makes one of an image');
    expect(select("nothing")).toThrow(/not found; "varve views" lists them$/);
  });
});
