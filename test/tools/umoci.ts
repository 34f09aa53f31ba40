/** What umoci makes of layers: the oracle of "applied by another tool". */

import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { digestOf, hexOf } from "../../src/content/digest.js";
import { readTree, type Tree } from "./tree.js";

/** umoci dates parents that it makes by the clock. */
export const KEPT_BY_UMOCI = { directoryTimes: false } as const;

/** The tree of an image with these layers (tar, base first), unpacked by umoci below `scratch`, which is emptied first. */
export function umociTree(tars: readonly Buffer[], scratch: string): Tree {
  rmSync(scratch, { recursive: true, force: true });
  const layout = path.join(scratch, "image");
  const blobs = path.join(layout, "blobs/sha256");
  mkdirSync(blobs, { recursive: true });
  const put = (mediaType: string, data: Buffer) => {
    const digest = digestOf(data);
    writeFileSync(path.join(blobs, hexOf(digest)), data);
    return { mediaType, digest, size: data.length };
  };
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const layers = tars.map((tar) => put(type("layer.v1.tar+gzip"), gzipSync(tar)));
  const json = (name: string, value: unknown) =>
    put(type(name), Buffer.from(JSON.stringify(value)));
  const config = json("config.v1+json", {
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: tars.map(digestOf) },
  });
  const manifest = json("manifest.v1+json", {
    schemaVersion: 2,
    mediaType: type("manifest.v1+json"),
    config,
    layers,
  });
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
  writeFileSync(path.join(layout, "index.json"), JSON.stringify(index));
  writeFileSync(path.join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const bundle = path.join(scratch, "bundle");
  execFileSync("umoci", ["unpack", "--image", `${layout}:latest`, bundle], { stdio: "pipe" });
  return readTree(path.join(bundle, "rootfs"), KEPT_BY_UMOCI);
}
