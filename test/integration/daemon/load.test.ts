/** A lean run of scripts/conformance/soak: what load leaves behind. */

import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const SOAK = path.resolve(import.meta.dirname, "../../../scripts/conformance/soak");

it("many views at once, mounts in a row and mixed calls side by side leave nothing behind", {
  timeout: 120_000,
}, async () => {
  const load = [
    "--views",
    "40",
    "--mounts",
    "40",
    "--parallel",
    "32",
    "--minutes",
    "0.05",
    "--rest",
    "3",
  ];
  // Its exit code says so; what grew or failed is in the message.
  const { stdout } = await promisify(execFile)(SOAK, load).catch((error: { stdout: string }) => {
    throw new Error(error.stdout);
  });
  expect(stdout).toMatch(/^after /m);
});
