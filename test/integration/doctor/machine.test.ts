/** The doctor on this machine, with the mount that it makes. */

import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { askKernel } from "../../../src/doctor/kernel-offer.js";
import { attempt, PROJECT, Sandbox } from "../../e2e/sandbox.js";

const traces = () => [
  ...readdirSync(tmpdir()).filter((name) => name.startsWith("varve-doctor-")),
  ...readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .filter((line) => line.includes("varve-doctor")),
];

describe("the doctor", () => {
  it("asks the kernel by a mount, and leaves none behind", async () => {
    const { major, minor } = await askKernel(true);
    expect(major).toBe(7);
    expect(minor).toBeGreaterThanOrEqual(31);
    expect(traces()).toEqual([]);
  });

  it("says of this machine that varve works here, as text and as JSON, without a daemon", () => {
    const sandbox = new Sandbox("doctor");
    try {
      const text = sandbox.varve("doctor");
      expect(text).toMatch(/^ {2}ok {7}\/dev\/fuse +open to this user$/m);
      expect(text).toMatch(/\nvarve works here[^\n]*$/);
      for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(110);
      const report = JSON.parse(sandbox.varve("doctor", "--format", "json"));
      expect(report.Healthy).toBe(true);
      expect(report.Checks).toContainEqual(
        expect.objectContaining({ Area: "Daemon", Name: "daemon", Status: "note" }),
      );
      sandbox.varve("images");
      expect(sandbox.varve("doctor")).toMatch(/^ {2}ok {7}daemon +0\.\d+\.\d+ at$/m);
    } finally {
      sandbox.dispose();
    }
  });

  it("ends with 1 where nothing can be kept, and says what is wrong with a configuration", () => {
    const doctor = (...flags: string[]) =>
      attempt(`${PROJECT}/bin/varve`, [...flags, "doctor"], { env: { NO_COLOR: "1" } });
    const failed = doctor("--root", "/proc/varve", "--state", "/tmp/varve-none");
    expect(failed.stdout).toContain("varve does not work here: 1 thing to mend first.");
    expect(failed.status).toBe(1);
    const wrong = doctor("--config", "/nowhere.toml");
    expect(wrong.stderr).toContain("configuration file /nowhere.toml: no such file");
    expect(wrong.status).toBe(1);
  });
});
