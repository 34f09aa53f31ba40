/**
 * Unpacks a layer, indexes it, changes it and packs the change: layer-round PACKAGE LAYER OUT. Prints the digests of
 * both layers as JSON; OUT/fs has the tree. PACKAGE is the installed npm package.
 */

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";

const [program, layer, out] = process.argv.slice(2);
const use = (file) => import(path.join(program, "dist/layers", file));
const { applyLayer } = await use("apply.js");
const { buildIndex } = await use("index-builder.js");
const { openIndex } = await use("index-reader.js");
const { packLayer } = await use("pack.js");

const at = (name) => path.join(out, name);
for (const name of ["fs", "upper", "work/tmp", "work/index", "work/orphans"]) {
  mkdirSync(at(name), { recursive: true });
}
const { diffId, entries, impliedDirectories } = await applyLayer({
  ...{ blobPath: layer, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip" },
  ...{ targetDir: at("fs"), privileged: true },
});
buildIndex({
  ...{ chainId: diffId, fsDir: at("fs"), impliedDirectories, outputPath: at("index") },
  ...{ between: [], lowerLinks: [], layerDirs: [], isDurable: false, privileged: true },
});
writeFileSync(at("upper/text"), "one line after another\n".repeat(50_000));
symlinkSync("text", at("upper/link"));
const packed = await packLayer({
  ...{
    upperDir: at("upper"),
    workDir: at("work"),
    index: openIndex(at("index")),
    layerDirs: [at("fs")],
  },
  ...{ outputPath: at("layer"), compression: "gzip", sourceDateEpoch: 1, privileged: true },
});
const { diffId: packedDiffId, digest, size } = packed;
console.log(JSON.stringify({ diffId, entries, packedDiffId, digest, size }));
