import type { ImageStore } from "./image-store.js";
import type { ProgressEvent } from "./load.js";

/** SKELETON. */
export type SaveFormat = "oci-archive" | "docker-archive" | "oci-dir";
export type SaveOptions = {
  format: SaveFormat;
  platforms?: readonly string[];
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
};
/** Writes to a file (temporary name, fsync, rename) or, for oci-dir, a directory. */
export declare function saveImages(
  images: ImageStore,
  references: readonly string[],
  path: string,
  options: SaveOptions,
): Promise<void>;
/** The archive as chunks; not for oci-dir. */
export declare function streamImages(
  images: ImageStore,
  references: readonly string[],
  options: SaveOptions,
): AsyncIterable<Buffer>;
