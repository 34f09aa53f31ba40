/** The main job through a daemon process: load, mount, write, diff, commit, mount again. */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const sandbox = new DaemonSandbox();
const { client } = sandbox;
const IMAGE = "small";

beforeAll(async () => {
  await sandbox.start();
  const layout = makeLayout(sandbox.path("layout"));
  expect(await sandbox.load(layout)).toEqual(["docker.io/library/small:latest"]);
});

afterAll(() => sandbox.dispose());

afterEach(async () => {
  const { views } = await client.listViews({});
  for (const { name } of views) await client.removeView({ name, force: true });
  expect(sandbox.mounts()).toEqual([]);
});

describe("a view", () => {
  it("shows the image and runs its programs", async () => {
    const view = await sandbox.mount({ image: IMAGE, name: "web" });
    expect(view).toMatchObject({ name: "web", mounted: true, readOnly: false });
    expect(view.image).toBe("docker.io/library/small:latest");
    expect(view.target).toBe(sandbox.path("state/views", view.id, "rootfs"));
    const script = "cat /data/file /data/top; echo new > /data/new; ls /data";
    const { status, output } = run("chroot", view.target, "/bin/sh", "-c", script);
    expect(output.split(/\s+/)).toEqual(["base", "top", "deep", "file", "link", "new", "top"]);
    expect(status).toBe(0);
  });

  it("is mounted twice of one image without the two seeing each other", async () => {
    const [a, b] = await Promise.all([
      sandbox.mount({ image: IMAGE, name: "a" }),
      sandbox.mount({ image: IMAGE, name: "b" }),
    ]);
    writeFileSync(path.join(a.target, "data/file"), "of a\n");
    expect(readFileSync(path.join(b.target, "data/file"), "utf8")).toBe("base\n");
    expect(readFileSync(path.join(a.target, "data/link"), "utf8")).toBe("of a\n");
  });

  it("keeps what was written over unmount and mount, at the same place", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "keep" });
    writeFileSync(path.join(target, "data/kept"), "kept");
    rmSync(path.join(target, "data/deep"), { recursive: true });
    await client.unmountView({ name: "keep" });
    expect(sandbox.mounts()).toEqual([]);
    const again = await sandbox.mount({ name: "keep" });
    expect(again.target).toBe(target);
    expect(readFileSync(path.join(target, "data/kept"), "utf8")).toBe("kept");
    expect(existsSync(path.join(target, "data/deep"))).toBe(false);
  });

  it("refuses writes when it is read-only", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "ro", readOnly: true });
    expect(() => writeFileSync(path.join(target, "x"), "")).toThrow(/EROFS/);
    expect(readFileSync(path.join(target, "data/file"), "utf8")).toBe("base\n");
    expect(await sandbox.diff("ro")).toEqual([]);
  });

  it("is mounted on a directory that the user names, made when only its last part is missing", async () => {
    const target = sandbox.path("own target");
    const view = await sandbox.mount({ image: IMAGE, name: "own", target });
    expect(view.target).toBe(target);
    expect(readdirSync(target)).toContain("bin");
    expect((await client.inspectView({ name: target })).view?.name).toBe("own");
    expect((await client.inspectView({ name: view.id.slice(0, 6) })).view?.name).toBe("own");
  });

  it("gets a name when it has none", async () => {
    const view = await sandbox.mount({ image: IMAGE });
    expect(view.name).toMatch(/^[a-z]+-[a-z]+/);
  });

  it("notices when somebody else unmounts it", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "gone" });
    expect(run("umount", target).status).toBe(0);
    for (let mounted = true; mounted; ) {
      mounted = (await client.inspectView({ name: "gone" })).view?.mounted === true;
    }
    await sandbox.mount({ name: "gone" });
    expect(readdirSync(target)).toContain("bin");
  });

  it("reports the usage of what was written", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "usage" });
    const before = (await client.inspectView({ name: "usage" })).view;
    writeFileSync(path.join(target, "data/big"), Buffer.alloc(1_000_000, 1));
    const after = (await client.inspectView({ name: "usage" })).view;
    expect(Number(after?.upperBytes) - Number(before?.upperBytes)).toBeGreaterThanOrEqual(
      1_000_000,
    );
  });
});

