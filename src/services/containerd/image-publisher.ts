/**
 * Makes images of ours known to a containerd, so that it can run what our image service pulled.
 *
 * containerd gets the documents (index, manifest, config), the names, and a snapshot for each layer; the
 * layers' blobs stay here, as when containerd is told to discard those that it has unpacked. The
 * snapshots are asked for as containerd's own unpacking asks for them, whereupon our snapshotter offers
 * what it has (see views/proxy-shared-chains.ts). The CRI plugin learns of the image by containerd's events.
 */

import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import type { ContentStore } from "../../content/content-store.js";
import type { Descriptor } from "../../content/descriptor.js";
import type { Digest } from "../../content/digest.js";
import { ReferenceReader } from "../../images/image-graph.js";
import type { ImageRecord, ResolvedImage } from "../../images/image-record.js";
import type { ImageStore } from "../../images/image-store.js";
import { isIndexType, OCI_MANIFEST } from "../../images/media-types.js";
import type { Labels } from "../../metadata/labels.js";
import { AlreadyExistsError } from "../../system/errors.js";
import { CHAIN_LABEL } from "../../views/proxy-shared-chains.js";
import type { Mount } from "../gen/containerd/types/mount_pb.js";
import { applyToSnapshot, type Unpacking } from "./apply-layer.js";
import type { ContainerdClient, Scope } from "./containerd-client.js";

/** What the publisher works with. */
export interface PublisherParts extends Unpacking {
  readonly containerd: ContainerdClient;
  readonly content: ContentStore;
  readonly images: ImageStore;
}

/** Where containerd's CRI plugin keeps everything. */
const SCOPE: Scope = { namespace: "k8s.io" };
/** What containerd's configuration has to call our snapshotter. */
const SNAPSHOTTER = "varve";
/** The CRI plugin's mark on images that it takes note of. */
const MANAGED: Labels = { "io.cri-containerd.image": "managed" };
const CONTENT_REF = "containerd.io/gc.ref.content";
const SNAPSHOT_REF = `containerd.io/gc.ref.snapshot.${SNAPSHOTTER}`;

/** Keeps one containerd informed. */
export class ImagePublisher {
  readonly #parts: PublisherParts;
  readonly #reader: ReferenceReader;

  constructor(parts: PublisherParts) {
    this.#parts = parts;
    this.#reader = new ReferenceReader(parts.content);
  }

  /**
   * Publishes an image, unpacked, under its ID and all its names. Doing it again is fine.
   *
   * @throws UnavailableError containerd does not answer
   */
  async publish(id: Digest, signal: AbortSignal): Promise<void> {
    const { containerd, images } = this.#parts;
    const image = await images.resolve(id);
    const { repoTags, repoDigests } = await images.get(id);
    const names = [...repoTags, ...repoDigests];
    const targets = new Map(names.map((name) => [name, this.#targetOf(name)]));
    targets.set(id, image.manifestDescriptor);
    await containerd.withLease(SCOPE, async (scope) => {
      for (const position of image.layers.keys()) {
        await this.#publishLayer(scope, image, position, signal);
      }
      for (const { digest } of targets.values()) {
        await this.#publishDocuments(scope, image, digest, signal);
      }
      for (const [name, target] of targets) {
        await containerd.putImage(scope, name, target, MANAGED);
      }
    });
  }

  /** Takes an image's ID and all its names away. @throws UnavailableError containerd does not answer */
  async withdraw({ id, repoTags, repoDigests }: ImageRecord): Promise<void> {
    for (const name of [...repoTags, ...repoDigests]) {
      await this.#parts.containerd.deleteImage(SCOPE, name, { sync: false });
    }
    // As the CRI plugin does: who removes images wants the room now.
    await this.#parts.containerd.deleteImage(SCOPE, id, { sync: true });
  }

  #targetOf(name: string): Descriptor {
    const { images, content } = this.#parts;
    const row = images.database.references.get(name);
    if (row !== undefined) return row.target;
    // The digest of a tag's target.
    const digest = name.slice(name.indexOf("@") + 1) as Digest;
    const { size, mediaType = OCI_MANIFEST } = content.info(digest);
    return { digest, size, mediaType };
  }

  /**
   * A document and, before it, what it names: by the content store's labels parents keep their children.
   * Manifests of other platforms are left out.
   */
  async #publishDocuments(
    scope: Scope,
    image: ResolvedImage,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<void> {
    const { containerd, content } = this.#parts;
    const children = this.#reader
      .read(digest)
      .blobs.filter((child) => content.has(child) && this.#isDocument(child, image));
    for (const child of children) await this.#publishDocuments(scope, image, child, signal);
    const labels: Record<string, string> = Object.fromEntries(
      children.map((child, position) => [`${CONTENT_REF}.${position}`, child]),
    );
    const top = image.chainIds.at(-1);
    if (digest === image.id && top !== undefined) labels[SNAPSHOT_REF] = top;
    const data = createReadStream(content.path(digest));
    const { size } = content.info(digest);
    await containerd.writeContent(scope, { digest, size, labels, data }, signal);
  }

  #isDocument(digest: Digest, { id, manifestDescriptor }: ResolvedImage): boolean {
    if (digest === id || digest === manifestDescriptor.digest) return true;
    return isIndexType(this.#parts.content.info(digest).mediaType ?? "");
  }

  async #publishLayer(
    scope: Scope,
    image: ResolvedImage,
    position: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { containerd } = this.#parts;
    const chainId = image.chainIds[position]!;
    const parent = image.chainIds[position - 1] ?? "";
    const labels = { [CHAIN_LABEL]: chainId };
    const snapshot = { snapshotter: SNAPSHOTTER, key: `extract-${randomUUID()} ${chainId}` };
    let mounts: Mount[];
    try {
      mounts = await containerd.prepareSnapshot(scope, { ...snapshot, parent, labels });
    } catch (error) {
      if (error instanceof AlreadyExistsError) return;
      throw error;
    }
    // containerd has unpacked a layer below by itself: ours does not fit on it.
    try {
      await this.#unpackLayer(image, position, mounts, signal);
      await containerd.commitSnapshot(scope, { ...snapshot, name: chainId, labels });
    } catch (error) {
      await containerd.removeSnapshot(scope, snapshot).catch(() => undefined);
      throw error;
    }
  }

  async #unpackLayer(
    { layers, diffIds }: ResolvedImage,
    position: number,
    mounts: readonly Mount[],
    signal: AbortSignal,
  ): Promise<void> {
    const { digest, mediaType } = layers[position]!;
    const diffId = diffIds[position]!;
    const path = this.#parts.content.path(digest);
    await applyToSnapshot(this.#parts, { mounts, mediaType, syncFs: false, signal }, (work) =>
      work({ path, mediaType, digest, diffId }),
    );
  }
}
