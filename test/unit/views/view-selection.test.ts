import { describe, expect, it } from "vitest";
import { viewOperand } from "../../../src/cli/view-operand.js";
import type { ViewRow } from "../../../src/metadata/view-table.js";
import { selectView } from "../../../src/views/view-selection.js";

const view = (id: string, name: string, target: string, mounted = true) =>
  ({ id, name, target, mounted }) as ViewRow;
const VIEWS = [
  view("aa11", "box", "/run/box"),
  view("aa22", "aa1", "/mnt", false),
  view("bb33", "other", "/mnt"),
];
const select = (selector: string) => selectView(VIEWS, selector).id;

describe("a view is meant by", () => {
  it.each([
    ["its name", "box", "aa11"],
    ["its ID", "bb33", "bb33"],
    ["the beginning of its ID", "b", "bb33"],
    ["a name that looks like the beginning of another's ID", "aa1", "aa22"],
    ["its path, where it is the mounted one", "/mnt/", "bb33"],
  ])("%s", (_, selector, id) => {
    expect(select(selector)).toBe(id);
  });
});

it("the beginning of two IDs is refused", () => {
  expect(() => select("aa")).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
});

it("an image's name is answered with how to mount it", () => {
  expect(() => select("demo/app:1")).toThrow('"varve mount demo/app:1" makes one of an image');
  expect(() => select("nothing")).toThrow(/not found; "varve views" lists them$/);
});

it.each([
  ["box", "box"],
  ["demo/app:1", "demo/app:1"],
  ["localhost:5000/app", "localhost:5000/app"],
  [".", process.cwd()],
  ["./demo", `${process.cwd()}/demo`],
  ["..", new URL("..", `file://${process.cwd()}/`).pathname.slice(0, -1)],
  ["test/unit", `${process.cwd()}/test/unit`],
  ["/run/box", "/run/box"],
])("on the command line %s is %s", (given, operand) => {
  expect(viewOperand(given)).toBe(operand);
});
