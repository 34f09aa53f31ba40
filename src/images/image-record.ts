/** What the image store answers. */

import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import type { ImageConfig, ImageManifest } from "./manifest.js";
import type { Platform } from "./platform.js";

/** One image: everything that shares a config digest, with all its names merged. */
export type ImageRecord = {
  /** The digest of the config. */
  readonly id: Digest;
  /** Normalised "docker.io/library/busybox:latest", sorted. */
  readonly repoTags: readonly string[];
  /** "docker.io/library/busybox@sha256:…", sorted. */
  readonly repoDigests: readonly string[];
  /** The digest of the target: manifest or index. */
  readonly digest: Digest;
  /** The digest of the store's platform's manifest; the target's when that is a manifest. */
  readonly manifestDigest: Digest;
  /** The target's media type. */
  readonly mediaType: string;
  /** RFC 3339, as the config says. */
  readonly created?: string;
  /** Compressed bytes of manifest, config and layers. */
  readonly size: number;
  readonly platform: Platform;
  /** Absent for an image without layers. */
  readonly chainId?: Digest;
  /** True when the top snapshot is there, or none is needed. */
  readonly unpacked: boolean;
  /** The config's labels. */
  readonly labels: Readonly<Record<string, string>>;
  /** Who runs in it, as the config says: "name", "uid", "name:group" …; empty for root. */
  readonly user: string;
  /** True while any of its references is pinned. */
  readonly pinned: boolean;
  /** Its references as the store knows them, sorted; none for an image that only a view keeps. */
  readonly references: readonly string[];
  /** The pinned ones of them. */
  readonly pinnedReferences: readonly string[];
  /** What they point to. */
  readonly targets: readonly Digest[];
  /** When the latest of them came to the image, in nanoseconds since 1970. */
  readonly arrivedNs: bigint;
  /** When it came here or was last worked with, in nanoseconds since 1970. */
  readonly lastUsedNs: bigint;
};

/** One platform of an image: everything needed to unpack it, mount it, commit on it or save it. */
export type ResolvedImage = {
  /** The normalised reference when it was asked for by one, else the image ID. */
  readonly reference: string;
  readonly id: Digest;
  readonly target: ReferenceTarget;
  readonly manifestDescriptor: Descriptor;
  readonly manifest: ImageManifest;
  readonly manifestBytes: Buffer;
  readonly configDescriptor: Descriptor;
  readonly config: ImageConfig;
  readonly configBytes: Buffer;
  /** Parallel to `diffIds` and `chainIds`, base first. */
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly Digest[];
  readonly chainIds: readonly Digest[];
  readonly platform: Platform;
};

/** What a removal did. */
export type RemovedImage = {
  /** References that are gone. */
  readonly untagged: string[];
  /** The image's ID, when nothing names or uses it any more; content goes at the next collection. */
  readonly deleted: Digest[];
};

/** One step of long work on one object; the same id comes again with new figures. */
export type ProgressEvent = {
  /** What it is about: a digest or a reference. */
  readonly id: string;
  /** loading | verifying | writing | done | exists */
  readonly action: string;
  /** Bytes. */
  readonly current: number;
  /** Bytes; 0 when unknown. */
  readonly total: number;
};