describe("diff and commit", () => {
  it("tell what changed, and make an image that shows it again", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "work" });
    const script = [
      "echo added > /data/added",
      "echo changed > /data/top",
      "rm -r /data/deep",
      "mkdir /data/deep && echo again > /data/deep/y",
      "rm /etc/passwd",
      "mv /data/file /data/moved",
    ].join(" && ");
    expect(run("chroot", target, "/bin/sh", "-c", script)).toMatchObject({ status: 0 });
    const lines = await sandbox.diff("work");
    expect(lines).toEqual(
      expect.arrayContaining(["A /data/added", "C /data/top", "D /etc/passwd", "C /etc"]),
    );
    const image = await sandbox.commit({
      name: "work",
      reference: "changed:1",
      author: "someone",
      message: "why",
      changes: ['CMD ["cat"]'],
    });
    expect(image.reference).toBe("docker.io/library/changed:1");
    expect(image.layer?.mediaType).toContain("gzip");
    const found = (await client.inspectImage({ reference: "changed:1" })).image;
    expect(found).toMatchObject({ id: image.id, unpacked: false, chainId: image.chainId });
    const copy = await sandbox.mount({ image: "changed:1", name: "copy" });
    const read = (name: string) => readFileSync(path.join(copy.target, name), "utf8");
    expect(read("data/added")).toBe("added\n");
    expect(read("data/top")).toBe("changed\n");
    expect(read("data/moved")).toBe("base\n");
    expect(readdirSync(path.join(copy.target, "data/deep"))).toEqual(["y"]);
    expect(existsSync(path.join(copy.target, "etc/passwd"))).toBe(false);
    expect(run("diff", "-r", target, copy.target)).toMatchObject({ status: 0, output: "" });
  });

  it("commit what a program holds in a mapping or has not closed", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "open" });
    const script = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192)
