/** Bounds on what an image or an archive may make us do; every one is far above real images. */

/** Manifests and indexes. Registries refuse more than 4 MiB, so nothing larger can travel. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** Configs; they hold the history and the labels. containerd reads up to 8 MiB. */
export const MAX_CONFIG_BYTES = 8 * 1024 * 1024;

/** Indexes in indexes. Real ones nest once; a loop cannot be built out of digests, a tower can. */
export const MAX_INDEX_DEPTH = 8;

/** Manifests that one index, with its nested ones, may name. */
export const MAX_INDEX_MANIFESTS = 4096;

/** Layers of one image; docker stops at 127, buildkit and umoci do not. */
export const MAX_LAYERS = 4096;

/** Files in an archive: three for each layer in the oldest docker format, times many images. */
export const MAX_ARCHIVE_ENTRIES = 200_000;

/** index.json and manifest.json of an archive. */
export const MAX_ARCHIVE_INDEX_BYTES = 16 * 1024 * 1024;

/** Path and link target lengths inside an archive. */
export const MAX_ARCHIVE_PATH = 4096;
