/** The npm package, installed where nothing else is, and used; the Debian package, as lintian sees it. */

import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { attempt, makeImage, PROJECT, run, Sandbox, shell } from "./sandbox.js";

let sandbox: Sandbox;
let installed: string;
let env: Record<string, string>;

beforeAll(() => {
  sandbox = new Sandbox("npm");
  run(join(PROJECT, "scripts/package-npm"), ["--built", "-o", sandbox.path("packed")]);
  const npm = ["install", "--global", "--prefix", sandbox.path("prefix"), "--ignore-scripts"];
  const quietly = ["--prefer-offline", "--no-audit", "--no-fund", "--silent"];
  const archive = shell("echo ./packed/varve-*.tgz", { cwd: sandbox.directory }).trim();
  run("npm", [...npm, ...quietly, archive], { cwd: sandbox.directory });
  installed = sandbox.path("prefix/lib/node_modules/varve");
  // SQLite's addon takes a minute to compile where its own prebuilt one cannot be fetched.
  const addon = "node_modules/better-sqlite3/build/Release/better_sqlite3.node";
  mkdirSync(join(installed, addon, ".."), { recursive: true });
  copyFileSync(join(PROJECT, addon), join(installed, addon));
  env = { ...sandbox.env, PATH: `${sandbox.path("prefix/bin")}:${process.env.PATH}` };
});

afterAll(() => {
  if (env !== undefined) attempt("varve", ["--no-autostart", "daemon", "stop"], { env });
  sandbox?.dispose();
});

it("has an addon for this machine, which the install step takes as it is", () => {
  const step = join(installed, "scripts/install-native.mjs");
  expect(run(process.execPath, [step])).toBe("");
  expect(existsSync(join(installed, "native/build"))).toBe(false);
});

it("holds what is needed to run and to compile, and nothing of the tests", () => {
  const files = shell("find . -path ./node_modules -prune -o -type f -print", { cwd: installed });
  for (const file of ["dist/explore/page/app.js", "native/src/addon.cc", "native/keeper/main.cc"]) {
    expect(files).toContain(`./${file}\n`);
  }
  expect(files).not.toMatch(/\.\/(test|src|docs)\//);
});

it("gives the command: load, mount, change, commit, and a daemon of its own files", () => {
  const varve = (...args: string[]) => run("varve", args, { env }).trimEnd();
  expect(varve("--version")).toMatch(/^varve \d+\.\d+\.\d+$/);
  varve("load", "-q", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
  const view = varve("mount", "busybox", "--name", "box");
  writeFileSync(join(view, "new"), "new\n");
  expect(varve("diff", "box")).toBe("A /new");
  expect(varve("commit", "-q", "box", "box:2")).toMatch(/^sha256:/);
  const pid = varve("info", "--format", "{{.Pid}}");
  expect(run("tr", ["\\0", " "], { input: shell(`cat /proc/${pid}/cmdline`) })).toContain(
    installed,
  );
  varve("umount", "box");
});

it("gives a library with types, under both of its names", () => {
  const program = sandbox.makeDirectory("program");
  writeFileSync(
    join(program, "main.mts"),
    `import { Varve, type MountedView } from "varve";
     import { VarveClient } from "varve/client";
     const varve: Varve = await Varve.open({ autostart: false });
     const client: VarveClient = varve.client;
     const view: MountedView = await varve.mount("busybox");
     const wrong: number = view.path;
     console.log(client, wrong);`,
  );
  shell(`mkdir -p node_modules && ln -sfn '${installed}' node_modules/varve`, { cwd: program });
  const { stdout } = attempt(
    join(PROJECT, "node_modules/.bin/tsc"),
    [
      ...["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2023"],
      ...["--types", "node", "--typeRoots", join(PROJECT, "node_modules/@types"), "main.mts"],
    ],
    { cwd: program },
  );
  expect(stdout.match(/error TS\d+: .*/g)).toEqual([
    "error TS2322: Type 'string' is not assignable to type 'number'.",
  ]);
});

it("has a Debian package that lintian finds nothing in, with unit, configuration, manual and completion", () => {
  const script = join(PROJECT, "scripts/package-deb");
  const deb =
    run(script, ["-o", sandbox.path("deb")])
      .trimEnd()
      .split("\n")
      .at(-1) ?? "";
  const files = run("dpkg-deb", ["--contents", deb]);
  for (const file of [
    "lib/systemd/system/varve.service",
    "etc/varve/config.toml",
    "usr/lib/tmpfiles.d/varve.conf",
    "usr/share/man/man1/varve-explore.1.gz",
    "usr/share/bash-completion/completions/varve",
    "usr/share/zsh/vendor-completions/_varve",
    "usr/share/fish/vendor_completions.d/varve.fish",
  ]) {
    expect(files).toContain(` ./${file}\n`);
  }
  const root = sandbox.path("unpacked");
  run("dpkg-deb", ["--extract", deb, root]);
  expect(run(join(root, "usr/bin/varve"), ["--version"])).toMatch(/^varve \d/);
  const unit = shell("cat lib/systemd/system/varve.service", { cwd: root });
  expect(unit).toMatch(/^ExecStart=\/usr\/bin\/varve daemon$/m);
  const page = shell(
    "zcat usr/share/man/man1/varve-commit.1.gz > page; man --warnings -l page 2>&1",
    {
      cwd: root,
      env: { MANWIDTH: "80", LC_ALL: "C.UTF-8" },
    },
  );
  expect(page).toContain("varve-commit - make an image of a view");
  expect(page).not.toContain("warning:");
}, 300_000);