m[4096:4102] = b"mapped"
print("ready", flush=True)
sys.stdin.read()
`;
    const { spawn } = await import("node:child_process");
    const child = spawn("python3", ["-c", script, path.join(target, "data/mapped")]);
    try {
      await new Promise((resolve) => child.stdout.once("data", resolve));
      await sandbox.commit({ name: "open", reference: "mapped" });
    } finally {
      child.stdin.end();
      await new Promise((resolve) => child.once("exit", resolve));
    }
    const copy = await sandbox.mount({ image: "mapped", name: "mapped" });
    const content = readFileSync(path.join(copy.target, "data/mapped"));
    expect(content.subarray(4096, 4102).toString()).toBe("mapped");
  });

  it.each([undefined, 1_700_000_000n])(
    "make the same image twice of the same changes (epoch %s)",
    async (sourceDateEpoch) => {
      const options = {
        name: "same",
        ...(sourceDateEpoch === undefined ? {} : { sourceDateEpoch }),
      };
      const { target } = await sandbox.mount({ image: IMAGE, name: "same" });
      writeFileSync(path.join(target, "data/new"), "new");
      const first = await sandbox.commit({ ...options, reference: "same:1" });
      const second = await sandbox.commit({ ...options, reference: "same:2" });
      expect(second.digest).toBe(first.digest);
      expect(second.layer).toEqual(first.layer);
      const { image } = await client.inspectImage({ reference: "same:2" });
      const changed = BigInt(Math.floor(statSync(path.join(target, "data/new")).mtimeMs / 1000));
      expect(image?.created?.seconds).toBe(sourceDateEpoch ?? changed);
    },
  );

  it("add no layer when nothing changed", async () => {
    await sandbox.mount({ image: IMAGE, name: "idle" });
    const image = await sandbox.commit({ name: "idle", reference: "idle", message: "nothing" });
    expect(image.layer).toBeUndefined();
    const base = await client.inspectImage({ reference: IMAGE });
    expect(image.chainId).toBe(base.image?.chainId);
    const { entries } = await client.imageHistory({ reference: "idle" });
    expect(entries[0]).toMatchObject({ emptyLayer: true, comment: "nothing" });
  });

  it("commit a view that is not mounted", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "off" });
    writeFileSync(path.join(target, "data/off"), "off");
    await client.unmountView({ name: "off" });
    const image = await sandbox.commit({ name: "off", reference: "off" });
    expect(image.layer).toBeDefined();
  });

  it("leave nothing behind when the commit is refused", async () => {
    await sandbox.mount({ image: IMAGE, name: "bad" });
    const before = readdirSync(sandbox.path("root/snapshots"));
    const attempts = [
      { name: "bad", reference: "UPPER CASE" },
      { name: "bad", reference: "bad", changes: ["FLY high"] },
      { name: "bad", reference: "bad", compression: "rar" },
      { name: "bad", reference: "bad", sourceDateEpoch: -1n },
    ];
    for (const attempt of attempts) {
      await expect(sandbox.commit(attempt)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    }
    expect(readdirSync(sandbox.path("root/snapshots"))).toEqual(before);
  });
});

describe("a bundle", () => {
  it("has a config.json for the mounted view, and never overwrites one", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "boxed" });
    const directory = sandbox.path("bundle");
    const { configPath } = await client.createBundle({ name: "boxed", directory });
    const config = JSON.parse(readFileSync(configPath, "utf8")) as {
      root: { path: string };
      process: { args: string[] };
    };
    expect(config.root.path).toBe(target);
    expect(config.process.args).toEqual(["/bin/sh"]);
    await expect(client.createBundle({ name: "boxed", directory })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
    });
  });

  it("needs a mounted view", async () => {
    await sandbox.mount({ image: IMAGE, name: "unboxed" });
    await client.unmountView({ name: "unboxed" });
    const directory = sandbox.path("bundle2");
    await expect(client.createBundle({ name: "unboxed", directory })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
    });
    expect(existsSync(directory)).toBe(false);
  });
});

describe("what is refused", () => {
  const refused = async (request: Parameters<typeof sandbox.mount>[0], code: string) => {
    const before = (await client.listViews({})).views.length;
    await expect(sandbox.mount(request)).rejects.toMatchObject({ code });
    expect((await client.listViews({})).views).toHaveLength(before);
  };

  it("is an unknown image", () => refused({ image: "unknown" }, "NOT_FOUND"));

  it("is a bad view name", () => refused({ image: IMAGE, name: "a/b" }, "INVALID_ARGUMENT"));

  it("is a name that is taken", async () => {
    await sandbox.mount({ image: IMAGE, name: "taken" });
    await refused({ image: IMAGE, name: "taken" }, "ALREADY_EXISTS");
  });

  it("is a target that is not empty, a file, relative, or without a parent", async () => {
    const full = sandbox.path("full");
    mkdirSync(full);
    writeFileSync(path.join(full, "file"), "");
    await refused({ image: IMAGE, target: full }, "FAILED_PRECONDITION");
    await refused({ image: IMAGE, target: path.join(full, "file") }, "FAILED_PRECONDITION");
    await refused({ image: IMAGE, target: sandbox.path("no/such/parent") }, "FAILED_PRECONDITION");
    await refused({ image: IMAGE, target: "relative" }, "INVALID_ARGUMENT");
    expect(readdirSync(full)).toEqual(["file"]);
  });

  it("is a second mount of a mounted view, and an unmount of an unmounted one", async () => {
    await sandbox.mount({ image: IMAGE, name: "once" });
    await refused({ name: "once" }, "FAILED_PRECONDITION");
    await client.unmountView({ name: "once" });
    await expect(client.unmountView({ name: "once" })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
    });
  });

  it("is to unmount a view in use, unless forced; the message names the user", async () => {
    const { target } = await sandbox.mount({ image: IMAGE, name: "busy" });
    const { spawn } = await import("node:child_process");
    const child = spawn("sleep", ["60"], { cwd: target, stdio: "ignore" });
    try {
      await new Promise((resolve) => child.once("spawn", resolve));
      await expect(client.unmountView({ name: "busy" })).rejects.toMatchObject({
        code: "FAILED_PRECONDITION",
        message: expect.stringContaining(`sleep (process ${child.pid})`),
      });
      await expect(client.removeView({ name: "busy" })).rejects.toMatchObject({
        code: "FAILED_PRECONDITION",
      });
      await client.unmountView({ name: "busy", force: true });
      expect(sandbox.mounts()).toEqual([]);
    } finally {
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
    }
  });

  it("is to remove an image that a view uses", async () => {
    await sandbox.mount({ image: IMAGE, name: "user" });
    await expect(client.removeImage({ reference: IMAGE })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("user"),
    });
  });
});

describe("the daemon", () => {
  it("has a socket for its user only", () => {
    expect(statSync(sandbox.socket).mode & 0o777).toBe(0o600);
  });

  it("answers health checks of the standard protocol", async () => {
    const { GrpcTransport } = await import("../../../src/client/transport.js");
    const { Health } = await import("../../../src/services/gen/grpc/health/v1/health_pb.js");
    const transport = new GrpcTransport(sandbox.socket);
    try {
      const { status } = await transport.unary(Health.method.check, { service: "varve.v1.Varve" });
      expect(status).toBe(1);
      await expect(
        transport.unary(Health.method.check, { service: "other" }),
      ).rejects.toMatchObject({ code: "NOT_FOUND" });
    } finally {
      transport.close();
    }
  });

  it("understands other gRPC clients", async () => {
    const { Client, credentials } = await import("@grpc/grpc-js");
    const other = new Client(`unix:${sandbox.socket}`, credentials.createInsecure());
    try {
      const answer = await new Promise<Buffer>((resolve, reject) => {
        const bytes = (message: Buffer) => message;
        const path = "/grpc.health.v1.Health/Check";
        other.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), (error, message) => {
          if (error === null && message !== undefined) resolve(message);
          else reject(error);
        });
      });
      // Field 1, varint 1: SERVING.
      expect([...answer]).toEqual([8, 1]);
    } finally {
      other.close();
    }
  });

  it("tells about itself", async () => {
    const info = await client.info();
    expect(info).toMatchObject({
      pid: BigInt(sandbox.pid),
      rootless: false,
      images: expect.any(BigInt),
    });
    expect(info.root).toBe(sandbox.path("root"));
    expect((await client.version()).apiVersion).toBe("varve.v1");
  });

  it("gives back the disk when images go", async () => {
    const layout = makeLayout(sandbox.path("layout-2"), "docker.io/library/second:1");
    await sandbox.load(layout);
    const { target } = await sandbox.mount({ image: "second:1", name: "x" });
    writeFileSync(path.join(target, "only here"), "x");
    const image = await sandbox.commit({ name: "x", reference: "third:1" });
    await sandbox.unpack("third:1");
    await client.removeView({ name: "x", force: true });
    const { deleted } = await client.removeImage({ reference: "third:1" });
    expect(deleted).toEqual(expect.arrayContaining([image.id, image.chainId, image.layer?.digest]));
    expect(existsSync(sandbox.path("root/snapshots", image.chainId.slice(7)))).toBe(false);
    const { images } = await client.listImages({});
    expect(images.some(({ repoTags }) => repoTags.includes("docker.io/library/small:latest"))).toBe(
      true,
    );
  });
});
