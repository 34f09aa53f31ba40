/** Descriptors: what a manifest, an index or a reference says about the blob it points to. */

import type { Digest } from "./digest.js";

/**
 * A pointer to content.
 *
 * @see OCI image-spec descriptor.md
 */
export type Descriptor = {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: DescriptorPlatform;
  readonly artifactType?: string;
  /** The content itself, base64. */
  readonly data?: string;
};

/** The platform of a manifest, as an index states it. */
export type DescriptorPlatform = {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly "os.version"?: string;
  readonly "os.features"?: readonly string[];
};
