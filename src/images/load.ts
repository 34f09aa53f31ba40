import type { Digest } from "../content/digest.js";
import type { ImageStore } from "./image-store.js";

/** One step of long work on one object; the same id comes again with new figures. */
export type ProgressEvent = {
  readonly id: string;
  readonly action: string;
  readonly current: number;
  /** 0 when unknown. */
  readonly total: number;
};

/** An image that `loadImages` created; `reference` absent when the archive had no name for it. */
export type LoadedImage = {
  readonly reference?: string;
  readonly id: Digest;
  readonly digest: Digest;
};

/** SKELETON. `source`: path of a layout directory or an archive, or the archive's bytes. */
export declare function loadImages(
  images: ImageStore,
  source: string | AsyncIterable<Uint8Array>,
  options?: {
    platforms?: readonly string[];
    allPlatforms?: boolean;
    onProgress?: (event: ProgressEvent) => void;
    signal?: AbortSignal;
    /** Called at the end of a failed load, to sweep what it ingested. */
    collectGarbage?: () => Promise<unknown>;
  },
): Promise<LoadedImage[]>;
