/**
 * Unpacks one layer blob and builds its index, as the daemon's worker does, in a process of its own whose
 * time and memory can be told.
 *
 *   node unpack-layer.mjs BLOB DIRECTORY
 */

import { mkdirSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { project } from "./daemon.mjs";

const load = (name) => import(pathToFileURL(path.join(project, "dist/layers", name)).href);
const { applyLayer } = await load("apply.js");
const { buildIndex } = await load("index-builder.js");

const [blobPath, directory] = process.argv.slice(2);
const targetDir = path.join(directory, "fs");
mkdirSync(targetDir, { recursive: true });
const mediaType = "application/vnd.oci.image.layer.v1.tar+gzip";
const applied = await applyLayer({ blobPath, mediaType, targetDir, privileged: true });
const outputPath = path.join(directory, "index");
buildIndex({ ...applied, chainId: "sha256:0", fsDir: targetDir, outputPath, privileged: true });
