import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Digest } from "../../../src/content/digest.js";
import type { Described } from "./image-fixture.js";
import { AMD64, ARM64, Layout, leftovers, openStores, type Stores } from "./image-fixture.js";

let stores: Stores;

beforeEach(async () => {
  stores = await openStores();
});

afterEach(async () => {
  await stores.close();
});

const code = (value: string, text = "") =>
  expect.objectContaining({ code: value, message: expect.stringContaining(text) });

/** Puts a layout's blobs into the store. */
async function put(layout: Layout): Promise<void> {
  for (const data of layout.blobs.values()) await stores.content.writeBlob(data);
}

type ImageOptions = Parameters<Layout["image"]>[0];

/** Creates an image; different texts give different IDs. */
async function create(
  name: string | undefined,
  text: string,
  options: ImageOptions = {},
): Promise<{ id: Digest; manifest: Described }> {
  const layout = new Layout();
  const manifest = await layout.image({ layers: [text], ...options });
  await put(layout);
  const { id } = await stores.images.create(name, manifest);
  return { id, manifest };
}

function addView(id: Digest, manifest: Described, name = "work"): void {
  stores.database.views.insert({
    id: name,
    name,
    image: "app",
    imageId: id,
    manifestDigest: manifest.digest,
    readOnly: false,
    target: "/mnt",
    mounted: true,
  });
}

describe("finding an image", () => {
  it("works by any spelling of its name, by ID, and by a unique prefix", async () => {
    const { id, manifest } = await create("app:1", "one");
    const spellings = [
      "app:1",
      "docker.io/app:1",
      "docker.io/library/app:1",
      `app@${manifest.digest}`,
      id,
      id.slice(7),
      id.slice(7, 15),
      id.slice(0, 20),
      manifest.digest,
    ];
    for (const spelling of spellings) {
      expect((await stores.images.get(spelling)).id).toBe(id);
      expect((await stores.images.resolve(spelling)).id).toBe(id);
    }
  });

  it("prefers a name to an ID prefix of the same spelling", async () => {
    const { id } = await create("app", "one");
    const named = await create(id.slice(7, 11), "two");
    expect((await stores.images.get(id.slice(7, 11))).id).toBe(named.id);
    expect((await stores.images.get(`sha256:${id.slice(7, 11)}`)).id).toBe(id);
  });

  it("lists the candidates of an ambiguous prefix", async () => {
    const ids: Digest[] = [];
    const first = new Map<string, Digest>();
    let pair: [Digest, Digest] | undefined;
    for (let n = 0; pair === undefined; n++) {
      const { id } = await create(`app:${n}`, `text ${n}`);
      ids.push(id);
      const other = first.get(id[7]!);
      if (other !== undefined) pair = [other, id];
      first.set(id[7]!, id);
    }
    const error = await stores.images
      .get(`sha256:${pair[0][7]}`)
      .catch((reason) => reason as Error);
    expect(error).toEqual(code("INVALID_ARGUMENT", pair[0]));
    expect((error as Error).message).toContain(pair[1]);
  });

  it("says what was looked for when there is none", async () => {
    await expect(stores.images.get("nope")).rejects.toThrow(
      code("NOT_FOUND", "docker.io/library/nope:latest"),
    );
    await expect(stores.images.get("sha256:00")).rejects.toThrow(code("NOT_FOUND"));
    await expect(stores.images.get("Nope")).rejects.toThrow(code("INVALID_ARGUMENT", "lower-case"));
  });
});

