import { describe, expect, it } from "vitest";
import { digestOf } from "../../../src/content/digest.js";
import {
  checkConfigType,
  checkImage,
  parseConfig,
  parseIndex,
  parseManifest,
} from "../../../src/images/manifest.js";
import { hostPlatform } from "../../../src/images/platform.js";
import { INDEX, MANIFEST } from "./image-fixture.js";

const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const blob = (mediaType: string, text = "x") => ({ mediaType, digest: digestOf(text), size: 1 });
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const code = (value: string) => expect.objectContaining({ code: value });

const manifest = { schemaVersion: 2, config: blob(CONFIG), layers: [blob(LAYER)] };
const config = {
  os: "linux",
  architecture: "amd64",
  rootfs: { type: "layers", diff_ids: [digestOf("d")] },
};

describe("parseManifest", () => {
  it("reads a manifest, with or without its own media type, and keeps unknown fields", () => {
    const parsed = parseManifest(bytes({ ...manifest, future: 1 }), MANIFEST, "m");
    expect(parsed).toMatchObject({ mediaType: MANIFEST, json: { future: 1 } });
    const docker = "application/vnd.docker.distribution.manifest.v2+json";
    expect(parseManifest(bytes({ ...manifest, mediaType: docker }), MANIFEST, "m").mediaType).toBe(
      docker,
    );
  });

  it.each<[string, unknown, string]>([
    ["no JSON", "{", "CORRUPT_DATA"],
    ["a list", [], "CORRUPT_DATA"],
    ["an index that says it is a manifest", { ...manifest, manifests: [] }, "CORRUPT_DATA"],
    ["schema 1", { schemaVersion: 1, fsLayers: [] }, "UNSUPPORTED"],
    ["a future schema", { ...manifest, schemaVersion: 3 }, "CORRUPT_DATA"],
    ["no config", { ...manifest, config: undefined }, "CORRUPT_DATA"],
    [
      "a bad digest",
      { ...manifest, config: { ...blob(CONFIG), digest: "sha256:x" } },
      "CORRUPT_DATA",
    ],
    [
      "a digest that climbs",
      { ...manifest, config: { ...blob(CONFIG), digest: "sha256:../../etc" } },
      "CORRUPT_DATA",
    ],
    ["a negative size", { ...manifest, layers: [{ ...blob(LAYER), size: -1 }] }, "CORRUPT_DATA"],
    [
      "a size that is no integer",
      { ...manifest, layers: [{ ...blob(LAYER), size: 1e300 }] },
      "CORRUPT_DATA",
    ],
    ["too many layers", { ...manifest, layers: Array(5000).fill(blob(LAYER)) }, "CORRUPT_DATA"],
    ["an index", { schemaVersion: 2, mediaType: INDEX, manifests: [] }, "UNSUPPORTED"],
  ])("refuses %s", (_, value, expected) => {
    const data = typeof value === "string" ? Buffer.from(value) : bytes(value);
    expect(() => parseManifest(data, MANIFEST, "m")).toThrow(code(expected));
  });
});

describe("parseIndex", () => {
  it("refuses a document that is a manifest as well", () => {
    const both = { schemaVersion: 2, manifests: [], layers: [] };
    expect(() => parseIndex(bytes(both), INDEX, "i")).toThrow(code("CORRUPT_DATA"));
  });

  it("takes null for an empty list, as Go writes it", () => {
    expect(parseIndex(bytes({ schemaVersion: 2, manifests: null }), INDEX, "i").manifests).toEqual(
      [],
    );
  });
});

describe("parseConfig", () => {
  it("takes null for absent", () => {
    const parsed = parseConfig(
      bytes({ ...config, history: null, config: { Cmd: null, Env: null, User: "a" } }),
      "c",
    );
    expect(parsed.config).toEqual({ User: "a" });
    expect(parsed.history).toEqual([]);
  });

  it("assumes this machine's platform where none is named", () => {
    const { rootfs } = config;
    expect(parseConfig(bytes({ rootfs }), "c")).toMatchObject(hostPlatform());
  });

  it("reads the bare strings of very old images as shell commands", () => {
    expect(parseConfig(bytes({ ...config, config: { Cmd: "a b" } }), "c").config.Cmd).toEqual([
      "/bin/sh",
      "-c",
      "a b",
    ]);
  });

  it.each([
    ["another kind of root file system", { ...config, rootfs: { type: "base", diff_ids: [] } }],
    ["no root file system", { ...config, rootfs: undefined }],
    ["an environment that is no list", { ...config, config: { Env: "A=1" } }],
    ["a diff ID that is none", { ...config, rootfs: { type: "layers", diff_ids: ["x"] } }],
  ])("refuses %s", (_, value) => {
    expect(() => parseConfig(bytes(value), "c")).toThrow(code("CORRUPT_DATA"));
  });
});

describe("checkImage", () => {
  const parsedConfig = parseConfig(bytes(config), "c");

  it("refuses layer counts that differ", () => {
    const two = parseManifest(
      bytes({ ...manifest, layers: [blob(LAYER), blob(LAYER)] }),
      MANIFEST,
      "m",
    );
    expect(() => checkImage(two, parsedConfig, "m")).toThrow(code("CORRUPT_DATA"));
  });

  it("refuses a layer of an unknown type by that type", () => {
    const odd = parseManifest(
      bytes({ ...manifest, layers: [blob("application/x-odd")] }),
      MANIFEST,
      "m",
    );
    expect(() => checkImage(odd, parsedConfig, "m")).toThrow(/application\/x-odd/);
  });

  it("refuses an artifact that is no image", () => {
    const artifact = parseManifest(
      bytes({ ...manifest, config: blob("application/x-helm") }),
      MANIFEST,
      "m",
    );
    expect(() => checkConfigType(artifact, "m")).toThrow(code("UNSUPPORTED"));
  });
});
