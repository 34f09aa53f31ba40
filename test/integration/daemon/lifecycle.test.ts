/** Starting, stopping and dying. */

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ensureDaemon, isListening } from "../../../src/client/autostart.js";
import { VarveClient } from "../../../src/client/client.js";
import { DaemonSandbox, isAlive, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

let sandbox: DaemonSandbox;

beforeEach(() => {
  sandbox = new DaemonSandbox();
});

afterEach(() => sandbox.dispose());

async function startWithView(name: string, ...flags: string[]): Promise<string> {
  await sandbox.start(...flags);
  await sandbox.load(makeLayout(sandbox.path("layout")));
  const { target } = await sandbox.mount({ image: "small", name });
  writeFileSync(path.join(target, "data/written"), "written");
  return target;
}

async function viewState(name: string): Promise<boolean | undefined> {
  return (await sandbox.client.inspectView({ name })).view?.mounted;
}

describe("a stop", () => {
  it.each(["SIGTERM", "SIGINT"] as const)("by %s leaves no mount and no socket", async (signal) => {
    await startWithView("v");
    expect(await sandbox.end(signal)).toBe(0);
    expect(sandbox.mounts()).toEqual([]);
    expect(readdirSync(sandbox.path("state")).sort()).toEqual(["starts", "views"]);
    expect(readdirSync(sandbox.path("state/views"))).toEqual([]);
    expect(sandbox.log).not.toMatch(/"level":"(warn|error|fatal)"/);
    await sandbox.start();
    expect(await viewState("v")).toBe(false);
    const { target } = await sandbox.mount({ name: "v" });
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
  });

  it("asked for by a client ends the process", async () => {
    await startWithView("v");
    const { pid } = sandbox;
    await sandbox.client.shutdown();
    while (isAlive(pid)) await sleep(20);
    expect(sandbox.mounts()).toEqual([]);
  });

  it("unmounts a view although a program uses it", async () => {
    const target = await startWithView("v");
    const child = spawn("sleep", ["60"], { cwd: target, stdio: "ignore" });
    try {
      await once(child, "spawn");
      expect(await sandbox.end()).toBe(0);
      expect(sandbox.mounts()).toEqual([]);
    } finally {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });

  it("cancels what is under way, and nothing of it is left", async () => {
    await sandbox.start();
    const layout = makeLayout(sandbox.path("layout"));
    const archive = execFileSync("tar", ["-C", layout, "-cf", "-", "."], { maxBuffer: 1 << 30 });
    async function* stalled() {
      yield archive.subarray(0, archive.length / 2);
      await sleep(60_000, undefined, { ref: false });
    }
    const load = async () => {
      for await (const _ of sandbox.client.loadImages({ path: "" }, stalled()));
    };
    const outcome = load().then(
      () => "loaded",
      (error: { code: string }) => error.code,
    );
    while (readdirSync(sandbox.path("root/ingest")).length === 0) await sleep(10);
    expect(await sandbox.end()).toBe(0);
    expect(["UNAVAILABLE", "CANCELLED"]).toContain(await outcome);
    expect(readdirSync(sandbox.path("root/ingest"))).toEqual([]);
    expect(readdirSync(sandbox.path("root/blobs/sha256"))).toEqual([]);
  });

  it("leaves mounts in place when so configured, and the next daemon revives them", async () => {
    const target = await startWithView("v", "--keep-mounts");
    expect(await sandbox.end()).toBe(0);
    expect(sandbox.mounts()).toEqual([target]);
    expect(() => readdirSync(target)).toThrow(/ENOTCONN/);
    await sandbox.start();
    expect(await viewState("v")).toBe(true);
    expect(sandbox.mounts()).toEqual([target]);
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
  });
});

describe("an unmount", () => {
  it("is refused while a program uses the view, in its own mount namespace too, and names it", async () => {
    const target = await startWithView("v");
    const script = 'echo ready; cd "$1"; echo there; read x';
    const program = spawn("unshare", ["-m", "sh", "-c", script, "sh", target], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      let said = "";
      while (!said.includes("there")) said += String((await once(program.stdout, "data"))[0]);
      const refusal = sandbox.client.unmountView({ name: "v" });
      await expect(refusal).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
      await expect(refusal).rejects.toThrow(`it is in use by sh (process ${program.pid})`);
      expect(await viewState("v")).toBe(true);
      expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
    } finally {
      program.kill("SIGKILL");
    }
    await once(program, "close");
    await sandbox.client.unmountView({ name: "v" });
    expect(await viewState("v")).toBe(false);
  });
});

describe("after a kill", () => {
  it("everything is there again, mounted where it was", async () => {
    const target = await startWithView("v");
    const image = await sandbox.commit({ name: "v", reference: "kept" });
    await sandbox.unpack("kept");
    await sandbox.end("SIGKILL");
    expect(() => readdirSync(target)).toThrow(/ENOTCONN/);
    await sandbox.start();
    expect(await viewState("v")).toBe(true);
    expect(sandbox.mounts()).toEqual([target]);
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
    const { images } = await sandbox.client.listImages();
    expect(images.map(({ id }) => id)).toContain(image.id);
    expect(images.every(({ unpacked }) => unpacked)).toBe(true);
  });

  it("dead mounts are detached and left so when restoring is off", async () => {
    await startWithView("v");
    await sandbox.end("SIGKILL");
    await sandbox.start("--no-restore-views");
    expect(sandbox.mounts()).toEqual([]);
    expect(await viewState("v")).toBe(false);
  });

  const unpackSteps = ["waiting", "unpacking", "indexing", "done"];

  it.each(unpackSteps)("while a layer is %s nothing half-made is left", async (step) => {
    await sandbox.start();
    await sandbox.load(makeLayout(sandbox.path("layout")));
    for await (const { progress } of sandbox.client.unpackImage({ reference: "small" })) {
      if (progress?.action === step) break;
    }
    await sandbox.end("SIGKILL");
    await sandbox.start();
    const left = readdirSync(sandbox.path("root/snapshots"));
    expect(left.filter((name) => name.startsWith("."))).toEqual([]);
    expect(Number((await sandbox.client.info()).snapshots)).toBe(left.length);
    const { target } = await sandbox.mount({ image: "small" });
    expect(readdirSync(path.join(target, "data")).sort()).toEqual(["deep", "file", "link", "top"]);
  });

  it.each([0, 20, 40, 80])(
    "%d ms into a commit the image is whole or not there",
    async (delayMs) => {
      const target = await startWithView("v");
      writeFileSync(path.join(target, "data/big"), Buffer.alloc(4_000_000, "varve"));
      const commit = sandbox.commit({ name: "v", reference: "new" }).catch(() => undefined);
      await sleep(delayMs);
      await sandbox.end("SIGKILL");
      await commit;
      await sandbox.start();
      const left = readdirSync(sandbox.path("root/snapshots"));
      expect(left.filter((name) => name.startsWith("."))).toEqual([]);
      expect(readdirSync(sandbox.path("root/ingest"))).toEqual([]);
      const { images } = await sandbox.client.listImages();
      if (images.some(({ repoTags }) => repoTags.includes("docker.io/library/new:latest"))) {
        const copy = await sandbox.mount({ image: "new" });
        expect(readFileSync(path.join(copy.target, "data/written"), "utf8")).toBe("written");
      } else {
        // What the dead commit had written is reclaimed: only the base image's chain is left.
        expect(left).toHaveLength(2);
      }
      expect((await sandbox.commit({ name: "v", reference: "again" })).layer).toBeDefined();
    },
  );

  it("a snapshot that was lost is unpacked again when its view is mounted", async () => {
    await startWithView("v");
    await sandbox.end();
    rmSync(sandbox.path("root/snapshots"), { recursive: true });
    await sandbox.start();
    const { target } = await sandbox.mount({ name: "v" });
    expect(readFileSync(path.join(target, "data/written"), "utf8")).toBe("written");
    expect(readFileSync(path.join(target, "data/file"), "utf8")).toBe("base\n");
  });
});

describe("a second daemon", () => {
  it("on the same root is refused, with the process that has it", async () => {
    await sandbox.start();
    const flags = ["--state", sandbox.path("other")];
    const second = new DaemonSandbox();
    try {
      const code = await second.tryStart("--root", sandbox.path("root"), ...flags);
      expect(code).toBe(75);
      expect(second.log).toContain(`process ${sandbox.pid}`);
      expect(second.log).toContain(sandbox.path("root"));
    } finally {
      await second.dispose();
    }
  });

  it("on the same state directory is refused", async () => {
    await sandbox.start();
    const second = new DaemonSandbox();
    try {
      expect(await second.tryStart("--state", sandbox.path("state"))).toBe(75);
      expect(await isListening(sandbox.socket)).toBe(true);
    } finally {
      await second.dispose();
    }
  });

  it("with directories of its own runs beside the first", async () => {
    await sandbox.start();
    const second = new DaemonSandbox();
    try {
      await second.start();
      expect((await second.client.info()).pid).not.toBe((await sandbox.client.info()).pid);
    } finally {
      await second.dispose();
    }
  });
});

describe("a start", () => {
  it("takes over a socket that nobody listens on, but not one that somebody does", async () => {
    mkdirSync(sandbox.path("state"));
    const listener = net.createServer();
    await new Promise<void>((resolve) => listener.listen(sandbox.path("s"), resolve));
    const flags = ["--socket", sandbox.path("s")];
    // tryStart watches the usual socket, which is not used here: the end tells.
    expect(await sandbox.tryStart(...flags)).toBe(75);
    expect(sandbox.log).toContain("another process listens there");
    await new Promise((resolve) => listener.close(resolve));
    writeFileSync(sandbox.socket, "left over");
    await sandbox.start();
    expect((await sandbox.client.version()).apiVersion).toBe("varve.v1");
  });

  it("refuses bad flags and bad configuration before it touches anything", async () => {
    const config = sandbox.path("config.toml");
    writeFileSync(config, "log_levl = 1\n");
    expect(await sandbox.tryStart("--config", config)).toBe(2);
    expect(sandbox.log).toContain('did you mean "log_level"');
    expect(await sandbox.tryStart("--fly")).toBe(2);
    expect(await sandbox.tryStart("--fuse-workers", "many")).toBe(2);
    expect(existsSync(sandbox.path("root"))).toBe(false);
  });

  it("says what is wrong with a damaged database", async () => {
    mkdirSync(sandbox.path("root"));
    writeFileSync(sandbox.path("root/varve.db"), "this is no database, it is far too friendly");
    // It listens before it opens the database, and may be seen then.
    await sandbox.tryStart();
    expect(await sandbox.exitCode()).toBe(1);
    expect(sandbox.log).toContain(sandbox.path("root/varve.db"));
  });
});

describe("autostart", () => {
  it("starts one daemon however many ask, which outlives them and logs to a file", async () => {
    const options = {
      socket: sandbox.socket,
      root: sandbox.path("root"),
      state: sandbox.path("state"),
    };
    const results = await Promise.all([1, 2, 3].map(() => ensureDaemon(options)));
    expect(results.some(({ started }) => started)).toBe(true);
    const { pid } = await sandbox.client.info();
    try {
      expect(await ensureDaemon(options)).toEqual({ started: false });
      expect(readFileSync(sandbox.path("state/daemon.log"), "utf8")).toContain("listens on");
    } finally {
      await sandbox.client.shutdown();
      while (isAlive(Number(pid))) await sleep(20);
    }
  });

  it("tells the last words of a daemon that does not start", async () => {
    mkdirSync(sandbox.path("root"));
    writeFileSync(sandbox.path("root/varve.db"), "this is no database, it is far too friendly");
    const options = {
      socket: sandbox.socket,
      root: sandbox.path("root"),
      state: sandbox.path("state"),
    };
    await expect(ensureDaemon(options)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("varve.db"),
    });
  });

  it("tells them of one that listened already, too", async () => {
    mkdirSync(sandbox.path("root"));
    writeFileSync(sandbox.path("root/blobs"), "where a directory is to be");
    const options = {
      socket: sandbox.socket,
      root: sandbox.path("root"),
      state: sandbox.path("state"),
    };
    await expect(ensureDaemon(options)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("open the content store"),
    });
  });
});

describe("another user", () => {
  it("cannot connect", async () => {
    await sandbox.start();
    const script = `
import socket, sys, os
os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("denied")
`;
    run("chmod", "755", sandbox.directory);
    expect(run("python3", "-c", script, sandbox.socket).output).toBe("denied");
    const client = VarveClient.connect({ socket: sandbox.socket });
    expect((await client.version()).apiVersion).toBe("varve.v1");
    client.close();
  });
});
