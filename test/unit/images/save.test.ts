import { execFileSync } from "node:child_process";
import {
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadImages } from "../../../src/images/load.js";
import {
  type SaveFormat,
  type SaveOptions,
  saveImages,
  streamImages,
} from "../../../src/images/save.js";
import {
  AMD64,
  ARM64,
  inPieces,
  Layout,
  openStores,
  type Stores,
  sha256,
} from "./image-fixture.js";

let stores: Stores;
let other: Stores;
let directory: string;

beforeEach(async () => {
  stores = await openStores();
  other = await openStores();
  directory = await mkdtemp(path.join(tmpdir(), "varve-save-"));
});

afterEach(async () => {
  await stores.close();
  await other.close();
  await rm(directory, { recursive: true, force: true });
});

const code = (value: string, text = "") =>
  expect.objectContaining({ code: value, message: expect.stringContaining(text) });

async function loadLayout(layout: Layout, allPlatforms = false): Promise<void> {
  const source = await layout.writeTo(await mkdtemp(path.join(directory, "layout-")));
  await loadImages(stores.images, source, { allPlatforms, collectGarbage: stores.collectGarbage });
}

async function loadApp(...names: string[]): Promise<void> {
  const layout = new Layout();
  const manifest = await layout.image({ layers: ["one", "two"] });
  for (const name of names) layout.list(manifest, name);
  await loadLayout(layout);
}

async function loadMulti(allPlatforms: boolean) {
  const layout = new Layout();
  const amd64 = await layout.image({ platform: AMD64, layers: ["amd64"] });
  const arm64 = await layout.image({ platform: ARM64, layers: ["arm64"] });
  const index = layout.index([amd64, arm64]);
  layout.list(index, "multi");
  await loadLayout(layout, allPlatforms);
  return { amd64, arm64, index };
}

async function streamed(references: string[], options: SaveOptions): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of streamImages(stores.images, references, options)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const FORMATS: SaveFormat[] = ["oci-archive", "docker-archive"];
const target = (name = "out.tar") => path.join(directory, name);
const save = (references: string[], to: string, options: SaveOptions) =>
  saveImages(stores.images, references, to, options);

describe.each(FORMATS)("an %s", (format) => {
  it("comes back as the same images under the same names", async () => {
    await loadApp("app:1", "quay.io/team/app:2");
    await save(["app:1", "quay.io/team/app:2"], target(), { format });
    const loaded = await loadImages(other.images, target());
    expect(loaded.map((image) => image.reference)).toEqual([
      "docker.io/library/app:1",
      "quay.io/team/app:2",
    ]);
    const [before] = await stores.images.list();
    const [after] = await other.images.list();
    // All but when they came.
    const { arrivedNs, lastUsedNs } = after!;
    expect(after).toEqual({ ...before!, arrivedNs, lastUsedNs });
  });

  it("has the same bytes each time, in a file or as a stream", async () => {
    await loadApp("app:1");
    await save(["app:1"], target(), { format });
    const first = await readFile(target());
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await streamed(["app:1"], { format })).toEqual(first);
    await save(["app:1"], target(), { format });
    expect(await readFile(target())).toEqual(first);
  });

  it("is a tar without surprises to GNU tar", async () => {
    await loadApp("app:1");
    await save(["app:1"], target(), { format });
    const list = execFileSync("tar", ["--numeric-owner", "-tvf", target()], { encoding: "utf8" });
    expect(list).toMatch(/index\.json/);
    for (const line of list.trim().split("\n")) expect(line).toMatch(/^[-d]rw.* 0\/0 .*1970-01-01/);
    expect((await stat(target())).size % 512).toBe(0);
  });

  it("keeps an image without a name", async () => {
    await loadApp("app:1");
    const { id } = await stores.images.get("app:1");
    await save([id], target(), { format });
    const [image] = await loadImages(other.images, target());
    expect(image).toEqual({ id, digest: expect.any(String) });
  });

  it("is not begun for an image that is not there, and leaves nothing on failure", async () => {
    await loadApp("app:1");
    await expect(save(["nope"], target(), { format })).rejects.toThrow(code("NOT_FOUND"));
    const { layers } = await stores.images.resolve("app:1");
    const file = stores.content.path(layers[0]!.digest);
    await writeFile(file, Buffer.alloc(layers[0]!.size));
    await writeFile(target(), "what was there before");
    await expect(save(["app:1"], target(), { format })).rejects.toThrow(
      code("CORRUPT_DATA", layers[0]!.digest),
    );
    expect(await readFile(target(), "utf8")).toBe("what was there before");
    const names = await readdir(directory);
    expect(names.filter((name) => name.includes(".tmp-"))).toEqual([]);
    expect(stores.database.leases.list()).toEqual([]);
    await stores.content.delete(layers[0]!.digest);
    await expect(save(["app:1"], target(), { format })).rejects.toThrow(
      code("NOT_FOUND", layers[0]!.digest),
    );
  });

  it("stops when it is cancelled, or when its reader leaves", async () => {
    await loadApp("app:1");
    const signal = AbortSignal.abort();
    await expect(save(["app:1"], target(), { format, signal })).rejects.toThrow(code("CANCELLED"));
    for await (const _ of streamImages(stores.images, ["app:1"], { format })) break;
    expect(stores.database.leases.list()).toEqual([]);
  });
});

