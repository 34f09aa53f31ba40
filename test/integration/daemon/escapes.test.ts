/** Ways out that advisories of other tools tell of, which need a whole daemon to try. */

import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const STRANGER = 64_123;
const sandbox = new DaemonSandbox();

beforeAll(async () => {
  chmodSync(sandbox.directory, 0o711);
  await sandbox.start();
  const setId = (tree: string) => {
    mkdirSync(path.join(tree, "bin"));
    copyFileSync("/bin/busybox", path.join(tree, "bin/set-id"));
    chmodSync(path.join(tree, "bin/set-id"), 0o4755);
  };
  await sandbox.load(makeLayout(sandbox.path("layout"), "docker.io/library/small:latest", setId));
});

afterAll(() => sandbox.dispose());

it("a set-id program of an image is nobody's way up through the layers' directory, or the view's upper", async () => {
  const { target, upperDir } = await sandbox.mount({ image: "small", name: "set-id" });
  execFileSync("touch", [path.join(target, "bin/set-id")]);
  const { lowerDirs } = await sandbox.client.inspectImage({ reference: "small" });
  expect(lowerDirs).toHaveLength(3);
  for (const directory of [lowerDirs[0]!, upperDir]) {
    const program = path.join(directory, "bin/set-id");
    expect(execFileSync("stat", ["-c", "%a", program], { encoding: "utf8" })).toBe("4755\n");
    // env, because setpriv itself starts a program while it still has root's capabilities.
    const who = [`--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups"];
    const { status, stderr } = spawnSync("setpriv", [...who, "env", program], { cwd: "/" });
    expect({ status, stderr: String(stderr) }).toMatchObject({
      stderr: expect.stringContaining("Permission denied"),
    });
  }
});

it("what a bundle is made of is read inside the view, wherever the image's links lead", async () => {
  const outside = sandbox.path("outside");
  mkdirSync(outside);
  writeFileSync(path.join(outside, "passwd"), "of-the-host:x:4242:4242::/:/bin/sh\n");
  const { target } = await sandbox.mount({ image: "small", name: "linked" });
  const up = "../".repeat(40);
  const script = `mkdir -p "$1/etc" && ln -sfn "$2/passwd" "$1/etc/passwd" && ln -sfn "$3$2" "$1/up"`;
  execFileSync("sh", ["-c", script, "sh", target, outside, up]);
  await sandbox.commit({ name: "linked", reference: "linked", changes: ["USER of-the-host"] });
  const view = await sandbox.mount({ image: "linked", name: "bundled" });
  const bundle = { name: view.name, directory: sandbox.path("bundle") };
  await expect(sandbox.client.createBundle(bundle)).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
  });
});