describe("an image with several names", () => {
  it("is one record with its names sorted", async () => {
    const { id, manifest } = await create("z:1", "one");
    expect(await stores.images.tag("z:1", "a.example/b")).toBe("a.example/b:latest");
    await stores.images.tag(id, "z:2");
    const [image, ...others] = await stores.images.list();
    expect(others).toEqual([]);
    expect(image).toMatchObject({
      id,
      repoTags: ["a.example/b:latest", "docker.io/library/z:1", "docker.io/library/z:2"],
      repoDigests: [`a.example/b@${manifest.digest}`, `docker.io/library/z@${manifest.digest}`],
    });
  });

  it("is found through a digest reference that has no tag", async () => {
    const layout = new Layout();
    const manifest = await layout.image();
    await put(layout);
    const record = await stores.images.create(`app@${manifest.digest}`, manifest);
    expect(record.repoTags).toEqual([]);
    expect(record.repoDigests).toEqual([`docker.io/library/app@${manifest.digest}`]);
  });

  it("can also be an index and a manifest of the same config", async () => {
    const layout = new Layout();
    const manifest = await layout.image();
    const index = layout.index([manifest]);
    await put(layout);
    await stores.images.create("app:index", index);
    await stores.images.create("app:manifest", manifest);
    const [image] = await stores.images.list();
    expect(image?.repoTags).toHaveLength(2);
    expect(image?.repoDigests).toHaveLength(2);
  });

  it("cannot be tagged with a digest, or by a name that is not there", async () => {
    const { manifest } = await create("app", "one");
    const { images } = stores;
    await expect(images.tag("app", `b@${manifest.digest}`)).rejects.toThrow(
      code("INVALID_ARGUMENT"),
    );
    await expect(images.tag("nope", "b")).rejects.toThrow(code("NOT_FOUND"));
  });
});

describe("a record", () => {
  it("has size, platform, labels, chain and whether that is unpacked", async () => {
    const { id, manifest } = await create("app", "one", { config: { Labels: { a: "1" } } });
    const { images, database } = stores;
    const resolved = await images.resolve("app");
    const size =
      manifest.size + resolved.configBytes.length + resolved.layers.reduce((n, l) => n + l.size, 0);
    const record = await images.get("app");
    expect(record).toMatchObject({
      id,
      size,
      platform: AMD64,
      labels: { a: "1" },
      chainId: resolved.chainIds.at(-1),
      created: "2024-05-06T07:08:09Z",
      unpacked: false,
      pinned: false,
    });
    database.snapshots.insert({
      name: record.chainId!,
      kind: "committed",
      sizeBytes: 1,
      inodes: 1,
    });
    expect((await images.get("app")).unpacked).toBe(true);
  });

  it("is pinned while any of its references is", async () => {
    await create("app:1", "one");
    const { images } = stores;
    await images.tag("app:1", "app:2");
    await images.setPinned("app:2", true);
    expect((await images.get("app:1")).pinned).toBe(true);
    await images.setPinned("app:1", true);
    await images.setPinned("app:2", false);
    expect((await images.get("app:1")).pinned).toBe(true);
    await images.remove("app:1", { force: true });
    expect((await images.get("app:2")).pinned).toBe(false);
  });

  it("follows a reference that moves to another image", async () => {
    const one = await create("app", "one");
    const two = await create("app", "two");
    expect((await stores.images.get("app")).id).toBe(two.id);
    expect((await stores.images.update("app"))?.id).toBe(two.id);
    expect((await stores.images.get(one.id)).repoTags).toEqual([]);
    expect(await stores.images.update("nope")).toBeUndefined();
  });

  it("does not exist for a reference whose content is gone, which can still be removed", async () => {
    const { id } = await create("broken", "one");
    await create("fine", "two");
    await stores.content.delete(id);
    expect(await stores.images.list()).toHaveLength(1);
    await expect(stores.images.resolve("broken")).rejects.toThrow(code("NOT_FOUND", id));
    expect(await stores.images.remove("broken")).toEqual({
      untagged: ["docker.io/library/broken:latest"],
      deleted: [],
    });
  });

  it("is not created for content that is not here", async () => {
    const layout = new Layout();
    const manifest = await layout.image();
    await expect(stores.images.create("app", manifest)).rejects.toThrow(code("NOT_FOUND"));
    expect(stores.database.references.list()).toEqual([]);
  });
});