describe("a multi-platform image", () => {
  it("is saved whole when all of it is here", async () => {
    const { index } = await loadMulti(true);
    await save(["multi"], target(), { format: "oci-archive" });
    await loadImages(other.images, target(), { allPlatforms: true });
    expect((await other.images.get("multi")).digest).toBe(index.digest);
    await other.images.resolve("multi", "linux/arm64");
  });

  it("is saved as the one platform that is here, or was asked for", async () => {
    const { amd64 } = await loadMulti(false);
    await save(["multi"], target(), { format: "oci-archive" });
    const [image] = await loadImages(other.images, target());
    expect(image?.digest).toBe(amd64.digest);
  });

  it("is cut down to the platforms that were asked for", async () => {
    const { arm64, index } = await loadMulti(true);
    const format = "docker-archive";
    await save(["multi"], target(), { format, platforms: ["linux/arm64"] });
    const [one] = await loadImages(other.images, target());
    expect(one?.digest).toBe(arm64.digest);
    const both = ["linux/arm64", "linux/amd64"];
    await save(["multi"], target(), { format, platforms: both });
    const [cut] = await loadImages(other.images, target(), { allPlatforms: true });
    expect(cut?.digest).toBe(index.digest);
    await expect(save(["multi"], target(), { format, platforms: ["linux/s390x"] })).rejects.toThrow(
      code("NOT_FOUND", "linux/s390x"),
    );
  });
});

describe("docker's documents", () => {
  it("point to the same blobs, with full names", async () => {
    await loadApp("app:1", "quay.io/team/app:2");
    const format = "docker-archive";
    await save(["app:1", "quay.io/team/app:2"], target(), { format });
    const read = (name: string) =>
      JSON.parse(execFileSync("tar", ["-xOf", target(), name], { encoding: "utf8" })) as unknown;
    const image = await stores.images.resolve("app:1");
    const blob = (digest: string) => `blobs/sha256/${digest.slice(7)}`;
    expect(read("manifest.json")).toEqual([
      {
        Config: blob(image.id),
        RepoTags: ["docker.io/library/app:1", "quay.io/team/app:2"],
        Layers: image.layers.map((layer) => blob(layer.digest)),
      },
    ]);
    const top = image.chainIds.at(-1)!.slice(7);
    expect(read("repositories")).toEqual({
      "docker.io/library/app": { 1: top },
      "quay.io/team/app": { 2: top },
    });
    const layer = execFileSync("tar", ["-xOf", target(), blob(image.layers[0]!.digest)]);
    expect(sha256(layer)).toBe(image.layers[0]!.digest);
  });
});

