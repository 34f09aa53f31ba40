/**
 * The config and manifest of a committed image.
 *
 * Everything here is a pure function of its input: the same base, layer and options give the same
 * bytes, hence the same digests. The clock is not read: see `commitTime`.
 */

import type { Descriptor } from "../content/descriptor.js";
import { chainIdOf, type Digest, digestOf } from "../content/digest.js";
import { InvalidArgumentError } from "../system/errors.js";
import { applyChanges } from "./change-instructions.js";
import type { ResolvedImage } from "./image-record.js";
import type { ContainerConfig, JsonObject } from "./manifest.js";
import {
  DOCKER_CONFIG,
  DOCKER_MANIFEST,
  layerCompression,
  layerTypeFor,
  OCI_CONFIG,
  OCI_MANIFEST,
} from "./media-types.js";

/** The layer that a commit packed. */
export type CommittedLayer = {
  /** Its media type may be of either flavour; the manifest gets its own. */
  readonly descriptor: {
    readonly mediaType: string;
    readonly digest: Digest;
    readonly size: number;
  };
  readonly diffId: Digest;
};

/** What a commit adds to its base. */
export type CommitOptions = {
  readonly base: ResolvedImage;
  /** Absent when nothing changed: the history entry is then an `empty_layer`. */
  readonly layer?: CommittedLayer;
  /** docker's change instructions, in order. */
  readonly changes?: readonly string[];
  /** Default: the base's. */
  readonly author?: string;
  readonly message?: string;
  /** Default: `commitTime` of the base alone. */
  readonly created?: Date;
  /** The layer holds everything: the base's layers and history are not taken over. */
  readonly isSquashed?: boolean;
  /** Leave the history out, the base's too. */
  readonly omitHistory?: boolean;
  /** Default: the base's. */
  readonly format?: "oci" | "docker";
  /** For the manifest, over the base's. */
  readonly annotations?: Readonly<Record<string, string>>;
  /** Default: "varve commit" with its changes; no name of a view, which would differ each time. */
  readonly createdBy?: string;
};

/** The new image's documents: to be written as blobs, config first. */
export type CommittedImageFiles = {
  readonly id: Digest;
  readonly configBytes: Buffer;
  readonly manifestBytes: Buffer;
  readonly configDescriptor: Descriptor;
  readonly manifestDescriptor: Descriptor;
  /** The new layer as the manifest names it; absent when there is none. */
  readonly layerDescriptor?: Descriptor;
  readonly diffIds: readonly Digest[];
  /** Absent for an image without layers. */
  readonly chainId?: Digest;
  /** What had to be assumed, one sentence each. */
  readonly warnings: readonly string[];
};

/** What docker wrote about the container that a base came from; and history, which is made anew. */
const STALE_FIELDS = ["container", "container_config", "id", "parent", "parent_id", "history"];

/**
 * Chooses `created` without a clock, so that a repeated commit is the same image: the time that was
 * asked for (SOURCE_DATE_EPOCH, seconds), else that of the newest change in the layer, else the
 * base's own time, else 1970. Whole seconds, as tar archives and other tools keep no more.
 */
export function commitTime(options: {
  readonly sourceDateEpoch?: number | undefined;
  readonly newestMtimeNs?: bigint | undefined;
  readonly base: ResolvedImage;
}): Date {
  const { sourceDateEpoch, newestMtimeNs, base } = options;
  if (sourceDateEpoch !== undefined) return validDate(sourceDateEpoch);
  if (newestMtimeNs !== undefined) return validDate(Number(newestMtimeNs / 1_000_000_000n));
  const baseMs = Date.parse(base.config.created ?? "");
  return new Date(Number.isNaN(baseMs) ? 0 : Math.floor(baseMs / 1000) * 1000);
}

function validDate(seconds: number): Date {
  const date = new Date(seconds * 1000);
  // RFC 3339 has four digits for the year.
  if (date.getTime() >= 0 && date.getUTCFullYear() <= 9999) return date;
  throw new InvalidArgumentError(`commit: ${seconds} is no time since 1970 that a config can hold`);
}

/**
 * Makes config and manifest. Unknown fields of the base's stay; the flavour (OCI or docker), where
 * none is asked for, is the base's too, except that a zstd layer needs OCI, as docker's has no type
 * for it.
 *
 * @throws InvalidArgumentError a malformed change; what docker's format cannot hold
 */
