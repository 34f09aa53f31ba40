import path from "node:path";
import { expect, it } from "vitest";
import { viewOperand } from "../../../src/cli/view-operand.js";

it.each([
  ["box", "box"],
  ["demo/app:1", "demo/app:1"],
  ["localhost:5000/app", "localhost:5000/app"],
  [".", process.cwd()],
  ["./demo", `${process.cwd()}/demo`],
  ["..", path.dirname(process.cwd())],
  ["test/unit", `${process.cwd()}/test/unit`],
  ["/run/box", "/run/box"],
])("on the command line %s is %s", (given, operand) => {
  expect(viewOperand(given)).toBe(operand);
});
