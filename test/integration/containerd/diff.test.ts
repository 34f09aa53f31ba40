/**
 * The differ, called as containerd 1.7 and later call it (1.6 knows no proxy plugin of that kind), over the
 * content store of Debian's containerd.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { digestOf } from "../../../src/content/digest.js";
import { ContainerdClient } from "../../../src/services/containerd/containerd-client.js";
import { withStoredBlob } from "../../../src/services/containerd/stored-blob.js";
import { Diff } from "../../../src/services/gen/containerd/services/diff/v1/diff_pb.js";
import type { Mount } from "../../../src/services/gen/containerd/types/mount_pb.js";
import { GrpcClient } from "../../../src/services/grpc-client.js";
import { Status } from "../../../src/services/status.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { makeLayout } from "../daemon/small-image.js";
import { ContainerdProcess } from "./containerd-process.js";
import { SnapshotsClient, statusOf } from "./snapshots-client.js";

const LAYER = "application/vnd.oci.image.layer.v1.tar";
/** containerd starts slowly on a busy machine. */
const TIMEOUT_MS = 180_000;
const headers = { "containerd-namespace": "default" };

let daemon: DaemonSandbox;
let containerd: ContainerdProcess;
let differ: GrpcClient;
let snapshots: SnapshotsClient;
let layers: { mediaType: string; digest: string; size: number }[];
let diffIds: string[];

beforeAll(async () => {
  daemon = new DaemonSandbox();
  containerd = new ContainerdProcess(daemon.path("cd"), daemon.path("c.sock"));
  await daemon.start(
    ...["--containerd-socket", daemon.path("c.sock"), "--containerd-address", containerd.socket],
  );
  await containerd.start();
  differ = new GrpcClient(daemon.path("c.sock"));
  snapshots = new SnapshotsClient(daemon.path("c.sock"));
  mkdirSync(daemon.path("layout"));
  makeLayout(daemon.path("layout"));
  execFileSync("tar", ["-C", daemon.path("layout"), "-cf", daemon.path("image.tar"), "."]);
  await containerd.ctr("image", "import", "--no-unpack", daemon.path("image.tar"));
  const manifest = await blobNamed("manifest.v1+json");
  layers = manifest.layers;
  diffIds = JSON.parse(await blob(manifest.config.digest)).rootfs.diff_ids;
}, TIMEOUT_MS);

afterAll(async () => {
  differ.close();
  snapshots.close();
  await containerd.dispose();
  await daemon.dispose();
});

afterEach(async () => {
  const all = await snapshots.list();
  for (const { name } of all.reverse()) await snapshots.call("remove", { key: name });
  await snapshots.call("cleanup", {});
});

const blob = async (digest: string) => containerd.ctr("content", "get", digest);

async function blobNamed(type: string) {
  for (const digest of (await containerd.ctr("content", "ls", "-q")).trim().split("\n")) {
    // containerd collects the archive's own index about now: what is listed may be gone.
    const bytes = await containerd.ctrBytes("content", "get", digest).catch(() => undefined);
    if (bytes?.[0] !== 0x7b) continue;
    const document = JSON.parse(bytes.toString());
    if (String(document.mediaType).endsWith(type)) return document;
  }
  throw new Error(`no ${type}`);
}

const prepare = async (key: string, parent = "") =>
  (await snapshots.call("prepare", { key, parent })).mounts;
const view = async (key: string, parent = "") =>
  (await snapshots.call("view", { key, parent })).mounts;

const apply = async (layer: { mediaType: string; digest: string; size: number }, mounts: Mount[]) =>
  (
    await differ.unary(
      Diff.method.apply,
      { diff: { ...layer, size: BigInt(layer.size) }, mounts },
      { headers },
    )
  ).applied!;

const diff = async (
  left: Mount[],
  right: Mount[],
  options: { mediaType?: string; labels?: Record<string, string> } = {},
) => (await differ.unary(Diff.method.diff, { left, right, ...options }, { headers })).diff!;

/** The small image, unpacked layer by layer as containerd does it. */
async function unpack(): Promise<string> {
  let parent = "";
  for (const [position, layer] of layers.entries()) {
    const mounts = await prepare(`extract-${position} x`, parent);
    const applied = await apply(layer, mounts);
    expect(applied).toMatchObject({ mediaType: LAYER, digest: diffIds[position] });
    const name = `layer-${position}`;
    await snapshots.call("commit", { key: `extract-${position} x`, name });
    parent = name;
  }
  return parent;
}

