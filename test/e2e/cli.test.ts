/** The command line against a real daemon: what it prints where, how it ends, how it starts and stops. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attempt, makeImage, PROJECT, Sandbox, shell } from "./sandbox.js";

const VARVE = join(PROJECT, "bin/varve");
const ID = /^sha256:[0-9a-f]{64}$/;

let sandbox: Sandbox;
let archive: string;

beforeAll(() => {
  sandbox = new Sandbox("cli");
  archive = makeImage("busybox", sandbox.path("busybox.tar"));
  sandbox.varve("load", "-q", "-i", archive);
});

afterAll(() => sandbox?.dispose());

/** Ends with the exit code, or with the name of the signal that ended the process. */
function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? signal ?? ""));
  });
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(20);
}

describe("images on the command line", () => {
  it("are listed as a table, as IDs, as JSON lines and by a template", () => {
    const [header, row] = sandbox.varve("images").split("\n");
    expect(header).toMatch(/^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE$/);
    expect(row).toMatch(/^busybox +latest +[0-9a-f]{12} .* ago +[\d.]+MB$/);
    const shortId = sandbox.varve("images", "-q");
    expect(shortId).toMatch(/^[0-9a-f]{12}$/);
    expect(sandbox.varve("image", "ls", "-q", "--no-trunc")).toMatch(ID);
    expect(JSON.parse(sandbox.varve("images", "--format", "json"))).toMatchObject({
      Repository: "busybox",
      Tag: "latest",
      ID: shortId,
    });
    const format = "{{.Repository}}:{{.Tag}}";
    expect(sandbox.varve("images", "busybox", "--format", format)).toBe("busybox:latest");
    expect(sandbox.varve("images", "other", "-q")).toBe("");
  });

  it("are inspected by field, and a missing one fails after the others were shown", () => {
    expect(sandbox.varve("inspect", "-f", "{{.RootFS.Type}} {{.Os}}", "busybox")).toBe(
      "layers linux",
    );
    const { status, stdout, stderr } = sandbox.try("inspect", "busybox", "missing");
    expect(JSON.parse(stdout)).toHaveLength(1);
    expect(stderr).toBe("varve: inspect missing: no such image or view\n");
    expect(status).toBe(1);
  });

  it("are tagged and untagged as docker reports it", () => {
    expect(sandbox.varve("tag", "busybox", "team/box:v1")).toBe("");
    expect(sandbox.varve("rmi", "team/box:v1")).toBe("Untagged: team/box:v1");
  });

  it("come in through a pipe and go out through one", () => {
    const options = { env: sandbox.env };
    expect(shell(`'${VARVE}' load -q < '${archive}'`, options)).toBe(
      "Loaded image: busybox:latest\n",
    );
    expect(shell(`'${VARVE}' load -q -i <(cat '${archive}')`, options)).toBe(
      "Loaded image: busybox:latest\n",
    );
    expect(shell(`'${VARVE}' save busybox | tar -t`, options)).toContain("oci-layout\n");
    expect(shell(`'${VARVE}' save busybox -o >(tar -t > '${sandbox.path("list")}')`, options)).toBe(
      "",
    );
    const closed = shell(`set +o pipefail; '${VARVE}' save busybox | head -c 4 | wc -c`, options);
    expect(closed.trim()).toBe("4");
  });
});

describe("a view on the command line", () => {
  it("is mounted, changed, committed and removed with results alone on standard output", () => {
    const mounted = sandbox.try("mount", "busybox", "--name", "box");
    const target = mounted.stdout.trimEnd();
    expect(existsSync(join(target, "bin"))).toBe(true);
    expect(sandbox.varve("mount").split(/ {2,}/)).toEqual(["box", target]);
    writeFileSync(Buffer.from(`${target}/tmp/a\n\xff`, "latin1"), "x");
    writeFileSync(join(target, "etc/new"), "y");

    expect(sandbox.varve("diff", target)).toBe(
      ["C /etc", "A /etc/new", "C /tmp", 'A "/tmp/a\\n\\xff"'].join("\n"),
    );
    const last = sandbox.varve("diff", "box", "--format", "json").split("\n").at(-1) ?? "";
    const { PathBase64 } = JSON.parse(last) as { PathBase64: string };
    expect(Buffer.from(PathBase64, "base64").toString("latin1")).toBe("/tmp/a\n\xff");

    const commit = sandbox.try("commit", "box", "box:v2", "-m", "new", "-c", 'CMD ["sh"]');
    expect(commit.stdout.trimEnd()).toMatch(ID);
    expect(commit.stderr).toContain("packing");
    expect(sandbox.varve("inspect", "-f", "{{json .Config.Cmd}} {{.Comment}}", "box:v2")).toBe(
      '["sh"] new',
    );
    expect(sandbox.varve("history", "box:v2", "-q").split("\n")).toEqual([
      sandbox.varve("images", "-q", "box:v2"),
      "<missing>",
    ]);
    expect(sandbox.try("commit", "-q", "box", "box:v3").stderr).toBe("");

    expect(sandbox.varve("views", "--format", "{{.Name}} {{.Mode}} {{.Status}}")).toBe(
      "box rw mounted",
    );
    expect(sandbox.varve("umount", "--all")).toBe("box");
    expect(sandbox.varve("mount", "--name", "box", "-q")).toBe(target);
    const removed = sandbox.try("rm", "-f", "missing", "box");
    expect(removed.stdout).toBe("box\n");
    expect(removed.stderr).toMatch(/^varve: .*missing.*\n$/);
    expect(removed.status).toBe(1);
  });

  it("is completed by its name, and images by theirs", () => {
    sandbox.mount("busybox", "tab");
    try {
      expect(sandbox.varve("__complete", "rm", "")).toBe("tab\tview of busybox:latest");
      expect(sandbox.varve("__complete", "rmi", "busy")).toBe("busybox:latest\timage");
    } finally {
      sandbox.varve("rm", "-f", "tab");
    }
  });
});

