import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { V8_FLAGS } from "../../../src/daemon/main.js";

it("the flags that a daemon sets are known to this Node.js", () => {
  expect(execFileSync(process.execPath, [V8_FLAGS, "-p", "'known'"], { encoding: "utf8" })).toBe(
    "known\n",
  );
});