export function buildCommit(options: CommitOptions): CommittedImageFiles {
  const { layer } = options;
  const base = options.isSquashed === true ? withoutLayers(options.base) : options.base;
  const configJson = newConfig({ ...options, base });
  const configBytes = Buffer.from(JSON.stringify(configJson));
  const mediaType = manifestTypeFor(options, base);
  const isDocker = mediaType === DOCKER_MANIFEST;
  const configDescriptor: Descriptor = {
    mediaType: isDocker ? DOCKER_CONFIG : OCI_CONFIG,
    digest: digestOf(configBytes),
    size: configBytes.length,
  };
  const layers = base.layers.map((old) => inFlavour(old, mediaType));
  if (layer !== undefined) {
    const { digest, size } = layer.descriptor;
    layers.push(inFlavour({ mediaType: layer.descriptor.mediaType, digest, size }, mediaType));
  }
  // A manifest that says it is about another one (`subject`) said so of the base alone.
  const { subject: _, annotations: old, artifactType, ...rest } = base.manifest.json;
  const annotations = { ...(old as JsonObject | undefined), ...options.annotations };
  const manifest = {
    ...rest,
    schemaVersion: 2,
    mediaType,
    ...(isDocker || artifactType === undefined ? {} : { artifactType }),
    config: configDescriptor,
    layers,
    ...(isDocker || Object.keys(annotations).length === 0 ? {} : { annotations }),
  };
  const manifestBytes = Buffer.from(JSON.stringify(manifest));
  const diffIds = layer === undefined ? base.diffIds : [...base.diffIds, layer.diffId];
  const chainId = chainIdOf(diffIds);
  return {
    id: configDescriptor.digest,
    configBytes,
    manifestBytes,
    configDescriptor,
    manifestDescriptor: { mediaType, digest: digestOf(manifestBytes), size: manifestBytes.length },
    ...(layer === undefined ? {} : { layerDescriptor: layers.at(-1)! }),
    diffIds,
    ...(chainId === undefined ? {} : { chainId }),
    warnings: assumptions(base),
  };
}

/** Configs made by hand may lack these; readers then assume their own, and so does a commit. */
function assumptions({ config, id }: ResolvedImage): string[] {
  return (["architecture", "os"] as const)
    .filter((field) => !config.json[field])
    .map((field) => `image ${id} names no ${field}; assuming ${config[field]}`);
}

/** The base's settings for an image whose one layer holds everything. */
function withoutLayers(base: ResolvedImage): ResolvedImage {
  const json = { ...base.config.json, history: [] };
  return { ...base, layers: [], diffIds: [], config: { ...base.config, history: [], json } };
}

function manifestTypeFor(options: CommitOptions, base: ResolvedImage): string {
  const types = [...base.layers, ...(options.layer ? [options.layer.descriptor] : [])];
  const hasZstd = types.some(({ mediaType }) => layerCompression(mediaType) === "zstd");
  const hasAnnotations = Object.keys(options.annotations ?? {}).length > 0;
  if (options.format === undefined) {
    const isDocker = base.manifest.mediaType === DOCKER_MANIFEST && !hasZstd;
    if (!isDocker || !hasAnnotations) return isDocker ? DOCKER_MANIFEST : OCI_MANIFEST;
  } else if (options.format === "oci") {
    return OCI_MANIFEST;
  }
  const obstacle = hasZstd ? "zstd layers" : hasAnnotations ? "annotations" : undefined;
  if (obstacle === undefined) return DOCKER_MANIFEST;
  throw new InvalidArgumentError(`commit: docker's format has no ${obstacle}; choose oci`);
}

function inFlavour(layer: Descriptor, manifestType: string): Descriptor {
  const compression = layerCompression(layer.mediaType);
  // Non-distributable layers keep their type: it says where they may be pushed.
  if (compression === undefined || /foreign|nondistributable/.test(layer.mediaType)) return layer;
  return { ...layer, mediaType: layerTypeFor(compression, manifestType) };
}

function newConfig(options: CommitOptions): JsonObject {
  const { base, layer, changes = [], message } = options;
  const time = options.created ?? commitTime({ base });
  const created = time.toISOString().replace(".000Z", "Z");
  const author = options.author || base.config.author;
  const entry = {
    created,
    created_by: options.createdBy ?? ["varve commit", ...changes.map(quoteChange)].join(" "),
    ...(author ? { author } : {}),
    ...(message ? { comment: message } : {}),
    ...(layer === undefined ? { empty_layer: true } : {}),
  };
  const kept = Object.fromEntries(
    Object.entries(base.config.json).filter(([field]) => !STALE_FIELDS.includes(field)),
  );
  const { os, architecture, variant } = base.config;
  return {
    ...kept,
    created,
    ...(author ? { author } : {}),
    architecture,
    os,
    ...(variant === undefined ? {} : { variant }),
    config: changedSettings(base, changes),
    rootfs: {
      type: "layers",
      diff_ids: layer === undefined ? base.diffIds : [...base.diffIds, layer.diffId],
    },
    ...(options.omitHistory === true ? {} : { history: [...completeHistory(base), entry] }),
  };
}

/** The base's settings, unknown ones too, with the changed ones put in or taken out. */
function changedSettings(base: ResolvedImage, changes: readonly string[]): JsonObject {
  const before: ContainerConfig = base.config.config;
  const after = applyChanges(before, changes);
  const json: Record<string, unknown> = { ...(base.config.json.config as JsonObject | null) };
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const field = key as keyof ContainerConfig;
    if (after[field] === undefined) delete json[field];
    else if (after[field] !== before[field]) json[field] = after[field];
  }
  return json;
}

/** History is optional; once there is an entry for one layer, tools expect one for each. */
function completeHistory(base: ResolvedImage): unknown[] {
  const entries = Array.isArray(base.config.json.history) ? [...base.config.json.history] : [];
  const described = base.config.history.filter((entry) => entry.empty_layer !== true).length;
  for (let count = described; count < base.diffIds.length; count++) {
    entries.push({ created_by: "(unknown)" });
  }
  return entries;
}

function quoteChange(change: string): string {
  return `--change '${change.replaceAll("'", "'\\''")}'`;
}
