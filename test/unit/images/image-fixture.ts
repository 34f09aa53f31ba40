/**
 * Images for tests, written byte by byte by this file and GNU tar, not by the code under test.
 */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { ContentStore } from "../../../src/content/content-store.js";
import type { Digest } from "../../../src/content/digest.js";
import { GarbageCollector } from "../../../src/images/garbage-collector.js";
import { ImageStore } from "../../../src/images/image-store.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import type { EventLog } from "../../../src/metadata/event-log.js";

export const OCI = "application/vnd.oci.image";
export const MANIFEST = `${OCI}.manifest.v1+json`;
export const INDEX = `${OCI}.index.v1+json`;

export type Json = Record<string, unknown>;
export type Described = { mediaType: string; digest: Digest; size: number } & Json;

export const sha256 = (data: Buffer | string) =>
  `sha256:${createHash("sha256").update(data).digest("hex")}` as Digest;

/** Everything that images need, in a temporary root. */
export type Stores = {
  readonly root: string;
  readonly database: Database;
  readonly content: ContentStore;
  readonly images: ImageStore;
  readonly collector: GarbageCollector;
  readonly collectGarbage: () => Promise<unknown>;
  close(): Promise<void>;
};

export async function openStores(events?: EventLog): Promise<Stores> {
  const root = await mkdtemp(path.join(tmpdir(), "varve-images-"));
  const database = openDatabase(path.join(root, "varve.db"));
  const content = new ContentStore(root, database);
  await content.open();
  const images = new ImageStore({
    database,
    content,
    platform: { os: "linux", architecture: "amd64" },
    ...(events === undefined ? {} : { events }),
  });
  const collector = new GarbageCollector({ database, content, discardSnapshots: async () => {} });
  return {
    root,
    database,
    content,
    images,
    collector,
    collectGarbage: () => collector.run(),
    close: async () => {
      database.close();
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** What is on disk under a store's root: must be empty after everything was removed or failed. */
export async function leftovers(stores: Stores): Promise<string[]> {
  const blobs = await readdir(path.join(stores.root, "blobs", "sha256"));
  return [...blobs, ...(await readdir(path.join(stores.root, "ingest")))];
}

/** A layer tar with one file, made by GNU tar. */
export async function layerTar(name: string, content: string): Promise<Buffer> {
  const directory = await mkdtemp(path.join(tmpdir(), "varve-layer-"));
  try {
    await mkdir(path.dirname(path.join(directory, name)), { recursive: true });
    await writeFile(path.join(directory, name), content);
    return execFileSync("tar", [
      ...["-C", directory, "--sort=name", "--mtime=@1000", "--owner=0", "--group=0"],
      ...["--numeric-owner", "-cf", "-", "."],
    ]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export type Platform = { os: string; architecture: string; variant?: string };
export const AMD64: Platform = { os: "linux", architecture: "amd64" };
export const ARM64: Platform = { os: "linux", architecture: "arm64" };

/** Blobs by digest, to be written as a layout or changed before. */
export class Layout {
  readonly blobs = new Map<Digest, Buffer>();
  readonly manifests: Described[] = [];

  add(data: Buffer | Json, mediaType: string, extra: Json = {}): Described {
    const bytes = Buffer.isBuffer(data) ? data : Buffer.from(JSON.stringify(data));
    const digest = sha256(bytes);
    this.blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length, ...extra };
  }

  /** One platform's image; its layers are gzip-compressed unless `plain`. */
  async image(
    options: {
      platform?: Platform;
      layers?: readonly string[];
      config?: Json;
      fields?: Json;
      plain?: boolean;
      manifest?: Json;
    } = {},
  ): Promise<Described> {
    const { platform = AMD64, layers = ["hello"], plain = false } = options;
    const tars = await Promise.all(layers.map((text, n) => layerTar(`file-${n}`, text)));
    const type = `${OCI}.layer.v1.tar`;
    const described = tars.map((tar) =>
      plain ? this.add(tar, type) : this.add(gzipSync(tar), `${type}+gzip`),
    );
    const config = this.add(
      {
        created: "2024-05-06T07:08:09Z",
        ...platform,
        config: options.config ?? { Cmd: ["sh"] },
        rootfs: { type: "layers", diff_ids: tars.map((tar) => sha256(tar)) },
        history: layers.map((text) => ({ created_by: `echo ${text}` })),
        ...options.fields,
      },
      `${OCI}.config.v1+json`,
    );
    const manifest = { schemaVersion: 2, mediaType: MANIFEST, config, layers: described };
    return this.add({ ...manifest, ...options.manifest }, MANIFEST, { platform });
  }

  /** An index over manifests. */
  index(manifests: readonly Described[], extra: Json = {}): Described {
    return this.add({ schemaVersion: 2, mediaType: INDEX, manifests, ...extra }, INDEX);
  }

  /** Lists a manifest or an index in index.json. */
  list(entry: Described, name?: string, key = "io.containerd.image.name"): this {
    this.manifests.push(name === undefined ? entry : { ...entry, annotations: { [key]: name } });
    return this;
  }

  async writeTo(directory: string): Promise<string> {
    await mkdir(path.join(directory, "blobs", "sha256"), { recursive: true });
    for (const [digest, data] of this.blobs) {
      await writeFile(path.join(directory, "blobs", "sha256", digest.slice(7)), data);
    }
    const index = { schemaVersion: 2, manifests: this.manifests };
    await writeFile(path.join(directory, "index.json"), JSON.stringify(index));
    await writeFile(path.join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    return directory;
  }
}

/** Packs a directory's files in the given order, with GNU tar. */
export function tarOf(directory: string, names: readonly string[] = ["."]): Buffer {
  return execFileSync("tar", ["-C", directory, "-cf", "-", ...names], { maxBuffer: 1 << 28 });
}

/** Bytes in pieces of awkward sizes, as a pipe would bring them. */
export async function* inPieces(data: Buffer, size = 1000): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}
