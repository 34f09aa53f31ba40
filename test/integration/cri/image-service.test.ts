/** Kubernetes' image service over the real socket, as kubelets and crictl call it. */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  Health,
  HealthCheckResponse_ServingStatus,
} from "../../../src/services/gen/grpc/health/v1/health_pb.js";
import {
  type AuthConfigSchema,
  type Image,
  ImageService,
} from "../../../src/services/gen/runtime/v1/image_pb.js";
import { GrpcClient } from "../../../src/services/grpc-client.js";
import { Status } from "../../../src/services/status.js";
import { statusOf } from "../containerd/snapshots-client.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { makeLayout } from "../daemon/small-image.js";
import { FakeRegistry, OCI_MANIFEST } from "../registry/fake-registry.js";
import { type RegistryOptions, RegistryProcess } from "../registry/registry-process.js";

const { method } = ImageService;
const CONFIG = "application/vnd.oci.image.config.v1+json";

let daemon: DaemonSandbox;
let kubelet: GrpcClient;
/** With the small image as app:1 and team/other:1. */
let registry: RegistryProcess;

beforeAll(async () => {
  daemon = new DaemonSandbox();
  await daemon.start("--cri-socket", daemon.path("cri.sock"));
  kubelet = new GrpcClient(daemon.path("cri.sock"));
  registry = await startRegistry();
});

afterEach(async () => {
  for (const { name } of (await daemon.client.listViews({})).views) {
    await daemon.client.removeView({ name, force: true });
  }
  for (const { id } of await list()) await remove(id);
});

afterAll(async () => {
  kubelet.close();
  await daemon.dispose();
  await registry.dispose();
});

/** A registry with the small image as app:1 and team/other:1. */
async function startRegistry(options: RegistryOptions = {}): Promise<RegistryProcess> {
  const started = await RegistryProcess.start(options);
  const login = options.basic === true ? ["--dest-creds", "user:secret"] : [];
  for (const name of ["app:1", "team/other:1"]) {
    const copy = ["copy", "-q", "--dest-tls-verify=false", ...login, `oci:${layout()}:latest`];
    execFileSync("skopeo", [...copy, `docker://${started.domain}/${name}`], { stdio: "pipe" });
  }
  return started;
}

function layout(): string {
  const directory = daemon.path("layout");
  if (existsSync(directory)) return directory;
  mkdirSync(directory);
  return makeLayout(directory);
}

async function withFake(work: (fake: FakeRegistry) => Promise<void>): Promise<void> {
  const fake = await FakeRegistry.start();
  try {
    await work(fake);
  } finally {
    await fake.dispose();
  }
}

/** An image without layers whose config has this user. @returns its digest */
function addImage(fake: FakeRegistry, tag: string, user: string): string {
  const document = {
    os: "linux",
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    config: { User: user },
    rootfs: { type: "layers", diff_ids: [] },
  };
  const config = fake.addBlob(Buffer.from(JSON.stringify(document)), CONFIG);
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] };
  return fake.addManifest(tag, manifest).digest;
}

type Auth = MessageInitShape<typeof AuthConfigSchema>;

const pull = async (image: string, auth?: Auth) =>
  (await kubelet.unary(method.pullImage, { image: { image }, ...(auth && { auth }) })).imageRef;
const status = async (image: string) =>
  (await kubelet.unary(method.imageStatus, { image: { image } })).image;
const remove = (image: string) => kubelet.unary(method.removeImage, { image: { image } });
const list = async (image?: string) =>
  (
    await kubelet.unary(
      method.listImages,
      image === undefined ? {} : { filter: { image: { image } } },
    )
  ).images;
const names = ({ repoTags, repoDigests }: Image) => [...repoTags, ...repoDigests];

describe("an empty image service", () => {
  it("tells of its disk at once, lists nothing, and is healthy", async () => {
    const { imageFilesystems, containerFilesystems } = await kubelet.unary(method.imageFsInfo, {});
    expect(imageFilesystems).toHaveLength(1);
    expect(containerFilesystems).toEqual([]);
    const [disk] = imageFilesystems;
    expect(disk!.fsId!.mountpoint).toBe(daemon.path("root"));
    expect(disk!.timestamp).toBeGreaterThan(0n);
    expect([disk!.usedBytes!.value, disk!.inodesUsed!.value]).toEqual([0n, 0n]);
    expect(await list()).toEqual([]);
    const { status: health } = await kubelet.unary(Health.method.check, {
      service: ImageService.typeName,
    });
    expect(health).toBe(HealthCheckResponse_ServingStatus.SERVING);
  });

  it("knows no image, which is no error, and removes it without one", async () => {
    expect(
      await kubelet.unary(method.imageStatus, { image: { image: "busybox" }, verbose: true }),
    ).toMatchObject({ info: {} });
    expect(await status("busybox")).toBeUndefined();
    expect(await status(`sha256:${"0".repeat(64)}`)).toBeUndefined();
    expect(await list("busybox")).toEqual([]);
    await remove("busybox");
    await remove(`sha256:${"0".repeat(64)}`);
  });

  it("wants a name, and a well-formed one", async () => {
    expect(await statusOf(status(""))).toBe(Status.INVALID_ARGUMENT);
    expect(await statusOf(pull("team/UPPER"))).toBe(Status.INVALID_ARGUMENT);
    expect(await statusOf(remove(""))).toBe(Status.INVALID_ARGUMENT);
  });
});

