import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { ImageRecord, ImageStore } from "./image-store.js";

/** SKELETON. */
export type HistoryLine = {
  readonly created?: string;
  readonly createdBy: string;
  readonly author: string;
  readonly comment: string;
  readonly emptyLayer: boolean;
  readonly size: number;
  readonly layerDigest?: Digest;
};
/** Newest first. */
export declare function imageHistory(
  images: ImageStore,
  refOrId: string,
): Promise<{ id: Digest; entries: HistoryLine[] }>;
export type ImageInspection = {
  readonly image: ImageRecord;
  readonly manifest: Buffer;
  readonly config: Buffer;
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly Digest[];
  readonly chainIds: readonly Digest[];
};
export declare function inspectImage(images: ImageStore, refOrId: string): Promise<ImageInspection>;
