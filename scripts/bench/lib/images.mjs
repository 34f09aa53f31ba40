/** The images that the benchmarks run on, made from Debian packages; nothing is downloaded from a registry of images. */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { project } from "./daemon.mjs";
import { must } from "./measure.mjs";

const TAG = "bench";

/** The image's name once varve, podman or containerd has loaded it. */
export const IMAGE = `docker.io/library/bench:${TAG}`;

/**
 * An OCI layout with one image, tagged "bench" (see IMAGE).
 *
 * @param {import("./workspace.mjs").Workspace} workspace
 * @param {string} image "busybox", "debian" or "large"
 * @param {number} layers how many layers it shall have at least; thin ones are added
 * @param {(opened: object) => void} [extend] adds layers of its own, with `addLayer`
 * @returns {{layout: string, tag: string, blobs: string[], manifest: object, config: object}} `blobs`: paths of the layers, base first
 */
export function benchImage(workspace, image, layers = 1, extend = () => {}) {
  const layout = workspace.path(`image-${image}`);
  const maker =
    image === "large"
      ? ["scripts/bench/make-large-image", "-o", layout]
      : ["scripts/make-image", "--image", image, "-o", layout];
  must(["bash", path.join(project, maker[0]), ...maker.slice(1)], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const opened = openLayout(layout);
  extend(opened);
  for (let i = opened.manifest.layers.length; i < layers; i++) addThinLayer(workspace, opened, i);
  return closeLayout(opened);
}

function openLayout(layout) {
  const index = JSON.parse(readFileSync(path.join(layout, "index.json"), "utf8"));
  const manifest = JSON.parse(readFileSync(blobPath(layout, index.manifests[0].digest), "utf8"));
  return {
    layout,
    manifest,
    entry: index.manifests[0],
    config: JSON.parse(readFileSync(blobPath(layout, manifest.config.digest), "utf8")),
  };
}

function closeLayout({ layout, manifest, entry, config }) {
  manifest.config = { ...manifest.config, ...putJson(layout, config) };
  const annotations = {
    "org.opencontainers.image.ref.name": TAG,
    "io.containerd.image.name": `docker.io/library/bench:${TAG}`,
  };
  const descriptor = { ...entry, ...putJson(layout, manifest), annotations };
  writeFileSync(
    path.join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }),
  );
  return {
    layout,
    tag: TAG,
    blobs: manifest.layers.map((layer) => blobPath(layout, layer.digest)),
    manifest,
    config,
  };
}

/** A layer as a Dockerfile's small steps make them: some files in directories that every image has, now and then a deletion. */
function addThinLayer(workspace, opened, number) {
  const tree = workspace.makeDir("thin-layer");
  for (const dir of [
    "etc",
    "usr/bin",
    "usr/lib",
    "usr/share/doc",
    "var/lib",
    `opt/step-${number}`,
  ]) {
    mkdirSync(path.join(tree, dir), { recursive: true });
    for (let i = 0; i < 4; i++)
      writeFileSync(
        path.join(tree, dir, `step-${number}-${i}`),
        `step ${number} file ${i} of ${dir}\n`.repeat(20),
      );
  }
  if (number > 10 && number % 5 === 0)
    writeFileSync(path.join(tree, `etc/.wh.step-${number - 5}-0`), "");
  addLayer(workspace, opened, tree, `step ${number}`, ["--mtime=@1750000000"], true);
  workspace.remove(tree);
}

/**
 * Adds a layer with the content of a directory, whose files belong to root, to an opened image.
 *
 * @param {string[]} tarOptions of GNU tar, beside --create
 * @param {boolean} compress with gzip
 */
export function addLayer(workspace, opened, tree, createdBy, tarOptions = [], compress = false) {
  const { layout, manifest, config } = opened;
  let file = workspace.path("added-layer.tar");
  const owner = ["--numeric-owner", "--owner=0", "--group=0"];
  must(["tar", "-C", tree, "--sort=name", ...owner, ...tarOptions, "-cf", file, "."]);
  config.rootfs.diff_ids.push(digestOf(file));
  if (compress) {
    must(["gzip", "-n", "-f", "-6", file]);
    file = `${file}.gz`;
  }
  const mediaType = `application/vnd.oci.image.layer.v1.tar${compress ? "+gzip" : ""}`;
  const digest = digestOf(file);
  manifest.layers.push({ mediaType, digest, size: statSync(file).size });
  renameSync(file, blobPath(layout, digest));
  config.history?.push({ created: "2025-06-15T15:06:40Z", created_by: createdBy });
}

/** The digest of a file, which may be larger than a Buffer can be. */
const digestOf = (file) => `sha256:${must(["sha256sum", file]).slice(0, 64)}`;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const putJson = (layout, value) => putBlob(layout, Buffer.from(JSON.stringify(value)));

function putBlob(layout, bytes) {
  const digest = `sha256:${sha256(bytes)}`;
  const target = blobPath(layout, digest);
  // A new file: layouts may share their blobs with the cache through hard links.
  if (!existsSync(target)) writeFileSync(target, bytes);
  return { digest, size: bytes.length };
}

function blobPath(layout, digest) {
  return path.join(layout, "blobs", digest.replace(":", "/"));
}