describe("a pulled image", () => {
  it("has its config's digest as ID, its names in full, a size, and is found by all of them", async () => {
    const tag = `${registry.domain}/team/other:1`;
    const id = await pull(tag);
    const [image, ...others] = await list();
    expect(others).toEqual([]);
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(image).toMatchObject({ id, repoTags: [tag], username: "", pinned: false });
    expect(image!.repoDigests).toEqual([
      expect.stringMatching(/\/team\/other@sha256:[0-9a-f]{64}$/),
    ]);
    expect(image!.size).toBeGreaterThan(100_000n);
    const spellings = [tag, id, id.slice("sha256:".length), id.slice(0, 20), ...image!.repoDigests];
    for (const spelling of spellings) expect(await status(spelling), spelling).toEqual(image);
    expect(await list(tag)).toEqual([image]);
    expect(await list("another")).toEqual([]);
    const streamed: Image[] = [];
    for await (const { images } of kubelet.receive(method.streamImages, {})) {
      streamed.push(...images);
    }
    expect(streamed).toEqual([image]);
  });

  it("is pinned in every answer while one of its names is", async () => {
    const [one, two] = [`${registry.domain}/app:1`, `${registry.domain}/team/other:1`];
    for (const tag of [one, two]) await pull(tag);
    const pins = async () => [(await list())[0]!.pinned, (await status(two))!.pinned];
    await daemon.client.pinImage({ reference: one });
    expect(await pins()).toEqual([true, true]);
    await daemon.client.pinImage({ reference: one, unpin: true });
    expect(await pins()).toEqual([false, false]);
  });

  it("is described with chain and config when asked", async () => {
    const image = `${registry.domain}/app:1`;
    await pull(image);
    const { info } = await kubelet.unary(method.imageStatus, { image: { image }, verbose: true });
    const { chainID, imageSpec } = JSON.parse(info.info!);
    expect(chainID).toMatch(/^sha256:/);
    expect(imageSpec).toMatchObject({ os: "linux", config: { Cmd: ["/bin/sh"] } });
  });

  it("that is pulled by its digest has no tag", async () => {
    await pull(`${registry.domain}/app:1`);
    const [byDigest] = (await list())[0]!.repoDigests;
    await remove(byDigest!);
    await pull(byDigest!.replace("@", ":any@"));
    expect((await list()).map(names)).toEqual([[byDigest]]);
  });

  it("is one image with all its names, which go together, also when many remove it at once", async () => {
    const [one, two] = [`${registry.domain}/app:1`, `${registry.domain}/team/other:1`];
    expect(await pull(one)).toBe(await pull(two));
    const [image] = await list();
    expect(image!.repoTags).toEqual([one, two]);
    expect(image!.repoDigests).toHaveLength(2);
    await Promise.all([one, two, image!.id, one].map(remove));
    expect(await list()).toEqual([]);
    const { imageFilesystems } = await kubelet.unary(method.imageFsInfo, {});
    expect(imageFilesystems[0]!.usedBytes!.value).toBe(0n);
  });

  it("is still listed, by its digest, when its tag has moved on", () =>
    withFake(async (fake) => {
      addImage(fake, "1", "old");
      const tag = `${fake.domain}/app:1`;
      const old = await pull(tag);
      const digest = addImage(fake, "1", "new");
      // What a tag means is remembered for some seconds.
      const next = await pull(`${fake.domain}/app@${digest}`);
      await daemon.client.tagImage({ source: next, target: tag });
      const images = new Map((await list()).map((image) => [image.id, image]));
      expect(images.get(old)).toMatchObject({ repoTags: [], repoDigests: [expect.any(String)] });
      expect(images.get(next)!.repoTags).toEqual([tag]);
    }));

  it("is not guessed from the beginning of an ID that fits several", () =>
    withFake(async (fake) => {
      const ids = new Map<string, string>();
      let digit = "";
      // Sixteen digits, so the seventeenth ID at the latest begins like another.
      for (let user = 1; digit === ""; user++) {
        const id = await pull(`${fake.domain}/app@${addImage(fake, "x", `${user}`)}`);
        const first = id.slice("sha256:".length)[0]!;
        if (ids.has(first)) digit = first;
        else ids.set(first, id);
      }
      for (const call of [status, list, remove]) {
        const failure = await call(digit).catch((error: Error) => error);
        const details = expect.stringMatching(/is ambiguous: sha256:.*, sha256:.*give more digits/);
        expect(failure).toMatchObject({ code: Status.INVALID_ARGUMENT, details });
      }
      expect(await list()).toHaveLength(ids.size + 1);
    }));

  it("says who runs in it: a number, or else a name", () =>
    withFake(async (fake) => {
      const users = [
        ["1000:10", { uid: { value: 1000n }, username: "" }],
        ["app:staff", { username: "app" }],
        ["", { username: "" }],
      ] as const;
      for (const [user, expected] of users) {
        const image = await status(await pull(`${fake.domain}/app@${addImage(fake, "x", user)}`));
        expect(image).toMatchObject(expected);
        expect(image!.uid === undefined).toBe(!("uid" in expected));
      }
    }));

  it("that a view uses is removed for Kubernetes and stays for the view", async () => {
    const tag = `${registry.domain}/app:1`;
    await pull(tag);
    const view = await daemon.mount({ image: tag, name: "user" });
    await remove(tag);
    expect(await list()).toEqual([]);
    expect(await status(tag)).toBeUndefined();
    const shown = execFileSync("cat", [path.join(view.target, "data/top")], { encoding: "utf8" });
    expect(shown).toBe("top\n");
    await remove(tag);
  });

  it("takes as much disk as the file system says", async () => {
    await pull(`${registry.domain}/app:1`);
    const [disk] = (await kubelet.unary(method.imageFsInfo, {})).imageFilesystems;
    const ratio = Number(disk!.usedBytes!.value) / diskUsage("-B1");
    expect(ratio).toBeGreaterThan(0.9);
    expect(ratio).toBeLessThan(1.1);
    // The directory of the blobs does not count.
    expect(Number(disk!.inodesUsed!.value)).toBe(diskUsage("--inodes") - 1);
  });
});

