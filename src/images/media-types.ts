/** Media types of manifests, configs and layers, OCI's and docker's. */

/** OCI types. @see OCI image-spec media-types.md */
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
export const OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/** docker's types. @see distribution, "Image Manifest V 2, Schema 2" */
export const DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json";
export const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
export const DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
export const DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/** The media type prefix of both kinds of schema 1 manifests, which nobody can unpack any more. */
export const DOCKER_SCHEMA1_PREFIX = "application/vnd.docker.distribution.manifest.v1+";

/** How a layer's tar is compressed. */
export type LayerCompression = "none" | "gzip" | "zstd";

const LAYERS = new Map<string, LayerCompression>([
  [OCI_LAYER, "none"],
  [`${OCI_LAYER}+gzip`, "gzip"],
  [`${OCI_LAYER}+zstd`, "zstd"],
  [OCI_FOREIGN_LAYER, "none"],
  [`${OCI_FOREIGN_LAYER}+gzip`, "gzip"],
  [`${OCI_FOREIGN_LAYER}+zstd`, "zstd"],
  [DOCKER_LAYER, "none"],
  [`${DOCKER_LAYER}.gzip`, "gzip"],
  [`${DOCKER_LAYER}.zstd`, "zstd"],
  [DOCKER_FOREIGN_LAYER, "none"],
  [`${DOCKER_FOREIGN_LAYER}.gzip`, "gzip"],
]);

/** True for an OCI index or a docker manifest list. */
export function isIndexType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_INDEX;
}

/** True for an OCI manifest or a docker schema 2 manifest. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
}

/** True for the config of an image that can be run, not of some other artifact. */
export function isConfigType(mediaType: string): boolean {
  return mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
}

/**
 * True for a layer that may only be had from the addresses in its descriptor.
 *
 * @see OCI image-spec layer.md, "Non-Distributable Layers"
 */
export function isForeignLayerType(mediaType: string): boolean {
  return mediaType.startsWith(OCI_FOREIGN_LAYER) || mediaType.startsWith(DOCKER_FOREIGN_LAYER);
}

/** How a layer of this type is compressed; undefined for a type that is no layer. */
export function layerCompression(mediaType: string): LayerCompression | undefined {
  return LAYERS.get(mediaType);
}

/** The layer type of a compression, in the flavour of the manifest that will name it. */
export function layerTypeFor(compression: LayerCompression, manifestType: string): string {
  if (manifestType === DOCKER_MANIFEST) {
    return compression === "none" ? DOCKER_LAYER : `${DOCKER_LAYER}.${compression}`;
  }
  return compression === "none" ? OCI_LAYER : `${OCI_LAYER}+${compression}`;
}
