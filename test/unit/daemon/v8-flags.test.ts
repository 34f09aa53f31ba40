import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { v8FlagsFor } from "../../../src/daemon/main.js";

it("the flags that a daemon sets are known to this Node.js", () => {
  const flags = v8FlagsFor(process.versions.v8) ?? "--no-warnings";
  const printed = execFileSync(process.execPath, [flags, "-p", "'known'"], { encoding: "utf8" });
  expect(printed).toBe("known\n");
});

it("a daemon sets none that later releases complain of", () => {
  expect(v8FlagsFor("12.4.254.21-node.33")).toBeUndefined();
  expect(v8FlagsFor("13.6.233.10-node.28")).toBeUndefined();
});
