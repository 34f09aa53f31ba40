/**
 * The commands of the README and the Vagrant file do what they promise. A suite of its own: quickstart builds the
 * checkout again, under the feet of whatever test runs beside it.
 */

import { mkdtempSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { attempt, PROJECT } from "../e2e/sandbox.js";

describe("the set-up", () => {
  it("quickstart shows the whole way and leaves nothing mounted", () => {
    const directory = mkdtempSync(join(tmpdir(), "varve-quick-"));
    const { status, stdout, stderr } = attempt(`${PROJECT}/scripts/quickstart`, [], {
      env: { TMPDIR: directory },
    });
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
    expect(readFileSync("/proc/mounts", "utf8")).not.toContain(directory);
    // Not recursive: what quickstart left behind makes this fail.
    rmdirSync(directory);
  }, 240_000);

  it("the Vagrantfile is valid", () => {
    const home = mkdtempSync(join(tmpdir(), "varve-vagrant-"));
    const outcome = attempt("vagrant", ["validate", "--ignore-provider"], {
      cwd: PROJECT,
      env: { HOME: "/root", VAGRANT_HOME: home },
    });
    rmSync(home, { recursive: true });
    expect(outcome.stdout + outcome.stderr).toContain("validated successfully");
    expect(outcome.status).toBe(0);
  }, 120_000);
});
