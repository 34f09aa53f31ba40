/** The commands of the README and the Vagrant file do what they promise. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { attempt, PROJECT } from "./sandbox.js";

describe("the set-up", () => {
  it("quickstart shows the whole way and leaves nothing mounted", () => {
    const before = readFileSync("/proc/mounts", "utf8");
    const { status, stdout, stderr } = attempt(`${PROJECT}/scripts/quickstart`, []);
    expect(stderr).not.toMatch(/quickstart:/);
    for (const shown of [
      "$ varve load",
      "$ varve mount",
      "$ varve diff",
      "$ varve commit",
      "$ varve save",
      "hello from varve",
      "Done.",
    ])
      expect(stdout).toContain(shown);
    expect(status).toBe(0);
    expect(readFileSync("/proc/mounts", "utf8")).toBe(before);
  }, 240_000);

  it("the Vagrantfile is valid", () => {
    const outcome = attempt("vagrant", ["validate", "--ignore-provider"], {
      cwd: PROJECT,
      env: {
        HOME: "/root",
        VAGRANT_HOME: `${process.env.TMPDIR ?? "/tmp"}/varve-vagrant-${process.pid}`,
      },
    });
    expect(outcome.stdout + outcome.stderr).toContain("validated successfully");
    expect(outcome.status).toBe(0);
  }, 120_000);
});
