/** What of an image goes to a registry, and in which order. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import { NotFoundError } from "../system/errors.js";
import { isComplete, readManifest } from "./image-graph.js";
import type { ImageStore } from "./image-store.js";
import { MAX_MANIFEST_BYTES } from "./limits.js";
import { parseIndex } from "./manifest.js";
import { isForeignLayerType, isIndexType, isManifestType } from "./media-types.js";
import { formatPlatform } from "./platform.js";

/** What is to be sent. */
export interface PushPlan {
  /** Configs and layers, each once; without layers that may not be distributed. */
  readonly blobs: readonly Descriptor[];
  /** Manifests and indexes, children before those that list them; the last is the target. */
  readonly manifests: readonly Descriptor[];
  /** Manifests of an index that are not complete here: the registry must have them already. */
  readonly absent: readonly Descriptor[];
  readonly target: ReferenceTarget;
  /** Set when only a part of the image goes, for a person. */
  readonly notice?: string;
}

/**
 * Plans a push. An index goes whole when all of it is here; otherwise the manifest of one platform
 * goes in its stead, unless all platforms are asked for.
 *
 * @throws NotFoundError no such image or platform, or content of it is not here
 */
export async function planPush(
  images: ImageStore,
  reference: string,
  o: { platform: string; allPlatforms: boolean },
): Promise<PushPlan> {
  const image = await images.resolve(reference, o.platform);
  const tree = new Tree(images.content);
  if (o.platform === "") {
    await tree.add(image.target);
    const isIndex = isIndexType(image.target.mediaType);
    if (isIndex && (tree.absent.size === 0 || o.allPlatforms)) return tree.plan(image.target);
    if (!isIndex && tree.absent.size === 0) return tree.plan(image.target);
  }
  const { mediaType, digest, size } = image.manifestDescriptor;
  const single = { mediaType, digest, size };
  const part = new Tree(images.content);
  await part.add(single);
  if (part.absent.size > 0) {
    throw new NotFoundError(`push ${reference}: not all of its layers are here; pull it again`);
  }
  const isPart = digest !== image.target.digest && o.platform === "";
  const notice =
    `only ${formatPlatform(image.platform)} of a multi-platform image is here and was pushed; ` +
    "pull with --all-platforms to push the whole";
  return { ...part.plan(single), ...(isPart ? { notice } : {}) };
}

class Tree {
  readonly #content: ContentStore;
  readonly #blobs = new Map<Digest, Descriptor>();
  readonly #manifests = new Map<Digest, Descriptor>();
  readonly absent = new Map<Digest, Descriptor>();

  constructor(content: ContentStore) {
    this.#content = content;
  }

  async add(descriptor: Descriptor): Promise<void> {
    const { digest, mediaType } = descriptor;
    if (this.#manifests.has(digest)) return;
    if (!this.#content.has(digest)) {
      this.absent.set(digest, descriptor);
      return;
    }
    if (isIndexType(mediaType)) {
      const data = await this.#content.readBlob(digest, MAX_MANIFEST_BYTES);
      for (const child of parseIndex(data, mediaType, `index ${digest}`).manifests) {
        await this.add(child);
      }
    } else if (isManifestType(mediaType)) {
      if (!(await isComplete(this.#content, descriptor))) {
        this.absent.set(digest, descriptor);
        return;
      }
      const manifest = await readManifest(this.#content, descriptor);
      for (const blob of [manifest.config, ...manifest.layers]) {
        // Their licence forbids it; whoever pulls has them from their own addresses, too.
        if (isForeignLayerType(blob.mediaType) && (blob.urls ?? []).length > 0) continue;
        this.#blobs.set(blob.digest, blob);
      }
    }
    this.#manifests.set(digest, descriptor);
  }

  plan(target: ReferenceTarget): PushPlan {
    const { mediaType, digest, size } = target;
    return {
      blobs: [...this.#blobs.values()],
      manifests: [...this.#manifests.values()],
      absent: [...this.absent.values()],
      target: { mediaType, digest, size },
    };
  }
}