/** Runs `work` where a container's mounts show. */
function within<R>([mount]: Mount[], work: (root: string) => R): R {
  const root = mkdtempSync(path.join(os.tmpdir(), "varve-root-"));
  execFileSync("mount", ["--bind", mount!.source, root]);
  try {
    return work(root);
  } finally {
    execFileSync("umount", [root]);
    rmSync(root, { recursive: true });
  }
}

/** tar's listing of a layer. */
async function contents(digest: string) {
  const layer = await containerd.ctrBytes("content", "get", digest);
  const list = ["--xattrs", "-tvvf", "-", ...decompressor(layer)];
  return execFileSync("tar", list, { input: layer, encoding: "utf8" });
}

const decompressor = (bytes: Buffer) =>
  bytes[0] === 0x1f ? ["-z"] : bytes[0] === 0x28 ? ["--zstd"] : [];

async function digestOfSource(source: { path: string; piped?: unknown }) {
  return { digest: digestOf(await readFile(source.path)), isPiped: source.piped !== undefined };
}

async function labelsOf(digest: string): Promise<string> {
  const lines = await containerd.ctr("content", "ls");
  return lines.split("\n").find((line) => line.startsWith(digest)) ?? "";
}

describe("apply", () => {
  it("unpacks what containerd's content store has, and the image's files are there", async () => {
    const top = await unpack();
    const files = within(await prepare("box", top), (root) =>
      execFileSync("cat", ["data/top", "data/file", "data/deep/er/x"], {
        cwd: root,
        encoding: "utf8",
      }),
    );
    expect(files).toBe("top\nbase\nx\n");
  });

  it("gives directories that a layer only passes through the attributes of those below", async () => {
    const mounts = await prepare("extract-base x");
    await apply(layers[0]!, mounts);
    await snapshots.call("commit", { key: "extract-base x", name: "base" });
    const tree = mkdtempSync(path.join(os.tmpdir(), "varve-implied-"));
    try {
      mkdirSync(path.join(tree, "tmp"));
      writeFileSync(path.join(tree, "tmp/file"), "x");
      const tar = execFileSync("tar", ["-C", tree, "-c", "tmp/file"]);
      writeFileSync(path.join(tree, "layer"), tar);
      const [sum] = execFileSync("sha256sum", [path.join(tree, "layer")], {
        encoding: "utf8",
      }).split(" ");
      const expected = [
        "--expected-digest",
        `sha256:${sum}`,
        "--expected-size",
        String(tar.length),
      ];
      execFileSync(
        "sh",
        [
          ...[
            "-c",
            'ctr -a "$0" content ingest "$@" <"$LAYER"',
            containerd.socket,
            ...expected,
            "implied",
          ],
        ],
        { env: { ...process.env, LAYER: path.join(tree, "layer") } },
      );
      const second = await prepare("extract-two x", "base");
      await apply({ mediaType: LAYER, digest: `sha256:${sum}`, size: tar.length }, second);
      await snapshots.call("commit", { key: "extract-two x", name: "two" });
      const mode = within(await prepare("box", "two"), (root) =>
        execFileSync("stat", ["-c", "%a", path.join(root, "tmp")], { encoding: "utf8" }),
      );
      expect(mode).toBe("1777\n");
    } finally {
      rmSync(tree, { recursive: true });
    }
  });

  it("reads blobs from the files of containerd's store, or over its socket", async () => {
    const client = new ContainerdClient(containerd.socket);
    const scope = { namespace: "default" };
    const [{ digest, size: bytes }] = layers as [(typeof layers)[0]];
    const { signal } = new AbortController();
    const withTemporary = <R>(use: (directory: string) => Promise<R>) => use(daemon.path("none"));
    try {
      expect(await client.contentRoot()).toBe(
        path.join(daemon.path("cd"), "root/io.containerd.content.v1.content"),
      );
      const blob = { containerd: client, scope, digest, bytes, signal, withTemporary };
      expect(await withStoredBlob(blob, digestOfSource)).toEqual({ digest, isPiped: false });
      Object.assign(client, { contentRoot: async () => undefined });
      expect(await withStoredBlob(blob, digestOfSource)).toEqual({ digest, isPiped: true });
    } finally {
      client.close();
    }
  });

  it("leaves to containerd what is not ours, and says what is missing or damaged", async () => {
    const foreign = [
      {
        $typeName: "containerd.types.Mount",
        type: "bind",
        source: "/srv",
        target: "",
        options: [],
      },
    ] satisfies Mount[];
    expect(await statusOf(apply(layers[0]!, foreign))).toBe(Status.UNIMPLEMENTED);
    const mounts = await prepare("extract-a x");
    const unknown = { ...layers[0]!, mediaType: `${LAYER}+encrypted` };
    expect(await statusOf(apply(unknown, mounts))).toBe(Status.UNIMPLEMENTED);
    const absent = { ...layers[0]!, digest: `sha256:${"0".repeat(64)}` };
    expect(await statusOf(apply(absent, mounts))).toBe(Status.NOT_FOUND);
    await apply(layers[0]!, mounts);
    expect(await statusOf(apply(layers[1]!, mounts))).toBe(Status.UNIMPLEMENTED);
  });
});