describe("listing", () => {
  beforeEach(async () => {
    await create("old:1", "a", { fields: { created: "2020-01-01T00:00:00Z" } });
    await create("quay.io/team/mid:2", "b", {
      fields: { created: "2021-01-01T00:00:00Z" },
      config: { Labels: { stage: "test", empty: "" } },
    });
    await create("new:3", "c", { fields: { created: "2022-01-01T00:00:00Z" } });
    await create(undefined, "d", { fields: { created: "2023-01-01T00:00:00Z" } });
  });

  const names = async (...filters: string[]) =>
    (await stores.images.list(filters)).map((image) => image.repoTags[0] ?? "-");

  const OLD = "docker.io/library/old:1";
  const MID = "quay.io/team/mid:2";
  const NEW = "docker.io/library/new:3";

  it("begins with the newest", async () => {
    expect(await names()).toEqual(["-", NEW, MID, OLD]);
  });

  it.each<[string[], string[]]>([
    [["dangling=true"], ["-"]],
    [["dangling=false"], [NEW, MID, OLD]],
    [["reference=old"], [OLD]],
    [["reference=old:1"], [OLD]],
    [["reference=old:2"], []],
    [["reference=*"], [NEW, OLD]],
    [["reference=*/*/*"], [NEW, MID, OLD]],
    [["reference=quay.io/*/m?d"], [MID]],
    [["reference=[no]*"], [NEW, OLD]],
    [["reference=[^o]*:*"], [NEW]],
    [
      ["reference=old", "reference=new"],
      [NEW, OLD],
    ],
    [["label=stage"], [MID]],
    [["label=stage=test", "label=empty="], [MID]],
    [["label=stage=prod"], []],
    [["label=constructor"], []],
    [["before=quay.io/team/mid:2"], [OLD]],
    [["since=quay.io/team/mid:2", "dangling=false"], [NEW]],
    [["since=old:1", "before=new:3"], [MID]],
  ])("with %j shows %j", async (filters, expected) => {
    expect(await names(...filters)).toEqual(expected);
  });

  it("refuses filters that it does not know", async () => {
    for (const filter of [
      "colour=red",
      "dangling",
      "dangling=maybe",
      "reference=[a",
      "reference=[z-a]x",
    ]) {
      await expect(stores.images.list([filter])).rejects.toThrow(code("INVALID_ARGUMENT"));
    }
    await expect(stores.images.list(["before=nope"])).rejects.toThrow(code("NOT_FOUND"));
  });
});

