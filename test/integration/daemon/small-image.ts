/** An OCI image layout with a busybox, written by hand so that no code of ours made it. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";

const sha256 = (data: Buffer | string) => createHash("sha256").update(data).digest("hex");

interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

class Layout {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
    mkdirSync(path.join(directory, "blobs/sha256"), { recursive: true });
    this.#write("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  }

  blob(mediaType: string, data: Buffer | string): Blob {
    const hex = sha256(data);
    this.#write(`blobs/sha256/${hex}`, data);
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(data) };
  }

  index(manifest: Blob, reference: string): void {
    const annotations = {
      "org.opencontainers.image.ref.name": "latest",
      "io.containerd.image.name": reference,
    };
    const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
    this.#write("index.json", JSON.stringify(index));
  }

  #write(name: string, data: Buffer | string): void {
    writeFileSync(path.join(this.directory, name), data);
  }
}

function layerTar(tree: string): Buffer {
  return execFileSync(
    "tar",
    ["--sort=name", "--numeric-owner", "--mtime=@1700000000", "-C", tree, "-cf", "-", "."],
    { maxBuffer: 1 << 30 },
  );
}

function baseTree(tree: string): void {
  for (const name of ["bin", "etc", "tmp", "data/deep/er", "root"]) {
    mkdirSync(path.join(tree, name), { recursive: true });
  }
  copyFileSync("/bin/busybox", path.join(tree, "bin/busybox"));
  chmodSync(path.join(tree, "bin/busybox"), 0o755);
  for (const applet of ["sh", "cat", "ls", "rm", "mv", "mkdir", "ln", "stat"]) {
    symlinkSync("busybox", path.join(tree, "bin", applet));
  }
  writeFileSync(path.join(tree, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  writeFileSync(path.join(tree, "data/file"), "base\n");
  linkSync(path.join(tree, "data/file"), path.join(tree, "data/link"));
  writeFileSync(path.join(tree, "data/deep/er/x"), "x\n");
  chmodSync(path.join(tree, "tmp"), 0o1777);
}

function topTree(tree: string): void {
  mkdirSync(path.join(tree, "data"), { recursive: true });
  writeFileSync(path.join(tree, "data/top"), "top\n");
}

/**
 * Writes a layout into `directory`.
 *
 * @param more trees of further layers
 * @returns the directory
 */
export function makeLayout(
  directory: string,
  reference = "docker.io/library/small:latest",
  ...more: ((tree: string) => void)[]
): string {
  const layout = new Layout(directory);
  const layers: Blob[] = [];
  const diffIds: string[] = [];
  for (const fill of [baseTree, topTree, ...more]) {
    const tree = path.join(directory, "tree");
    mkdirSync(tree);
    fill(tree);
    const tar = layerTar(tree);
    rmSync(tree, { recursive: true });
    diffIds.push(`sha256:${sha256(tar)}`);
    const gzip = execFileSync("gzip", ["-n"], { input: tar, maxBuffer: 1 << 30 });
    layers.push(layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip));
  }
  const config = {
    os: "linux",
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    created: "2023-11-14T22:13:20Z",
    config: { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: diffIds },
    history: diffIds.map((_, position) => ({ created_by: `layer ${position}` })),
  };
  const configBlob = layout.blob(
    "application/vnd.oci.image.config.v1+json",
    JSON.stringify(config),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: configBlob,
    layers,
  };
  layout.index(layout.blob(manifest.mediaType, JSON.stringify(manifest)), reference);
  return directory;
}
