/** Images that varve's image service pulls, and that Debian's containerd runs without pulling them. */

import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ImageService } from "../../../src/services/gen/runtime/v1/image_pb.js";
import { GrpcClient } from "../../../src/services/grpc-client.js";
import { Status } from "../../../src/services/status.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { makeLayout } from "../daemon/small-image.js";
import { RegistryProcess } from "../registry/registry-process.js";
import { ContainerdProcess } from "./containerd-process.js";
import { statusOf } from "./snapshots-client.js";

const { method } = ImageService;
const FOREVER = ["/bin/sh", "-c", "while :; do /bin/cat /dev/zero | /bin/cat >/dev/null; done"];
const TIMEOUT_MS = 180_000;

let daemon: DaemonSandbox;
let containerd: ContainerdProcess;
let registry: RegistryProcess;
let kubelet: GrpcClient;
/** containerd's own CRI plugin, for what it knows. */
let plugin: GrpcClient;

beforeEach(async () => {
  daemon = new DaemonSandbox();
  containerd = new ContainerdProcess(daemon.path("cd"), daemon.path("c.sock"), { cri: true });
  kubelet = new GrpcClient(daemon.path("cri.sock"));
  plugin = new GrpcClient(containerd.socket);
  registry = await RegistryProcess.start();
  mkdirSync(daemon.path("layout"));
  makeLayout(daemon.path("layout"));
  push("app:1");
  await daemon.start(
    ...["--containerd-socket", daemon.path("c.sock"), "--containerd-address", containerd.socket],
    ...["--cri-socket", daemon.path("cri.sock")],
  );
  await containerd.start();
});

afterEach(async () => {
  kubelet.close();
  plugin.close();
  await ctr("task", "rm", "-f", "box").catch(() => undefined);
  await containerd.dispose();
  await daemon.dispose();
  await registry.dispose();
});

const ctr = (...args: string[]) => containerd.ctr("-n", "k8s.io", ...args);

function push(name: string): void {
  const target = `docker://${registry.domain}/${name}`;
  const source = `oci:${daemon.path("layout")}:latest`;
  execFileSync("skopeo", ["copy", "-q", "--dest-tls-verify=false", source, target]);
}

const pull = async (image: string) =>
  (await kubelet.unary(method.pullImage, { image: { image } })).imageRef;

/** Runs a container of an image until a file of it has been read. */
async function readIn(image: string, file: string): Promise<string> {
  await ctr("run", "-d", "--snapshotter", "varve", image, "box", ...FOREVER);
  try {
    // ctr may leave before it has copied all output.
    for (let attempt = 0; attempt < 10; attempt++) {
      const id = `read-${attempt}`;
      const text = await ctr("task", "exec", "--exec-id", id, "box", "/bin/cat", file);
      if (text !== "") return text;
    }
    throw new Error(`ctr lost the output of cat ${file}`);
  } finally {
    await ctr("task", "rm", "-f", "box");
    await ctr("container", "rm", "box");
  }
}

/** What containers leave goes when containerd collects garbage, which the end of a lease can ask for. */
async function collectGarbage(): Promise<void> {
  const lease = (await ctr("leases", "create")).trim();
  await ctr("leases", "delete", "--sync", lease);
}

/** Waits for what containerd does behind its answers. */
async function eventually(isDone: () => boolean | Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 200 && !(await isDone()); attempt++) await sleep(50);
  expect(await isDone()).toBe(true);
}

const layerFetches = () =>
  registry.requests().filter((line) => /^GET .*\/blobs\//.test(line)).length;

describe("an image that the image service pulled", () => {
  it(
    "runs in containerd from varve's layers, and goes from both with one removal",
    async () => {
      const image = `${registry.domain}/app:1`;
      const id = await pull(image);
      const fetched = layerFetches();
      await eventually(async () => {
        const { image: known } = await plugin.unary(method.imageStatus, { image: { image: id } });
        return known?.repoTags.includes(image) === true;
      });
      expect(await readIn(image, "/data/top")).toBe("top\n");
      expect(await readIn(id, "/data/file")).toBe("base\n");
      expect(layerFetches()).toBe(fetched);
      await collectGarbage();
      const snapshots = () => readdirSync(daemon.path("root/containerd"));
      await eventually(() => snapshots().length === 2);
      const isShared = (name: string) =>
        lstatSync(daemon.path("root/containerd", name)).isSymbolicLink();
      expect(snapshots().every(isShared)).toBe(true);
      await kubelet.unary(method.removeImage, { image: { image: id } });
      expect(await ctr("image", "ls", "-q")).toBe("");
      await eventually(() => readdirSync(daemon.path("root/containerd")).length === 0);
      await eventually(() => readdirSync(daemon.path("root/snapshots")).length === 0);
    },
    TIMEOUT_MS,
  );

  it(
    "is put on top of layers that containerd had unpacked itself",
    async () => {
      const base = `${registry.domain}/app:1`;
      await ctr("image", "pull", "--plain-http", "--snapshotter", "varve", base);
      const child = `${registry.domain}/child:1`;
      await pull(base);
      const view = await daemon.mount({ image: base, name: "child" });
      writeFileSync(path.join(view.target, "data/new"), "new\n");
      await daemon.commit({ name: "child", reference: child });
      for await (const _ of daemon.client.pushImage({ reference: child }));
      await daemon.client.removeView({ name: "child", force: true });
      await daemon.client.removeImage({ reference: child, force: true });
      await pull(child);
      expect(await readIn(child, "/data/new")).toBe("new\n");
    },
    TIMEOUT_MS,
  );

  it(
    "is an error while containerd is away, and known to it once it is back and asked again",
    async () => {
      const image = `${registry.domain}/app:1`;
      await containerd.stop();
      expect(await statusOf(pull(image))).toBe(Status.UNAVAILABLE);
      await containerd.start();
      await eventually(async () => (await statusOf(pull(image))) === undefined);
      expect(await ctr("image", "ls", "-q")).toContain(image);
    },
    TIMEOUT_MS,
  );
});
