import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ProgressEvent } from "../../../src/images/image-record.js";
import { type LoadOptions, loadImages } from "../../../src/images/load.js";
import {
  AMD64,
  ARM64,
  inPieces,
  Layout,
  layerTar,
  leftovers,
  MANIFEST,
  openStores,
  type Stores,
  sha256,
  tarOf,
} from "./image-fixture.js";

let stores: Stores;
let directory: string;

beforeEach(async () => {
  stores = await openStores();
  directory = await mkdtemp(path.join(tmpdir(), "varve-load-"));
});

afterEach(async () => {
  await stores.close();
  await rm(directory, { recursive: true, force: true });
});

const code = (value: string, text = "") =>
  expect.objectContaining({ code: value, message: expect.stringContaining(text) });

const load = (source: string | AsyncIterable<Uint8Array>, options: LoadOptions = {}) =>
  loadImages(stores.images, source, { ...options, collectGarbage: stores.collectGarbage });

/** Fails to load, with everything swept afterwards. */
async function expectFailure(
  source: string | AsyncIterable<Uint8Array>,
  error: unknown,
  options: LoadOptions = {},
) {
  await expect(load(source, options)).rejects.toThrow(error as Error);
  expect(await leftovers(stores)).toEqual([]);
  expect(stores.database.references.list()).toEqual([]);
  expect(stores.database.leases.list()).toEqual([]);
}

const layoutDir = (name = "app") => path.join(directory, name);

