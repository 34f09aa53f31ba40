/** What `history` and `inspect` show of an image. */

import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { ImageRecord, ResolvedImage } from "./image-record.js";
import type { ImageStore } from "./image-store.js";

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

/** The data of `inspect`. @throws as `ImageStore.resolve` */
export async function inspectImage(images: ImageStore, refOrId: string): Promise<ImageInspection> {
  const image = await images.get(refOrId);
  const resolved = await images.resolve(refOrId);
  return {
    image,
    manifest: resolved.manifestBytes,
    config: resolved.configBytes,
    layers: resolved.layers,
    diffIds: resolved.diffIds,
    chainIds: resolved.chainIds,
  };
}