describe("an interrupted command", () => {
  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("ends on %s with %d and leaves no trace", async (signal, code) => {
    const own = new Sandbox("cli-interrupt");
    const ingests = () => readdirSync(own.path("root/ingest"));
    own.varve("info");
    const child = spawn(VARVE, ["load"], {
      env: { ...process.env, ...own.env },
      stdio: ["pipe", "ignore", "pipe"],
    });
    try {
      const exit = ended(child);
      let stderr = "";
      child.stderr?.on("data", (chunk: Buffer) => {
        stderr += chunk.toString();
      });
      // Half an archive, and then nothing: the command waits for the rest.
      const whole = readFileSync(archive);
      // The rest of a write may find the command gone.
      child.stdin?.on("error", () => undefined);
      child.stdin?.write(whole.subarray(0, whole.length / 2));
      await until(() => ingests().length > 0);
      child.kill(signal);
      expect(await exit).toBe(code);
      expect(stderr).not.toContain("varve:");
      await until(() => ingests().length === 0);
      expect(own.varve("images", "-q")).toBe("");
    } finally {
      child.kill("SIGKILL");
      own.dispose();
    }
  });
});

describe("the daemon", () => {
  it("is started once by commands that come together, and is gone when stop returns", async () => {
    const own = new Sandbox("cli-start");
    try {
      const env = { ...process.env, ...own.env };
      const commands = [1, 2, 3].map(() => spawn(VARVE, ["images"], { env, stdio: "ignore" }));
      expect(await Promise.all(commands.map(ended))).toEqual([0, 0, 0]);
      const pid = Number(own.varve("info", "-f", "{{.Pid}}"));
      own.varve("daemon", "stop");
      expect(() => process.kill(pid, 0)).toThrow("ESRCH");
      expect(existsSync(own.path("state/varve.sock"))).toBe(false);
      const again = own.try("daemon", "stop");
      expect(again.stderr).toContain("nothing to stop");
      expect(again.status).toBe(1);
    } finally {
      own.dispose();
    }
  });

  it("runs in the foreground until a signal ends it", async () => {
    const own = new Sandbox("cli-foreground");
    const { VARVE_ROOT: root = "", VARVE_STATE: state = "" } = own.env;
    const flags = ["--root", root, "--state", state, "--no-autostart"];
    const daemon = spawn(VARVE, [...flags.slice(0, 4), "daemon", "--log-level", "info"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const exit = ended(daemon);
    try {
      await until(() => attempt(VARVE, [...flags, "info"]).status === 0);
      expect(attempt(VARVE, [...flags, "info", "-f", "{{.Pid}}"]).stdout).toBe(`${daemon.pid}\n`);
      const second = attempt(VARVE, [...flags.slice(0, 4), "daemon"]);
      expect(second.status).toBe(75);
      daemon.kill("SIGTERM");
      expect(await exit).toBe(0);
    } finally {
      daemon.kill("SIGKILL");
      own.dispose();
    }
  });

  it("that cannot start says why", () => {
    const own = new Sandbox("cli-broken");
    try {
      writeFileSync(own.path("config.toml"), 'log_levl = "info"\n');
      const { status, stderr } = own.try("--config", own.path("config.toml"), "images");
      expect(stderr).toContain('unknown key "log_levl"; did you mean "log_level"?');
      expect(status).toBe(1);
    } finally {
      own.dispose();
    }
  });
});