describe("an OCI layout directory", () => {
  it("becomes an image under its normalised name", async () => {
    const layout = new Layout();
    const manifest = await layout.image({ layers: ["one", "two"] });
    layout.list(manifest, "busybox:1.36");
    const loaded = await load(await layout.writeTo(layoutDir()));
    const reference = "docker.io/library/busybox:1.36";
    expect(loaded).toEqual([{ reference, id: expect.any(String), digest: manifest.digest }]);
    const image = await stores.images.resolve("busybox:1.36");
    expect(image.layers).toHaveLength(2);
    for (const blob of layout.blobs.keys()) expect(stores.content.has(blob)).toBe(true);
  });

  it("gives a name that is only a tag the directory's name as repository", async () => {
    const layout = new Layout();
    layout.list(await layout.image(), "v2", "org.opencontainers.image.ref.name");
    const [image] = await load(await layout.writeTo(layoutDir("my-app.oci")));
    expect(image?.reference).toBe("docker.io/library/my-app:v2");
  });

  it("loads an image without a name as a dangling one", async () => {
    const layout = new Layout();
    layout.list(await layout.image());
    const [image] = await load(await layout.writeTo(layoutDir()));
    expect(image).not.toHaveProperty("reference");
    const [record] = await stores.images.list(["dangling=true"]);
    expect(record?.id).toBe(image?.id);
    await stores.collectGarbage();
    expect(stores.content.has(image!.id)).toBe(true);
  });

  it("loads several images, sharing what they share", async () => {
    const layout = new Layout();
    layout.list(await layout.image({ layers: ["base"] }), "a/one");
    layout.list(await layout.image({ layers: ["base", "more"] }), "b.example/two:3");
    const loaded = await load(await layout.writeTo(layoutDir()));
    expect(loaded.map((image) => image.reference)).toEqual([
      "docker.io/a/one:latest",
      "b.example/two:3",
    ]);
  });

  it("takes only the store's platform out of an index", async () => {
    const layout = new Layout();
    const amd64 = await layout.image({ platform: AMD64, layers: ["amd64"] });
    const arm64 = await layout.image({ platform: ARM64, layers: ["arm64"] });
    layout.list(layout.index([arm64, amd64]), "multi");
    await load(await layout.writeTo(layoutDir()));
    expect((await stores.images.resolve("multi")).manifestDescriptor.digest).toBe(amd64.digest);
    await expect(stores.images.resolve("multi", "linux/arm64")).rejects.toThrow(code("NOT_FOUND"));
    const kept = stores.database.blobs.list().length;
    // index, both manifests, and config and layer of one platform
    expect(kept).toBe(5);
  });

  it("takes the platforms that were asked for, or all", async () => {
    const layout = new Layout();
    const amd64 = await layout.image({ platform: AMD64, layers: ["amd64"] });
    const arm64 = await layout.image({ platform: ARM64, layers: ["arm64"] });
    layout.list(layout.index([layout.index([arm64]), amd64]), "multi");
    const source = await layout.writeTo(layoutDir());
    await load(source, { platforms: ["linux/arm64"] });
    expect((await stores.images.resolve("multi")).manifestDescriptor.digest).toBe(arm64.digest);
    await expectNoPlatform(source, "linux/s390x", "linux/arm64, linux/amd64");
    await load(source, { allPlatforms: true });
    const host = await stores.images.resolve("multi");
    expect(host.manifestDescriptor.digest).toBe(amd64.digest);
  });

  async function expectNoPlatform(source: string, platform: string, offered: string) {
    await expect(load(source, { platforms: [platform] })).rejects.toThrow(
      code("NOT_FOUND", offered),
    );
  }

  it("passes over attestations and other artifacts", async () => {
    const layout = new Layout();
    const attestation = await layout.image({
      platform: { os: "unknown", architecture: "unknown" },
    });
    const signature = layout.add(
      {
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: layout.add({ a: 1 }, "application/vnd.example.signature"),
        layers: [],
      },
      MANIFEST,
    );
    layout.list(layout.index([attestation, await layout.image()]), "app");
    layout.list(signature, "app:sig");
    const loaded = await load(await layout.writeTo(layoutDir()));
    expect(loaded.map((image) => image.reference)).toEqual(["docker.io/library/app:latest"]);
  });

  it("names the blob that is missing", async () => {
    const layout = new Layout();
    const manifest = await layout.image();
    layout.list(manifest, "app");
    const layer = [...layout.blobs.keys()][0]!;
    layout.blobs.delete(layer);
    await expectFailure(await layout.writeTo(layoutDir()), code("NOT_FOUND", layer));
  });

  it("refuses a blob with other content than its name says, of any length", async () => {
    for (const change of [Buffer.from("other"), undefined]) {
      const layout = new Layout();
      layout.list(await layout.image(), "app");
      const [digest, data] = [...layout.blobs][0]!;
      layout.blobs.set(digest, change ?? Buffer.from(data).fill(0, 10, 20));
      const source = await layout.writeTo(layoutDir(`x${change?.length}`));
      await expectFailure(source, code("CORRUPT_DATA", digest));
    }
  });

  it("refuses blobs of other sizes than their descriptors say, new or known", async () => {
    const honest = new Layout();
    const image = await honest.image();
    honest.list(image, "app");
    const manifest = JSON.parse(String(honest.blobs.get(image.digest)));
    const [layer] = manifest.layers;
    for (const change of [1, -1]) {
      const layout = new Layout();
      await layout.image();
      const layers = [{ ...layer, size: layer.size + change }];
      layout.list(layout.add({ ...manifest, layers }, MANIFEST), "liar");
      const source = await layout.writeTo(layoutDir(`size${change}`));
      await expectFailure(source, code("CORRUPT_DATA", layer.digest));
      await load(await honest.writeTo(layoutDir(`honest${change}`)));
      await expect(load(source)).rejects.toThrow(code("CORRUPT_DATA", layer.digest));
      await stores.images.remove("app", { force: true });
      await stores.collectGarbage();
    }
  });

  it("refuses an image whose layers and diff IDs do not match in number", async () => {
    const layout = new Layout();
    const fields = { rootfs: { type: "layers", diff_ids: [] } };
    layout.list(await layout.image({ fields }), "app");
    await expectFailure(await layout.writeTo(layoutDir()), code("CORRUPT_DATA", "diff IDs"));
  });

  it("says what is wrong with a directory that is none", async () => {
    await expectFailure(directory, code("UNSUPPORTED", "index.json"));
    await writeFile(path.join(directory, "manifest.json"), "{}");
    await expectFailure(directory, code("UNSUPPORTED", "skopeo"));
    await expectFailure(path.join(directory, "absent"), code("NOT_FOUND", "absent"));
  });

  it("refuses docker's schema 1 by name", async () => {
    const layout = new Layout();
    layout.list(layout.add({ schemaVersion: 1, history: [] }, MANIFEST), "old");
    await expectFailure(await layout.writeTo(layoutDir()), code("UNSUPPORTED", "schema 1"));
  });
});

