import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { digestOf } from "../../../src/content/digest.js";
import { buildCommit, type CommitOptions, commitTime } from "../../../src/images/commit-config.js";
import { imageHistory, inspectImage } from "../../../src/images/history.js";
import type { ResolvedImage } from "../../../src/images/image-store.js";
import { Layout, openStores, type Stores } from "./image-fixture.js";

let stores: Stores;

beforeEach(async () => {
  stores = await openStores();
});

afterEach(async () => {
  await stores.close();
});

type ImageOptions = Parameters<Layout["image"]>[0];

async function baseImage(options: ImageOptions = {}): Promise<ResolvedImage> {
  const layout = new Layout();
  const manifest = await layout.image({ layers: ["one", "two"], ...options });
  for (const data of layout.blobs.values()) await stores.content.writeBlob(data);
  await stores.images.create("base", manifest);
  return await stores.images.resolve("base");
}

const diffId = digestOf("diff");
const GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
const layer = { descriptor: { mediaType: GZIP, digest: digestOf("blob"), size: 7 }, diffId };
type Parsed = Record<string, unknown> & { history: unknown[] };
const parse = (data: Buffer) => JSON.parse(data.toString()) as Parsed;

/** Docker's types all over, as a registry gives them. */
const DOCKER = {
  manifest: { mediaType: "application/vnd.docker.distribution.manifest.v2+json" },
};