describe("a layout directory", () => {
  const format = "oci-dir";

  it("is made, and loads again", async () => {
    await loadApp("app:1");
    await save(["app:1"], target("layout"), { format });
    const [image] = await loadImages(other.images, target("layout"));
    expect(image?.reference).toBe("docker.io/library/app:1");
  });

  it("gets more images added, each name once", async () => {
    await loadApp("app:1");
    await save(["app:1"], target("layout"), { format });
    const layout = new Layout();
    layout.list(await layout.image({ layers: ["newer"] }), "app:1");
    layout.list(await layout.image({ layers: ["three"] }), "more:2");
    await loadLayout(layout);
    await save(["app:1", "more:2"], target("layout"), { format });
    const loaded = await loadImages(other.images, target("layout"));
    expect(loaded.map((image) => image.reference)).toEqual([
      "docker.io/library/app:1",
      "docker.io/library/more:2",
    ]);
    expect(loaded[0]?.id).toBe((await stores.images.get("app:1")).id);
  });

  it("is refused when something else is there", async () => {
    await loadApp("app:1");
    await mkdir(target("full"));
    await writeFile(path.join(target("full"), "mine"), "keep");
    await expect(save(["app:1"], target("full"), { format })).rejects.toThrow(
      code("FAILED_PRECONDITION"),
    );
    expect(await readdir(target("full"))).toEqual(["mine"]);
    await writeFile(target("file"), "");
    await expect(save(["app:1"], target("file"), { format })).rejects.toThrow();
  });

  it("is not left behind half made", async () => {
    await loadApp("app:1");
    const { layers } = await stores.images.resolve("app:1");
    await writeFile(stores.content.path(layers[1]!.digest), Buffer.alloc(layers[1]!.size));
    await expect(save(["app:1"], target("layout"), { format })).rejects.toThrow(
      code("CORRUPT_DATA"),
    );
    await expect(stat(target("layout"))).rejects.toThrow(/ENOENT/);
  });

  it("cannot be streamed", async () => {
    await loadApp("app:1");
    await expect(streamed(["app:1"], { format })).rejects.toThrow(code("INVALID_ARGUMENT"));
  });
});

it("replaces the file behind a link, and nothing that is no file", async () => {
  await loadApp("app:1");
  const format = "oci-archive";
  await writeFile(target("real"), "old");
  await symlink("real", target("link"));
  await save(["app:1"], target("link"), { format });
  expect((await lstat(target("link"))).isSymbolicLink()).toBe(true);
  expect(await loadImages(other.images, target("real"))).toHaveLength(1);
  execFileSync("mkfifo", [target("fifo")]);
  await expect(save(["app:1"], target("fifo"), { format })).rejects.toThrow(
    code("FAILED_PRECONDITION"),
  );
  await expect(save(["app:1"], directory, { format })).rejects.toThrow(code("FAILED_PRECONDITION"));
  await expect(save(["app:1"], target("no/where"), { format })).rejects.toThrow(code("NOT_FOUND"));
});

it("names must be given, and a format that exists", async () => {
  await expect(save([], target(), { format: "oci-archive" })).rejects.toThrow(
    code("INVALID_ARGUMENT"),
  );
  const format = "zip" as SaveFormat;
  await expect(save(["app"], target(), { format })).rejects.toThrow(
    code("INVALID_ARGUMENT", "zip"),
  );
});

it("two images of one tag keep their full names apart", async () => {
  const layout = new Layout();
  layout.list(await layout.image({ layers: ["a"] }), "one:same");
  layout.list(await layout.image({ layers: ["b"] }), "two:same");
  await loadLayout(layout);
  const data = await streamed(["one:same", "two:same"], { format: "oci-archive" });
  const index = JSON.parse(
    execFileSync("tar", ["-xOf", "-", "index.json"], { input: data, encoding: "utf8" }),
  ) as { manifests: { annotations: Record<string, string> }[] };
  const names = index.manifests.map((one) => one.annotations["org.opencontainers.image.ref.name"]);
  expect(names).toEqual(["docker.io/library/one:same", "docker.io/library/two:same"]);
  expect(await loadImages(other.images, inPieces(data))).toHaveLength(2);
});