describe("an OCI archive", () => {
  async function archive(name = "app"): Promise<Buffer> {
    const layout = new Layout();
    layout.list(await layout.image({ layers: ["one", "two"] }), name);
    await layout.writeTo(layoutDir("archived"));
    return tarOf(layoutDir("archived"));
  }

  it("loads from a file and from a stream, plain, gzip and zstd", async () => {
    const tar = await archive();
    const variants = [tar, gzipSync(tar), execFileSync("zstd", ["-qc"], { input: tar })];
    const ids = new Set<string>();
    for (const [n, data] of variants.entries()) {
      const file = path.join(directory, `app-${n}.tar`);
      await writeFile(file, data);
      for (const source of [file, inPieces(data), inPieces(data, 77_777)]) {
        const [image] = await load(source);
        expect(image?.reference).toBe("docker.io/library/app:latest");
        ids.add(image!.id);
      }
    }
    expect(ids.size).toBe(1);
  });

  it("does not need index.json to come first", async () => {
    await archive();
    const tar = tarOf(layoutDir("archived"), ["blobs", "oci-layout", "./index.json"]);
    expect(await load(inPieces(tar))).toHaveLength(1);
  });

  it("drops the platforms that nobody asked for", async () => {
    const layout = new Layout();
    const amd64 = await layout.image({ platform: AMD64, layers: ["amd64"] });
    const arm64 = await layout.image({ platform: ARM64, layers: ["arm64"] });
    layout.list(layout.index([arm64, amd64]), "multi");
    const tar = tarOf(await layout.writeTo(layoutDir()));
    await load(inPieces(tar));
    expect(stores.database.blobs.list()).toHaveLength(5);
    await load(inPieces(tar), { allPlatforms: true });
    expect(stores.database.blobs.list()).toHaveLength(7);
    await stores.images.resolve("multi", "linux/arm64");
    // Asking for one afterwards does not take the other away.
    await load(inPieces(tar), { platforms: ["linux/amd64"] });
    expect(stores.database.blobs.list()).toHaveLength(7);
  });

  it("is refused when truncated anywhere", async () => {
    const tar = await archive();
    for (const length of [0, 100, 512, 1500, tar.length >> 1, tar.length - 11_000]) {
      await expectFailure(inPieces(tar.subarray(0, length)), expect.anything());
      const gzip = gzipSync(tar);
      const cut = gzip.subarray(0, Math.floor((length / tar.length) * gzip.length));
      await expectFailure(inPieces(cut), expect.anything());
    }
    await expectFailure(inPieces(tar.subarray(0, 5000)), code("CORRUPT_DATA", "truncated"));
    const half = gzipSync(tar).subarray(0, 300);
    await expectFailure(inPieces(half), code("CORRUPT_DATA", "truncated"));
  });

  it("is refused when a blob was changed, by the blob's digest", async () => {
    const tar = await archive();
    const name = /blobs\/sha256\/([0-9a-f]{64})/.exec(tar.toString("latin1"))![1]!;
    const at = tar.indexOf(`blobs/sha256/${name}`) + 512;
    tar[at + 30]! ^= 1;
    await expectFailure(inPieces(tar), code("CORRUPT_DATA", name));
  });

  it("is refused when it is something else", async () => {
    const text = Buffer.from("no tar at all, but long enough to be one. ".repeat(50));
    await expectFailure(inPieces(text), code("CORRUPT_DATA", "not an image archive"));
    const other = await layerTar("etc/passwd", "root");
    await expectFailure(inPieces(other), code("UNSUPPORTED", "not an image archive"));
  });

  it("stops when it is cancelled", async () => {
    const tar = await archive();
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    const options = { signal: controller.signal, onProgress };
    await expectFailure(inPieces(tar), code("CANCELLED"), options);
  });

  it("passes on what its source fails with", async () => {
    async function* failing() {
      yield* inPieces((await archive()).subarray(0, 4000));
      throw new Error("the client went away");
    }
    await expectFailure(failing(), /went away/);
  });

  it("tells its progress under the digests", async () => {
    const events: ProgressEvent[] = [];
    await load(inPieces(await archive()), { onProgress: (event) => events.push(event) });
    const done = events.filter((event) => event.action === "done");
    expect(done).toHaveLength(4);
    for (const { id, current, total } of done) {
      expect(id).toMatch(/^sha256:/);
      expect(current).toBe(total);
    }
    await load(inPieces(await archive()), { onProgress: (event) => events.push(event) });
    expect(events.filter((event) => event.action === "exists")).toHaveLength(4);
  });

  it("may be loaded many times at once", async () => {
    const tar = await archive();
    const results = await Promise.all([1, 2, 3, 4].map(() => load(inPieces(tar))));
    expect(new Set(results.map(([image]) => image!.id)).size).toBe(1);
    expect(await leftovers(stores)).toHaveLength(4);
  });
});