describe("removing", () => {
  it("takes one of several names away and the image with the last", async () => {
    const { id } = await create("app:1", "one");
    const { images } = stores;
    await images.tag("app:1", "app:2");
    expect(await images.remove("app:1")).toEqual({
      untagged: ["docker.io/library/app:1"],
      deleted: [],
    });
    expect(await images.remove("app:2")).toEqual({
      untagged: ["docker.io/library/app:2"],
      deleted: [id],
    });
    expect(await images.list()).toEqual([]);
    await stores.collectGarbage();
    expect(await leftovers(stores)).toEqual([]);
  });

  it("takes the digests of a repository away with its last tag", async () => {
    const { manifest, id } = await create("app:1", "one");
    await stores.images.create(`app@${manifest.digest}`, manifest);
    expect((await stores.images.remove("app:1")).deleted).toEqual([id]);
  });

  it("by ID wants force when there are several names", async () => {
    const { id } = await create("app:1", "one");
    await stores.images.tag("app:1", "other:1");
    await expect(stores.images.remove(id)).rejects.toThrow(code("FAILED_PRECONDITION", "other:1"));
    const removed = await stores.images.remove(id.slice(7, 19), { force: true });
    expect(removed).toEqual({
      untagged: ["docker.io/library/app:1", "docker.io/library/other:1"],
      deleted: [id],
    });
  });

  it("by ID takes the only name, or none of a dangling image", async () => {
    const { id } = await create("app:1", "one");
    expect((await stores.images.remove(id)).untagged).toEqual(["docker.io/library/app:1"]);
    const dangling = await create(undefined, "two");
    expect(await stores.images.remove(dangling.id)).toEqual({
      untagged: [],
      deleted: [dangling.id],
    });
  });

  it("is refused while a view uses the image, by the view's name", async () => {
    const { id, manifest } = await create("app", "one");
    addView(id, manifest);
    for (const name of ["app", id]) {
      await expect(stores.images.remove(name)).rejects.toThrow(code("FAILED_PRECONDITION", "work"));
    }
    await stores.images.tag("app", "app:2");
    expect((await stores.images.remove("app:2")).untagged).toEqual(["docker.io/library/app:2"]);
  });

  it("with force takes only the names from under a view; the image goes with the view", async () => {
    const { id, manifest } = await create("app", "one");
    addView(id, manifest);
    expect(await stores.images.remove("app", { force: true })).toEqual({
      untagged: ["docker.io/library/app:latest"],
      deleted: [],
    });
    await stores.collectGarbage();
    const [record] = await stores.images.list(["dangling=true"]);
    expect(record?.id).toBe(id);
    expect((await stores.images.resolveManifest(manifest.digest)).reference).toBe(id);
    expect((await stores.images.resolve(id)).id).toBe(id);
    stores.database.views.delete("work");
    await stores.collectGarbage();
    expect(await leftovers(stores)).toEqual([]);
    expect(await stores.images.list()).toEqual([]);
  });

  it("is refused for what is not there", async () => {
    await expect(stores.images.remove("nope")).rejects.toThrow(code("NOT_FOUND"));
  });
});

describe("resolving an index", () => {
  it("chooses the store's platform, else another that is here", async () => {
    const layout = new Layout();
    const amd64 = await layout.image({ platform: AMD64, layers: ["amd64"] });
    const arm64 = await layout.image({ platform: ARM64, layers: ["arm64"] });
    await put(layout);
    await stores.images.create("both", await putIndex(layout, [arm64, amd64]));
    await stores.images.create("arm", await putIndex(layout, [arm64]));
    expect((await stores.images.resolve("both")).platform).toEqual(AMD64);
    expect((await stores.images.resolve("both", "linux/arm64")).platform).toEqual(ARM64);
    expect((await stores.images.resolve("arm")).platform).toEqual(ARM64);
    await expect(stores.images.resolve("arm", "linux/amd64")).rejects.toThrow(
      code("NOT_FOUND", "linux/arm64"),
    );
    await expect(stores.images.resolve("both", "linux/??")).rejects.toThrow(
      code("INVALID_ARGUMENT"),
    );
  });

  async function putIndex(layout: Layout, manifests: Described[]): Promise<Described> {
    const index = layout.index(manifests);
    await put(layout);
    return index;
  }

  it("reads the platform from the config where the index does not tell", async () => {
    const layout = new Layout();
    const bare = async (platform: typeof AMD64, text: string) => {
      const { platform: _, ...rest } = await layout.image({ platform, layers: [text] });
      return rest as Described;
    };
    const index = await putIndex(layout, [await bare(ARM64, "a"), await bare(AMD64, "b")]);
    await stores.images.create("app", index);
    expect((await stores.images.resolve("app")).platform).toEqual(AMD64);
  });

  it("refuses a plain manifest of another platform than was asked for", async () => {
    await create("app", "one", { platform: ARM64 });
    expect((await stores.images.resolve("app")).platform).toEqual(ARM64);
    await expect(stores.images.resolve("app", "linux/amd64")).rejects.toThrow(code("NOT_FOUND"));
  });

  it("gives up on indexes in indexes without end", async () => {
    const layout = new Layout();
    let index = layout.index([await layout.image()]);
    for (let depth = 0; depth < 10; depth++) index = layout.index([index]);
    await put(layout);
    await expect(stores.images.create("deep", index)).rejects.toThrow(code("UNSUPPORTED", "deep"));
  });
});
