/** containerd's own snapshotter suite, which every snapshotter of its must pass, against a daemon. */

import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DaemonSandbox } from "../../integration/daemon/daemon-process.js";

const driver = path.join(import.meta.dirname, "driver");
const directory = mkdtempSync(path.join(os.tmpdir(), "varve-suite-"));
/** The suite of another release, which `scripts/conformance/containerd` has built. */
const BUILT = process.env.VARVE_TEST_SNAPSHOTTER_SUITE;
const program = BUILT ?? path.join(directory, "suite");
const SUITE_TIMEOUT_MS = 300_000;

const SUBTESTS = [
  ...["Basic", "StatActive", "StatComitted", "TransitivityTest", "PreareViewFailingtest", "Update"],
  ...["Remove", "Walk", "LayerFileupdate", "RemoveDirectoryInLowerLayer", "Chown"],
  ...["DirectoryPermissionOnCommit", "RemoveIntermediateSnapshot", "DeletedFilesInChildSnapshot"],
  ...["MoveFileFromLowerLayer", "ViewReadonly", "StatInWalk", "CloseTwice", "RootPermission"],
  "128LayersMount",
  // Skipped by 1.6 itself.
  ...(BUILT === undefined ? [] : ["Rename"]),
];

beforeAll(async () => {
  if (BUILT !== undefined) return;
  // Debian's packages of Go libraries are a GOPATH; there are no modules to fetch.
  const env = { ...process.env, GO111MODULE: "off", GOPATH: "/usr/share/gocode", GOFLAGS: "" };
  await promisify(execFile)("go", ["test", "-c", "-o", program, "."], { cwd: driver, env });
}, SUITE_TIMEOUT_MS);

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

const OWN_TESTS: Readonly<Record<string, readonly string[]>> = {
  fuse: ["TestRenameOfLowerDirectories", "TestFuseKeepsHardLinks"],
  overlay: ["TestRenameOfLowerDirectories"],
};

/** Runs tests of the driver against a new daemon; returns what passed, as Go names it. */
async function passed(form: string, tests: readonly string[]): Promise<string[]> {
  const sandbox = new DaemonSandbox();
  const socket = sandbox.path("containerd.sock");
  try {
    await sandbox.start("--containerd-socket", socket, "--containerd-mounts", form);
    const temporary = sandbox.path("tmp");
    mkdirSync(temporary);
    const env = { ...process.env, VARVE_CONTAINERD_SOCKET: socket, TMPDIR: temporary };
    const flags = ["-test.root", "-test.v", `-test.run=^(${tests.join("|")})$`];
    const stdout = await output(flags, env);
    expect(stdout.split("\n").filter((line) => /--- FAIL|panic:|_test\.go/.test(line))).toEqual([]);
    expect(readdirSync(temporary)).toEqual([]);
    expect(await sandbox.end()).toBe(0);
    expect(sandbox.mounts()).toEqual([]);
    return [...stdout.matchAll(/--- PASS: (\S+)/g)].map((match) => match[1]!);
  } finally {
    await sandbox.dispose();
  }
}

/** Standard output, also of a failing run. */
async function output(flags: readonly string[], env: NodeJS.ProcessEnv): Promise<string> {
  const options = { cwd: directory, env, maxBuffer: 1 << 26 };
  return promisify(execFile)(program, flags, options).then(
    ({ stdout }) => stdout,
    (error: { stdout?: string }) => error.stdout ?? String(error),
  );
}

describe.each(Object.keys(OWN_TESTS))("containerd's snapshotter suite with %s mounts", (form) => {
  it(
    "passes, and so do renames of lower directories",
    async () => {
      const tests = ["TestSuite", ...OWN_TESTS[form]!];
      const subtests = SUBTESTS.map((name) => `TestSuite/${name}`);
      expect((await passed(form, tests)).sort()).toEqual([...tests, ...subtests].sort());
    },
    SUITE_TIMEOUT_MS,
  );
});