describe("diff", () => {
  it.each([
    ["", "application/vnd.oci.image.layer.v1.tar+gzip"],
    [`${LAYER}+zstd`, `${LAYER}+zstd`],
    [LAYER, LAYER],
  ])("as %j holds what a container changed, attributes alone included", async (mediaType, got) => {
    const top = await unpack();
    const right = await prepare("box", top);
    within(right, (root) => {
      execFileSync(
        "sh",
        ["-ec", "echo new >data/new; rm data/deep/er/x; setfattr -n user.note -v hi data/top"],
        { cwd: root },
      );
    });
    const left = await view("box-parent-view", top);
    const made = await diff(left, right, { mediaType, labels: { note: "kept" } });
    expect(made.mediaType).toBe(got);
    const names = (await contents(made.digest)).split("\n").map((line) => line.split(/\s+/).at(-1));
    expect(names).toEqual(expect.arrayContaining(["data/new", "data/deep/er/.wh.x", "data/top"]));
    expect(names).not.toContain("data/file");
    expect(await labelsOf(made.digest)).toMatch(/containerd\.io\/uncompressed=sha256:[0-9a-f]{64}/);
    expect(await labelsOf(made.digest)).toContain("note=kept");
    await snapshots.call("remove", { key: "box-parent-view" });
  });

  it("of no change is an empty layer, which the content store may have already", async () => {
    const top = await unpack();
    const right = await prepare("box", top);
    const left = await view("v", top);
    const first = await diff(left, right);
    expect(await contents(first.digest)).toBe("");
    expect((await diff(left, right)).digest).toBe(first.digest);
  });

  it("against anything but what the container was made from is left to containerd", async () => {
    const top = await unpack();
    const right = await prepare("box", top);
    expect(await statusOf(diff(await view("other", "layer-0"), right))).toBe(Status.UNIMPLEMENTED);
    expect(await statusOf(diff(await view("none"), right))).toBe(Status.UNIMPLEMENTED);
    expect(await statusOf(diff(await view("same", top), await view("again", top)))).toBe(
      Status.UNIMPLEMENTED,
    );
  });
});

describe("a caller that says neither namespace nor lease, as containerd 1.7", () => {
  it("is in the snapshot's namespace, and what it makes is kept by a lease that ends by itself", async () => {
    const [layer] = layers;
    const bare = { ...layer!, size: BigInt(layer!.size) };
    const mounts = await prepare("default/1/extract-a x");
    const { applied } = await differ.unary(Diff.method.apply, { diff: bare, mounts });
    expect(applied!.digest).toBe(diffIds[0]);
    await snapshots.call("commit", { key: "default/1/extract-a x", name: "default/2/base" });
    const right = await prepare("default/3/box", "default/2/base");
    within(right, (root) => writeFileSync(path.join(root, "data/new"), `${Date.now()}`));
    const left = await view("default/4/below", "default/2/base");
    const made = await differ.unary(Diff.method.diff, { left, right });
    expect(await containerd.ctr("content", "ls", "-q")).toContain(made.diff!.digest);
    expect(await containerd.ctr("leases", "ls")).toMatch(/varve-\S+ .*gc\.expire/);
    const nameless = { diff: bare, mounts: await prepare("extract-b x") };
    const status = await statusOf(differ.unary(Diff.method.apply, nameless));
    expect(status).toBe(Status.INVALID_ARGUMENT);
  });
});
