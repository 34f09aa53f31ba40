/** The command line itself: usage errors, help, exit codes, completion. No daemon runs here. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { COMMANDS } from "../../../src/cli/command-table.js";
import { completionScript, SHELLS } from "../../../src/cli/completion-scripts.js";
import type { CliIo, InputStream } from "../../../src/cli/context.js";
import { main } from "../../../src/cli/main.js";

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "varve-cli-"));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

class Capture extends Writable {
  text = "";
  isTTY = false;

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

async function varve(argv: readonly string[], changes: Partial<CliIo> = {}): Promise<Run> {
  const stdout = new Capture();
  const stderr = new Capture();
  const io: CliIo = {
    stdin: (async function* () {})(),
    stdout,
    stderr,
    // Nobody listens there, and nobody may be started.
    env: { VARVE_SOCKET: path.join(directory, "none.sock"), VARVE_NO_AUTOSTART: "1" },
    signal: new AbortController().signal,
    ...changes,
  };
  const code = await main(argv, io);
  return { code, stdout: stdout.text, stderr: stderr.text };
}

const terminal = Object.assign(new Capture(), { isTTY: true });
const terminalInput: InputStream = Object.assign((async function* () {})(), { isTTY: true });

describe("a wrong command line", () => {
  it.each([
    [["imags"], "unknown command 'imags' (did you mean one of image, images?)"],
    [["--bogus", "images"], "unknown option '--bogus'"],
    [["images", "--digest"], "unknown option '--digest' (did you mean --digests?)"],
    [["images", "a", "b"], "too many arguments"],
    [["commit"], "missing required argument 'view'"],
    [["commit", "box", "--compression", "lzma"], "Allowed choices are gzip, zstd, none"],
    [["commit", "box", "--compression-level", "x"], "want 0 to 19"],
    [["rm"], "missing required argument 'view'"],
    [["rmi"], "missing required argument 'image'"],
    [["tag", "busybox"], "missing required argument 'new-name'"],
    [["umount"], "umount: which view?"],
    [["umount", "--all", "box"], "exclude each other"],
    [["mount", "/mnt/x"], "which image?"],
    [["mount", "--read-only"], "which image?"],
    [["load", "--all-platforms", "--platform", "linux/amd64"], "exclude each other"],
    [["save", "busybox", "--format", "tar"], "Allowed choices are oci-archive"],
    [["save", "busybox", "--format", "oci-dir"], "needs a directory"],
    [["completion", "tcsh"], "Allowed choices are bash, zsh, fish"],
    [["daemon", "--fuse-workers", "0"], "want a whole number from 1"],
    [["daemon", "stop", "now"], "too many arguments"],
    [["help", "nothing"], 'no command "nothing"'],
    [["help", "comit"], 'no command "comit" (did you mean commit?)'],
    [["images", "--socket"], "argument missing"],
  ])("%j says what is wrong and exits with 2", async (argv, message) => {
    const { code, stdout, stderr } = await varve(argv);
    expect(stderr).toMatch(/^varve: /);
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/See "varve .*--help"\.\n$/);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });

  it("refuses to write an archive to a terminal", async () => {
    const { code, stderr } = await varve(["save", "busybox"], { stdout: terminal });
    expect(stderr).toContain("refusing to write an archive to a terminal");
    expect(code).toBe(2);
  });

  it("refuses to read an archive from a terminal", async () => {
    const { code, stderr } = await varve(["load"], { stdin: terminalInput });
    expect(stderr).toContain("standard input is a terminal");
    expect(code).toBe(2);
  });

  it("checks SOURCE_DATE_EPOCH before it asks the daemon", async () => {
    const { code, stderr } = await varve(["commit", "box"], { env: { SOURCE_DATE_EPOCH: "now" } });
    expect(stderr).toContain("SOURCE_DATE_EPOCH=now: want seconds since 1970");
    expect(code).toBe(2);
  });

  it("checks a template of diff before it asks the daemon", async () => {
    const { code, stderr } = await varve(["diff", "box", "--format", "{{.Pth}}"]);
    expect(stderr).toContain("known fields: Kind, Path");
    expect(code).toBe(2);
  });
});

describe("without a daemon", () => {
  const needDaemon = [
    ["images"],
    ["views"],
    ["info"],
    ["mount", "busybox"],
    ["mount", "--name", "box", "./x"],
    ["history", "--human=false", "busybox"],
    ["image", "ls", "-q"],
    ["--debug=false", "ls"],
  ];
  it.each(needDaemon.map((argv) => [argv]))(
    "%j says how to get one and exits with 1",
    async (argv) => {
      const { code, stderr, stdout } = await varve(argv);
      expect(stderr).toMatch(
        /^varve: daemon not running at .*none\.sock: start it with `varve daemon`/,
      );
      expect(stderr.trimEnd().split("\n")).toHaveLength(1);
      expect(stdout).toBe("");
      expect(code).toBe(1);
    },
  );

  it("shows where an error came from with --debug", async () => {
    const { stderr } = await varve(["--debug", "images"]);
    expect(stderr).toMatch(/UnavailableError: .*\n\s+at /);
  });

  it("stops nothing", async () => {
    const { code, stderr } = await varve(["daemon", "stop"]);
    expect(stderr).toContain("nothing to stop");
    expect(code).toBe(1);
  });

  it("names a missing archive by what was typed", async () => {
    const { code, stderr } = await varve(["load", "-i", "missing.tar"]);
    expect(stderr).toBe("varve: load missing.tar: no such file or directory\n");
    expect(code).toBe(1);
  });

  it("tells versions", async () => {
    const { code, stdout } = await varve(["version"]);
    expect(stdout).toMatch(/^Client:\n Version: +0\./);
    expect(stdout).toContain("Daemon: not running at");
    expect(code).toBe(0);
    const json = await varve(["version", "--format", "json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({ Server: null });
    const field = await varve(["version", "-f", "{{.Client.NodeVersion}}"]);
    expect(field.stdout).toBe(`${process.versions.node}\n`);
    expect((await varve(["--version"])).stdout).toMatch(/^varve 0\.\d+\.\d+\n$/);
  });

  it("ends with 130 when interrupted", async () => {
    const interrupt = new AbortController();
    interrupt.abort();
    const { code, stderr } = await varve(["images"], { signal: interrupt.signal });
    expect(stderr).toBe("");
    expect(code).toBe(130);
  });
});

describe("help", () => {
  it.each([[[]], [["help"]], [["--help"]]])(
    "%j lists every command and the exit codes",
    async (argv) => {
      const { code, stdout, stderr } = await varve(argv);
      for (const { name, summary } of COMMANDS)
        expect(stdout).toContain(`  ${name.padEnd(21)}${summary}`);
      expect(stdout).toContain("130  interrupted by Ctrl-C");
      expect(stderr).toBe("");
      expect(code).toBe(0);
    },
  );

  it.each([...COMMANDS.map(({ name }) => name), "daemon stop", "image ls"])(
    "of %s has examples, fits 80 columns, and is the same by both ways",
    async (name) => {
      const { code, stdout } = await varve(["help", ...name.split(" ")]);
      expect(stdout).toMatch(/\nExamples:\n {2}\S/);
      for (const line of stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
      expect(code).toBe(0);
      if (name !== "help") {
        expect((await varve([...name.split(" "), "--help"])).stdout).toBe(stdout);
      }
    },
  );
});

describe("completion", () => {
  const complete = async (...words: string[]) => {
    const { stdout, code } = await varve(["__complete", ...words]);
    expect(code).toBe(0);
    return stdout.split("\n").map((line) => line.split("\t")[0]);
  };

  it("completes commands, nested ones too", async () => {
    expect(await complete("im")).toEqual(["images", "image", ""]);
    expect(await complete("daemon", "s")).toEqual(["stop", ""]);
    expect(await complete("image", "l")).toEqual(["ls", "load", ""]);
    expect(await complete("--socket", "/x", "vi")).toEqual(["views", ""]);
    expect(await complete("help", "comm")).toEqual(["commit", ""]);
  });

  it("completes options, those of nested commands too", async () => {
    expect(await complete("commit", "--comp")).toEqual([
      "--compression",
      "--compression-level",
      "",
    ]);
    expect(await complete("image", "ls", "--dig")).toEqual(["--digests", ""]);
    expect(await complete("images", "--no-a")).toEqual(["--no-autostart", ""]);
  });

  it("completes values", async () => {
    expect(await complete("commit", "--compression", "")).toEqual(["gzip", "zstd", "none", ""]);
    expect(await complete("commit", "--compression=z")).toEqual(["--compression=zstd", ""]);
    expect(await complete("completion", "z")).toEqual(["zsh", ""]);
    expect(await complete("load", "-i", "")).toEqual([":files", ""]);
    expect(await complete("bundle", "box", "")).toEqual([":dirs", ""]);
  });

  it("is silent where a daemon would be needed", async () => {
    expect(await complete("rmi", "")).toEqual([""]);
    const { stderr } = await varve(["__complete", "rm", ""]);
    expect(stderr).toBe("");
  });

  it.each(SHELLS)(
    "prints the script of %s, which the shell can read where it is installed",
    async (shell) => {
      const { stdout } = await varve(["completion", shell]);
      expect(stdout).toBe(completionScript(shell));
      const file = path.join(directory, `completion.${shell}`);
      writeFileSync(file, stdout);
      const check = spawnSync(shell, ["-n", file], { encoding: "utf8" });
      const isInstalled = check.error === undefined;
      expect(isInstalled ? check.stderr : "").toBe("");
      expect(isInstalled ? check.status : 0).toBe(0);
    },
  );

  it("works in a real bash, colons included", () => {
    // A stand-in that offers what a daemon with two images would.
    const script = `
      ${completionScript("bash")}
      compopt() { :; }
      varve() { printf '%s\\n' "registry:5000/a:v1\timage" "registry:5000/a:v2\timage"; }
      COMP_LINE="varve rmi registry:5000/a:v"; COMP_POINT=\${#COMP_LINE}
      _varve; printf '[%s]' "\${COMPREPLY[@]}"`;
    const { stdout } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
    expect(stdout).toBe("[v1][v2]");
  });
});