describe("garbage collection during a load", () => {
  it("takes nothing away that the load brings or finds", async () => {
    const layout = new Layout();
    layout.list(await layout.image({ layers: ["one", "two", "three"] }), "app");
    const tar = tarOf(await layout.writeTo(layoutDir()));
    for (let round = 0; round < 5; round++) {
      let isLoading = true;
      const loading = load(inPieces(tar, 700)).finally(() => {
        isLoading = false;
      });
      while (isLoading) {
        await stores.collectGarbage();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await loading;
      const image = await stores.images.resolve("app");
      for (const { digest } of [image.configDescriptor, ...image.layers]) {
        expect(sha256(await readFile(stores.content.path(digest)))).toBe(digest);
      }
      // Gone for the table, but its blobs are still there when the next load begins.
      await stores.images.remove("app");
    }
  });
});

describe("a docker archive", () => {
  type Docker = { tars: Buffer[]; config: Buffer; files: Map<string, Buffer | { link: string }> };

  async function docker(texts = ["one", "two"]): Promise<Docker> {
    const tars = await Promise.all(texts.map((text) => layerTar("file", text)));
    const config = Buffer.from(
      JSON.stringify({
        architecture: "amd64",
        os: "linux",
        docker_version: "20.10",
        config: { Cmd: ["/hello"], Healthcheck: { Test: ["NONE"] } },
        rootfs: { type: "layers", diff_ids: tars.map((tar) => sha256(tar)) },
      }),
    );
    return { tars, config, files: new Map() };
  }

  async function write(files: Docker["files"]): Promise<Buffer> {
    const root = await mkdtemp(path.join(directory, "docker-"));
    for (const [name, content] of files) {
      const file = path.join(root, name);
      await mkdir(path.dirname(file), { recursive: true });
      if (Buffer.isBuffer(content)) await writeFile(file, content);
      else await symlink(content.link, file);
    }
    return tarOf(root, [...files.keys()]);
  }

  const manifestJson = (entries: object[]) => Buffer.from(JSON.stringify(entries));

  it("loads in the old layout of one directory for each layer", async () => {
    const { tars, config, files } = await docker(["same", "other", "same"]);
    const name = `${sha256(config).slice(7)}.json`;
    files.set("aaa/VERSION", Buffer.from("1.0"));
    files.set("aaa/json", Buffer.from("{}"));
    files.set("aaa/layer.tar", tars[0]!);
    files.set("bbb/layer.tar", tars[1]!);
    // docker writes a layer that comes again as a link to the first one
    files.set("ccc/layer.tar", { link: "../aaa/layer.tar" });
    files.set(name, config);
    const Layers = ["aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"];
    files.set(
      "manifest.json",
      manifestJson([{ Config: name, RepoTags: ["app:1", "x.example/app:2"], Layers }]),
    );
    files.set("repositories", Buffer.from("{}"));
    const loaded = await load(inPieces(await write(files)));
    expect(loaded.map((image) => image.reference)).toEqual([
      "docker.io/library/app:1",
      "x.example/app:2",
    ]);
    expect(loaded[0]?.id).toBe(sha256(config));
    const image = await stores.images.resolve("app:1");
    expect(image.layers.map((layer) => layer.digest)).toEqual(image.diffIds);
    expect(await readFile(stores.content.path(image.diffIds[1]!))).toEqual(tars[1]);
  });

  it("gives the same manifest each time and in any order of entries", async () => {
    const { tars, config, files } = await docker();
    files.set("c.json", config);
    for (const [n, tar] of tars.entries()) files.set(`${n}.tar`, tar);
    const Layers = ["0.tar", "1.tar"];
    files.set("manifest.json", manifestJson([{ Config: "c.json", RepoTags: ["a"], Layers }]));
    const [first] = await load(inPieces(await write(files)));
    const reversed = new Map([...files].reverse());
    const [second] = await load(inPieces(await write(reversed)));
    expect(second).toEqual(first);
  });

  it("accepts compressed layers", async () => {
    const { tars, config, files } = await docker(["one"]);
    files.set("c.json", config);
    files.set("l.tar.gz", gzipSync(tars[0]!));
    const entry = { Config: "c.json", RepoTags: null, Layers: ["l.tar.gz"] };
    files.set("manifest.json", manifestJson([entry]));
    const [image] = await load(inPieces(await write(files)));
    expect(image).not.toHaveProperty("reference");
    const { layers } = await stores.images.resolve(image!.id);
    expect(layers[0]?.mediaType).toMatch(/tar\+gzip$/);
  });

  it("prefers index.json in the layout that docker writes since version 25", async () => {
    const layout = new Layout();
    const manifest = await layout.image({ plain: true });
    layout.list(manifest, "docker.io/library/app:1");
    const source = await layout.writeTo(layoutDir());
    const config = [...layout.blobs.keys()].at(-2)!;
    const entry = { Config: `blobs/sha256/${config.slice(7)}`, RepoTags: ["app:1"], Layers: [] };
    await writeFile(path.join(source, "manifest.json"), manifestJson([entry]));
    const [image] = await load(inPieces(tarOf(source)));
    expect(image?.digest).toBe(manifest.digest);
  });

  it("refuses a layer that is not what the config says", async () => {
    const { tars, config, files } = await docker();
    files.set("c.json", config);
    files.set("0.tar", tars[1]!);
    files.set("1.tar", tars[0]!);
    const entry = { Config: "c.json", RepoTags: ["a"], Layers: ["0.tar", "1.tar"] };
    files.set("manifest.json", manifestJson([entry]));
    await expectFailure(inPieces(await write(files)), code("CORRUPT_DATA", "0.tar"));
  });

  it("refuses a config that does not have the digest of its name", async () => {
    const { tars, config, files } = await docker(["one"]);
    const name = `${"0".repeat(64)}.json`;
    files.set(name, config);
    files.set("0.tar", tars[0]!);
    files.set("manifest.json", manifestJson([{ Config: name, Layers: ["0.tar"] }]));
    await expectFailure(inPieces(await write(files)), code("CORRUPT_DATA", name));
  });

  it("names a file that is missing, also behind links that lead nowhere", async () => {
    const { config, files } = await docker(["one"]);
    files.set("c.json", config);
    files.set("a.tar", { link: "b.tar" });
    files.set("b.tar", { link: "a.tar" });
    files.set("manifest.json", manifestJson([{ Config: "c.json", Layers: ["a.tar"] }]));
    await expectFailure(inPieces(await write(files)), code("NOT_FOUND", "a.tar"));
    files.set("manifest.json", manifestJson([{ Config: "../c.json", Layers: ["/x/y.tar"] }]));
    await expectFailure(inPieces(await write(files)), code("NOT_FOUND"));
  });

  it("refuses what is no list of images", async () => {
    for (const text of ["{}", "[{}]", "[]", "no json", '[{"Config":5}]']) {
      const files = new Map([["manifest.json", Buffer.from(text)]]);
      await expectFailure(inPieces(await write(files)), expect.anything());
    }
  });

  it("refuses docker's format of before 1.10 by name", async () => {
    const files = new Map([["repositories", Buffer.from("{}")]]);
    await expectFailure(inPieces(await write(files)), code("UNSUPPORTED", "1.10"));
  });
});

describe("loading again", () => {
  it("leaves the image that had the name before as a dangling one", async () => {
    for (const text of ["old", "new"]) {
      const layout = new Layout();
      layout.list(await layout.image({ layers: [text] }), "app");
      await load(await layout.writeTo(layoutDir(text)));
    }
    expect(await stores.images.list(["dangling=true"])).toHaveLength(1);
    expect(await stores.images.list()).toHaveLength(2);
  });

  it("does not need permission to write the source", async () => {
    const layout = new Layout();
    layout.list(await layout.image(), "app");
    const source = await layout.writeTo(layoutDir());
    await chmod(source, 0o555);
    expect(await load(source)).toHaveLength(1);
    await chmod(source, 0o755);
  });
});
