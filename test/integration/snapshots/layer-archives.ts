/** Layers made with GNU tar and gzip, as another tool would make them. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Digest, digestOf, hexOf } from "../../../src/content/digest.js";
import type { LayerBlobs, LayerToUnpack } from "../../../src/snapshots/unpacker.js";

const OCI_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";

/** Blobs in a directory of their own. */
export class LayerArchives implements LayerBlobs {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = path.join(directory, "archives");
    mkdirSync(this.#directory);
  }

  has(digest: Digest): boolean {
    return statSync(this.path(digest), { throwIfNoEntry: false }) !== undefined;
  }

  path(digest: Digest): string {
    return path.join(this.#directory, hexOf(digest));
  }

  /**
   * A gzip layer with these files; a name ending in "/" is a directory. `members` are the names that
   * tar is given.
   */
  add(
    files: Readonly<Record<string, string | Buffer>>,
    members: readonly string[] = ["."],
  ): LayerToUnpack {
    const tree = mkdtempSync(path.join(this.#directory, "tree-"));
    for (const [name, content] of Object.entries(files)) {
      const file = path.join(tree, name);
      mkdirSync(name.endsWith("/") ? file : path.dirname(file), { recursive: true });
      if (!name.endsWith("/")) writeFileSync(file, content);
    }
    const options = { maxBuffer: 1 << 30 };
    const tar = execFileSync(
      "tar",
      ["--sort=name", "--numeric-owner", "-C", tree, "-cf", "-", ...members],
      options,
    );
    rmSync(tree, { recursive: true });
    return this.store(
      execFileSync("gzip", ["-n", "-1"], { ...options, input: tar }),
      digestOf(tar),
    );
  }

  /** Keeps bytes as a layer blob. */
  store(blob: Buffer, diffId: Digest): LayerToUnpack {
    const digest = digestOf(blob);
    writeFileSync(this.path(digest), blob);
    return { descriptor: { mediaType: OCI_GZIP, digest, size: blob.length }, diffId };
  }

  /** The bytes of a layer blob. */
  read(layer: LayerToUnpack): Buffer {
    return readFileSync(this.path(layer.descriptor.digest));
  }
}
