import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { makeScratch } from "./scratch.js";

const script = resolve("scripts/build-native.mjs");

describe("build-native", () => {
  it("names the Debian packages of the tools that are missing", () => {
    const empty = makeScratch().path;
    const result = spawnSync(process.execPath, [script, "--force"], {
      encoding: "utf8",
      env: { ...process.env, PATH: empty },
    });
    expect(result.status).toBe(1);
    expect(result.stdout).toBe("");
    expect(result.stderr).toBe(
      "build-native: native build needs g++, make, python3, flock, not found on PATH; " +
        "on Debian or Ubuntu: sudo apt-get install g++ make python3 util-linux\n",
    );
  });

  it("leaves an addon alone that is newer than its sources", () => {
    const built = resolve("native/build/Release/varve_native.node");
    const run = () => spawnSync(process.execPath, [script], { encoding: "utf8" });
    expect(run().status).toBe(0);
    const before = statSync(built).mtimeMs;
    expect(run()).toMatchObject({ status: 0, stdout: "", stderr: "" });
    expect(statSync(built).mtimeMs).toBe(before);
  });
});
