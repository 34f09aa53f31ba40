/** SKELETON: signatures first, bodies follow. */
import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import type { ImageConfig, ImageManifest } from "./manifest.js";
import type { Platform } from "./platform.js";

/** One image: everything that shares a config digest, with all its names merged. */
export type ImageRecord = {
  /** The config's digest. */
  readonly id: Digest;
  /** Normalised "docker.io/library/busybox:latest", sorted. */
  readonly repoTags: readonly string[];
  /** "docker.io/library/busybox@sha256:…", sorted. */
  readonly repoDigests: readonly string[];
  /** The target's digest: manifest or index. */
  readonly digest: Digest;
  readonly mediaType: string;
  /** RFC 3339, as the config says. */
  readonly created?: string;
  /** Compressed bytes of manifest, config and layers. */
  readonly size: number;
  readonly platform: Platform;
  readonly chainId?: Digest;
  /** True when the top snapshot is there. */
  readonly unpacked: boolean;
  /** The config's labels. */
  readonly labels: Readonly<Record<string, string>>;
  readonly pinned: boolean;
};

/** One platform of an image, everything needed to unpack, mount, commit on it, or save it. */
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
  /** Parallel arrays, base first. */
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly Digest[];
  readonly chainIds: readonly Digest[];
  readonly platform: Platform;
};

/** What `remove` did. */
export type RemovedImage = { readonly untagged: string[]; readonly deleted: string[] };

/** Images by reference and ID. */
export declare class ImageStore {
  readonly database: Database;
  readonly content: ContentStore;
  readonly platform: Platform;
  constructor(o: { database: Database; content: ContentStore; platform?: Platform });
  /** docker's filters "reference=GLOB" "dangling=true" "label=K[=V]" "before=REF" "since=REF". */
  list(filters?: readonly string[]): Promise<ImageRecord[]>;
  get(refOrId: string): Promise<ImageRecord>;
  resolve(refOrId: string, platform?: string): Promise<ResolvedImage>;
  /** By a view's manifest digest, whether or not a reference still names it. */
  resolveManifest(manifestDigest: Digest): Promise<ResolvedImage>;
  /** `reference` undefined: an image without a name. Replaces where the name pointed before. */
  create(
    reference: string | undefined,
    target: ReferenceTarget,
    labels?: Readonly<Record<string, string>>,
  ): Promise<ImageRecord>;
  /** @returns the normalised target */
  tag(source: string, target: string): Promise<string>;
  remove(refOrId: string, o?: { force?: boolean }): Promise<RemovedImage>;
}