describe("a committed image", () => {
  it("assumes this machine's platform for a base that names none, and warns", async () => {
    expect(buildCommit({ base: await baseImage(), layer }).warnings).toEqual([]);
    const bare = await baseImage({ fields: { os: "", architecture: undefined } });
    const files = buildCommit({ base: bare, layer });
    expect(parse(files.configBytes)).toMatchObject({
      os: "linux",
      architecture: bare.config.architecture,
    });
    expect(files.warnings).toEqual([
      `image ${bare.id} names no architecture; assuming ${bare.config.architecture}`,
      `image ${bare.id} names no os; assuming linux`,
    ]);
  });

  it("is the base with one more layer, diff ID and history entry", async () => {
    const base = await baseImage();
    const created = new Date("2025-01-02T03:04:05Z");
    const options: CommitOptions = { base, layer, created, author: "me", message: "why" };
    const files = buildCommit(options);
    const config = parse(files.configBytes);
    expect(config).toMatchObject({
      architecture: "amd64",
      os: "linux",
      author: "me",
      created: "2025-01-02T03:04:05Z",
      config: { Cmd: ["sh"] },
      rootfs: { type: "layers", diff_ids: [...base.diffIds, diffId] },
    });
    expect(config.history).toEqual([
      ...(base.config.json.history as object[]),
      { created: "2025-01-02T03:04:05Z", created_by: "varve commit", author: "me", comment: "why" },
    ]);
    const manifest = parse(files.manifestBytes);
    expect(manifest).toEqual({
      schemaVersion: 2,
      mediaType: base.manifest.mediaType,
      config: files.configDescriptor,
      layers: [...base.layers, layer.descriptor],
    });
    expect(files.id).toBe(digestOf(files.configBytes));
    expect(files.manifestDescriptor.digest).toBe(digestOf(files.manifestBytes));
  });

  it("has the same bytes for the same input, whatever the clock says", async () => {
    const base = await baseImage();
    const first = buildCommit({ base, layer, changes: ["ENV A=1"] });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const second = buildCommit({ base, layer, changes: ["ENV A=1"] });
    expect(second.manifestDescriptor).toEqual(first.manifestDescriptor);
    expect(parse(first.configBytes).created).toBe("2024-05-06T07:08:09Z");
  });

  it("without a layer has an empty history entry and the base's chain", async () => {
    const base = await baseImage();
    const files = buildCommit({ base, changes: ['CMD ["x"]'] });
    const config = parse(files.configBytes);
    expect(config.history.at(-1)).toMatchObject({
      empty_layer: true,
      created_by: "varve commit --change 'CMD [\"x\"]'",
    });
    expect(files.chainId).toBe(base.chainIds.at(-1));
    expect(files.layerDescriptor).toBeUndefined();
    expect(parse(files.manifestBytes).layers).toEqual(base.layers);
  });

  it("keeps what it does not know and drops what is only true of the base's container", async () => {
    const base = await baseImage({
      config: { Cmd: ["sh"], ArgsEscaped: true, Memory: 5, User: "a" },
      fields: { "moby.buildkit.x": [1], container: "abc", container_config: {}, variant: "v1" },
      manifest: { annotations: { a: "b" }, subject: { digest: "x" }, future: 1 },
    });
    const files = buildCommit({ base, layer, changes: ["USER b", 'ENTRYPOINT ["/e"]'] });
    const config = parse(files.configBytes);
    expect(config).toMatchObject({ "moby.buildkit.x": [1], variant: "v1" });
    expect(config).not.toHaveProperty("container");
    expect(config).not.toHaveProperty("container_config");
    expect(config.config).toEqual({ ArgsEscaped: true, Memory: 5, User: "b", Entrypoint: ["/e"] });
    const manifest = parse(files.manifestBytes);
    expect(manifest).toMatchObject({ annotations: { a: "b" }, future: 1 });
    expect(manifest).not.toHaveProperty("subject");
  });

  it("keeps docker's flavour, except for zstd", async () => {
    const base = await baseImage(DOCKER);
    const docker = parse(buildCommit({ base, layer }).manifestBytes);
    expect(docker).toMatchObject({
      mediaType: "application/vnd.docker.distribution.manifest.v2+json",
      config: { mediaType: "application/vnd.docker.container.image.v1+json" },
      layers: Array.from({ length: 3 }, () => ({
        mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      })),
    });
    const descriptor = { ...layer.descriptor, mediaType: GZIP.replace("gzip", "zstd") };
    const oci = parse(buildCommit({ base, layer: { descriptor, diffId } }).manifestBytes);
    expect(oci).toMatchObject({
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      layers: [{ mediaType: GZIP }, { mediaType: GZIP }, { mediaType: descriptor.mediaType }],
    });
  });

  it("takes the flavour that is asked for, and says what docker's cannot hold", async () => {
    const base = await baseImage({ manifest: { annotations: { a: "b" } } });
    const annotations = { a: "new", c: "d" };
    const oci = parse(buildCommit({ base, layer, annotations }).manifestBytes);
    expect(oci).toMatchObject({ annotations });
    const docker = parse(buildCommit({ base, layer, format: "docker" }).manifestBytes);
    expect(docker.mediaType).toBe("application/vnd.docker.distribution.manifest.v2+json");
    expect(docker).not.toHaveProperty("annotations");
    const back = await baseImage(DOCKER);
    expect(parse(buildCommit({ base: back, format: "oci" }).manifestBytes)).toMatchObject({
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      layers: [{ mediaType: GZIP }, { mediaType: GZIP }],
    });
    const zstd = { ...layer.descriptor, mediaType: GZIP.replace("gzip", "zstd") };
    for (const options of [
      { base, format: "docker", annotations },
      { base, format: "docker", layer: { descriptor: zstd, diffId } },
      { base: back, annotations },
    ] as const) {
      expect(() => buildCommit(options)).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    }
  });

  it("has one layer and one entry of history when squashed, and none of history when omitted", async () => {
    const base = await baseImage();
    const files = buildCommit({ base, layer, isSquashed: true });
    expect(parse(files.configBytes)).toMatchObject({
      config: { Cmd: ["sh"] },
      rootfs: { diff_ids: [diffId] },
      history: [{ created_by: "varve commit" }],
    });
    expect(parse(files.manifestBytes).layers).toEqual([layer.descriptor]);
    expect(files.chainId).toBe(diffId);
    const silent = buildCommit({ base, layer, omitHistory: true });
    expect(parse(silent.configBytes)).not.toHaveProperty("history");
  });

  it("describes every layer once it describes one", async () => {
    const base = await baseImage({ fields: { history: null } });
    const { history } = parse(buildCommit({ base, layer }).configBytes);
    expect(history).toHaveLength(3);
  });

  it("is an image that the store takes", async () => {
    const base = await baseImage();
    const files = buildCommit({ base, layer: { ...layer, descriptor: base.layers[0]! } });
    await stores.content.writeBlob(files.configBytes);
    await stores.content.writeBlob(files.manifestBytes);
    const image = await stores.images.create("new", files.manifestDescriptor);
    expect(image).toMatchObject({ id: files.id, chainId: files.chainId });
    const { entries } = await imageHistory(stores.images, "new");
    expect(entries.map((entry) => entry.createdBy)).toEqual([
      "varve commit",
      "echo two",
      "echo one",
    ]);
    expect(entries[0]).toMatchObject({ size: base.layers[0]!.size, emptyLayer: false });
    const inspection = await inspectImage(stores.images, await stores.images.resolve("new"));
    expect(inspection.config).toEqual(files.configBytes);
    expect(inspection.manifest).toEqual(files.manifestBytes);
    expect(inspection.chainIds.at(-1)).toBe(files.chainId);
  });
});

describe("the time of a commit", () => {
  it("is the one asked for, else the newest change, else the base's, else 1970", async () => {
    const base = await baseImage();
    const newestMtimeNs = 1_700_000_000_999_999_999n;
    expect(commitTime({ base, newestMtimeNs, sourceDateEpoch: 0 }).getTime()).toBe(0);
    expect(commitTime({ base, newestMtimeNs }).getTime()).toBe(1_700_000_000_000);
    expect(commitTime({ base }).toISOString()).toBe("2024-05-06T07:08:09.000Z");
    const timeless = await baseImage({ fields: { created: null } });
    expect(commitTime({ base: timeless }).getTime()).toBe(0);
    for (const sourceDateEpoch of [-1, Number.NaN, 1e15]) {
      expect(() => commitTime({ base, sourceDateEpoch })).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    }
  });
});