/** du's sum over layers and blobs. */
function diskUsage(unit: string): number {
  const total = `du -sc ${unit} snapshots/*/fs blobs/sha256 | tail -1 | cut -f1`;
  return Number(execFileSync("sh", ["-c", total], { cwd: daemon.path("root"), encoding: "utf8" }));
}

describe("a pull", () => {
  it("takes credentials in every form, and only for the registry that they are for", async () => {
    const guarded = await startRegistry({ basic: true });
    try {
      const tag = `${guarded.domain}/app:1`;
      const auth = Buffer.from("user:secret").toString("base64");
      const good: Auth[] = [
        { username: "user", password: "secret" },
        { auth, serverAddress: guarded.domain },
        { username: "user", password: "secret", serverAddress: `${guarded.address}/v2/` },
      ];
      for (const one of good) await remove(await pull(tag, one));
      const bad: (Auth | undefined)[] = [
        { username: "user", password: "wrong" },
        { auth, serverAddress: "registry.example" },
        undefined,
      ];
      for (const one of bad) expect(await statusOf(pull(tag, one))).toBe(Status.PERMISSION_DENIED);
      expect(await statusOf(pull(tag, { auth: "!" }))).toBe(Status.INVALID_ARGUMENT);
      expect(await list()).toEqual([]);
    } finally {
      await guarded.dispose();
    }
  });

  it("ends with the deadline, and leaves no image", () =>
    withFake(async (fake) => {
      addImage(fake, "slow", "x");
      fake.intercept = (request) => request.url?.includes("manifests") === true;
      const image = { image: `${fake.domain}/app:slow` };
      const deadline = new Date(Date.now() + 300);
      const call = kubelet.unary(method.pullImage, { image }, { deadline });
      expect(await statusOf(call)).toBe(Status.DEADLINE_EXCEEDED);
      expect(await list()).toEqual([]);
    }));

  it("of an unknown image finds none; from no registry it says so in the kubelet's word", async () => {
    const unknown = `${registry.domain}/none:1`;
    expect(await statusOf(pull(unknown))).toBe(Status.NOT_FOUND);
    await registry.stop();
    try {
      const failure = await pull(unknown).catch((error: Error) => error);
      const details = expect.stringMatching(/^RegistryUnavailable: /);
      expect(failure).toMatchObject({ code: Status.UNKNOWN, details });
    } finally {
      await registry.restart();
    }
  });
});
