/** What `history` and `inspect` show of an image. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import { isComplete, listCandidates, readManifest } from "./image-graph.js";
import type { ImageRecord, ResolvedImage } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import type { Platform } from "./platform.js";

/** One step of an image's history. */
export type HistoryLine = {
  /** RFC 3339. */
  readonly created?: string;
  readonly createdBy: string;
  readonly author: string;
  readonly comment: string;
  readonly emptyLayer: boolean;
  /** Compressed bytes of the layer; 0 for an empty one. */
  readonly size: number;
  readonly layerDigest?: Digest;
};

/** An image's history, newest first. */
export type ImageHistory = { readonly id: Digest; readonly entries: readonly HistoryLine[] };

/** Everything about an image, with its stored JSON byte for byte. */
export type ImageInspection = {
  readonly image: ImageRecord;
  readonly manifest: Buffer;
  readonly config: Buffer;
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly Digest[];
  readonly chainIds: readonly Digest[];
  readonly resolved: ResolvedImage;
  /** Every layer is. */
  readonly isUnpacked: boolean;
  /** All that the target offers, in its order. */
  readonly platforms: readonly OfferedPlatform[];
};

/** One platform that a target offers. */
export type OfferedPlatform = {
  readonly platform?: Platform;
  readonly manifest: Descriptor;
  /** Absent while the manifest is not here. */
  readonly config?: Descriptor;
  /** Manifest, config and every layer are here. */
  readonly isComplete: boolean;
};

/** The history of an image. @throws as `ImageStore.resolve` */
export async function imageHistory(images: ImageStore, refOrId: string): Promise<ImageHistory> {
  const image = await images.resolve(refOrId);
  return { id: image.id, entries: historyLines(image).reverse() };
}

/** Oldest first. Layers without an entry (history is optional) get an empty one at the end. */
function historyLines(image: ResolvedImage): HistoryLine[] {
  const layers = [...image.layers];
  const lines = image.config.history.map((entry): HistoryLine => {
    const emptyLayer = entry.empty_layer ?? false;
    const layer = emptyLayer ? undefined : layers.shift();
    return {
      ...(entry.created === undefined ? {} : { created: entry.created }),
      createdBy: entry.created_by ?? "",
      author: entry.author ?? "",
      comment: entry.comment ?? "",
      emptyLayer,
      size: layer?.size ?? 0,
      ...(layer === undefined ? {} : { layerDigest: layer.digest }),
    };
  });
  const rest = layers.map((layer): HistoryLine => {
    const text = { createdBy: "", author: "", comment: "", emptyLayer: false };
    return { ...text, size: layer.size, layerDigest: layer.digest };
  });
  return [...lines, ...rest];
}

/** The data of `inspect`, of one platform of an image. @throws what reading its documents throws */
export async function inspectImage(
  images: ImageStore,
  resolved: ResolvedImage,
): Promise<ImageInspection> {
  const { content, database } = images;
  return {
    image: await images.recordOf(resolved),
    manifest: resolved.manifestBytes,
    config: resolved.configBytes,
    layers: resolved.layers,
    diffIds: resolved.diffIds,
    chainIds: resolved.chainIds,
    resolved,
    isUnpacked: resolved.chainIds.every((id) => database.snapshots.get(id) !== undefined),
    platforms: await platformsOf(content, resolved.target),
  };
}

async function platformsOf(content: ContentStore, target: Descriptor): Promise<OfferedPlatform[]> {
  const candidates = await listCandidates(content, target);
  return await Promise.all(
    candidates.map(async ({ descriptor, platform }) => {
      const isHere = content.has(descriptor.digest);
      const config = isHere ? (await readManifest(content, descriptor)).config : undefined;
      return {
        manifest: descriptor,
        ...(config === undefined ? {} : { config }),
        ...(platform === undefined ? {} : { platform }),
        isComplete: await isComplete(content, descriptor),
      };
    }),
  );
}
