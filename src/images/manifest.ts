/**
 * Manifests, indexes and configs: parsing and checking what comes from outside.
 *
 * Parsed values carry the fields that varve reads, and in `json` every field of the original, so
 * that what is rewritten (a commit) keeps what varve does not know.
 */

import * as v from "valibot";
import type { Descriptor } from "../content/descriptor.js";
import { chainIdsOf, type Digest, isDigest } from "../content/digest.js";
import { CorruptDataError, UnsupportedError } from "../system/errors.js";
import { MAX_INDEX_MANIFESTS, MAX_LAYERS } from "./limits.js";
import {
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  DOCKER_SCHEMA1_PREFIX,
  isConfigType,
  isIndexType,
  isManifestType,
  layerCompression,
  OCI_INDEX,
  OCI_MANIFEST,
} from "./media-types.js";
import { hostPlatform } from "./platform.js";

/** Any JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** A manifest of one platform. */
export type ImageManifest = {
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly json: JsonObject;
};

/** An index (OCI) or manifest list (docker). */
export type ImageIndex = {
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly json: JsonObject;
};

// Go writes absent maps, slices and strings as null; to us null is absent.
const text = v.nullish(v.string());
const texts = v.nullish(v.array(v.string()));
const stringMap = v.nullish(v.record(v.string(), v.string()));
const objectMap = v.nullish(v.record(v.string(), v.unknown()));

const containerConfigSchema = v.object({
  User: text,
  ExposedPorts: objectMap,
  Env: texts,
  // Images from docker before 1.10 have a bare string here.
  Entrypoint: v.nullish(v.union([v.array(v.string()), v.string()])),
  Cmd: v.nullish(v.union([v.array(v.string()), v.string()])),
  Volumes: objectMap,
  WorkingDir: text,
  Labels: stringMap,
  StopSignal: text,
  Healthcheck: objectMap,
  OnBuild: texts,
  Shell: texts,
});

/** What a process started from the image gets; docker's names. Absent fields are not set. */
export type ContainerConfig = {
  readonly User?: string;
  readonly ExposedPorts?: JsonObject;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Volumes?: JsonObject;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly StopSignal?: string;
  readonly Healthcheck?: JsonObject;
  readonly OnBuild?: readonly string[];
  readonly Shell?: readonly string[];
};

/** One step of an image's history, oldest first in the config. */
export type HistoryEntry = {
  /** RFC 3339. */
  readonly created?: string;
  readonly created_by?: string;
  readonly author?: string;
  readonly comment?: string;
  readonly empty_layer?: boolean;
};

/** An image's config. */
export type ImageConfig = {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  /** RFC 3339. */
  readonly created?: string;
  readonly author?: string;
  readonly config: ContainerConfig;
  /** Base first. */
  readonly diffIds: readonly Digest[];
  readonly history: readonly HistoryEntry[];
  readonly json: JsonObject;
};

const digestSchema = v.custom<Digest>(
  (value) => typeof value === "string" && isDigest(value),
  "not a sha256 digest",
);

const descriptorSchema = v.looseObject({
  mediaType: v.string(),
  digest: digestSchema,
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  urls: v.nullish(v.array(v.string())),
  annotations: stringMap,
  platform: v.nullish(v.looseObject({ os: v.string(), architecture: v.string(), variant: text })),
});

const manifestSchema = v.object({
  schemaVersion: v.literal(2),
  mediaType: text,
  config: descriptorSchema,
  layers: v.pipe(
    v.nullish(v.array(descriptorSchema), []),
    v.transform((layers) => layers ?? []),
    v.maxLength(MAX_LAYERS),
  ),
  annotations: stringMap,
});

const indexSchema = v.object({
  schemaVersion: v.literal(2),
  mediaType: text,
  manifests: v.pipe(
    v.nullish(v.array(descriptorSchema), []),
    v.transform((manifests) => manifests ?? []),
    v.maxLength(MAX_INDEX_MANIFESTS),
  ),
  annotations: stringMap,
});

const configSchema = v.object({
  os: text,
  architecture: text,
  variant: text,
  created: text,
  author: text,
  config: v.nullish(containerConfigSchema),
  rootfs: v.object({
    type: v.literal("layers"),
    diff_ids: v.pipe(
      v.nullish(v.array(digestSchema), []),
      v.transform((ids) => ids ?? []),
      v.maxLength(MAX_LAYERS),
    ),
  }),
  history: v.nullish(
    v.array(
      v.object({
        created: text,
        created_by: text,
        author: text,
        comment: text,
        empty_layer: v.nullish(v.boolean()),
      }),
    ),
  ),
});

/**
 * Parses a JSON object.
 *
 * @param what names the blob or file in errors
 * @throws CorruptDataError no JSON object
 */
export function parseJsonObject(data: Uint8Array | string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(typeof data === "string" ? data : Buffer.from(data).toString("utf8"));
  } catch (error) {
    throw new CorruptDataError(`${what}: not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as JsonObject;
  }
  throw new CorruptDataError(`${what}: not a JSON object`);
}

/**
 * Parses a manifest.
 *
 * @param mediaType as the descriptor or registry says
 * @throws CorruptDataError malformed
 * @throws UnsupportedError docker schema 1
 */
export function parseManifest(data: Uint8Array, mediaType: string, what: string): ImageManifest {
  const json = parseJsonObject(data, what);
  const type = documentType(json, mediaType, what);
  if (!isManifestType(type)) throw unexpectedType(type, "a manifest", what);
  if (json.manifests !== undefined) {
    // Both lists in one document mean different things to different tools.
    throw new CorruptDataError(`${what}: a manifest must not have "manifests"`);
  }
  const parsed = check(manifestSchema, json, what);
  return {
    mediaType: type,
    config: parsed.config as Descriptor,
    layers: parsed.layers as Descriptor[],
    annotations: parsed.annotations ?? {},
    json,
  };
}

/** Parses an index. @throws as `parseManifest` */
export function parseIndex(data: Uint8Array, mediaType: string, what: string): ImageIndex {
  const json = parseJsonObject(data, what);
  const type = documentType(json, mediaType, what);
  if (!isIndexType(type)) throw unexpectedType(type, "an index", what);
  if (json.layers !== undefined || json.config !== undefined) {
    throw new CorruptDataError(`${what}: an index must not have "config" or "layers"`);
  }
  const parsed = check(indexSchema, json, what);
  return {
    mediaType: type,
    manifests: parsed.manifests as Descriptor[],
    annotations: parsed.annotations ?? {},
    json,
  };
}

/** Parses a config. @throws CorruptDataError malformed */
export function parseConfig(data: Uint8Array, what: string): ImageConfig {
  const json = parseJsonObject(data, what);
  const { config, rootfs, history, os, architecture, ...rest } = check(configSchema, json, what);
  const { Entrypoint, Cmd, ...settings } = config ?? {};
  return {
    // Old and hand-made images may lack these; docker and containerd assume the host's.
    os: os || hostPlatform().os,
    architecture: architecture || hostPlatform().architecture,
    ...present(rest),
    config: present({ ...settings, Entrypoint: asList(Entrypoint), Cmd: asList(Cmd) }),
    diffIds: rootfs.diff_ids,
    history: (history ?? []).map(present),
    json,
  };
}

/**
 * Checks that manifest and config belong together and can be unpacked.
 *
 * @returns the chain IDs, base first
 * @throws CorruptDataError their layer counts differ
 * @throws UnsupportedError no image (some other artifact), or a layer of an unknown type
 */
export function checkImage(
  manifest: ImageManifest,
  config: ImageConfig,
  what: string,
): readonly Digest[] {
  if (manifest.layers.length !== config.diffIds.length) {
    throw new CorruptDataError(
      `${what}: the manifest has ${manifest.layers.length} layers, but its config ` +
        `${manifest.config.digest} has ${config.diffIds.length} diff IDs`,
    );
  }
  for (const layer of manifest.layers) {
    if (layerCompression(layer.mediaType) !== undefined) continue;
    throw new UnsupportedError(
      `${what}: layer ${layer.digest} has the unknown media type ${JSON.stringify(layer.mediaType)}`,
    );
  }
  return chainIdsOf(config.diffIds);
}

/** @throws UnsupportedError the manifest's config is not that of an image */
export function checkConfigType(manifest: ImageManifest, what: string): void {
  if (isConfigType(manifest.config.mediaType)) return;
  throw new UnsupportedError(
    `${what}: not an image that can be unpacked; its config has the media type ` +
      JSON.stringify(manifest.config.mediaType),
  );
}

/** The document's own idea of its type goes before the descriptor's. */
function documentType(json: JsonObject, given: string, what: string): string {
  const own = typeof json.mediaType === "string" && json.mediaType !== "" ? json.mediaType : given;
  if (json.schemaVersion === 1 || own.startsWith(DOCKER_SCHEMA1_PREFIX)) {
    throw new UnsupportedError(
      `${what}: docker image manifest schema 1 is not supported (obsolete since 2017); ` +
        "push the image again with a current tool",
    );
  }
  return own;
}

function unexpectedType(type: string, wanted: string, what: string): UnsupportedError {
  return new UnsupportedError(
    `${what}: media type ${JSON.stringify(type)} is not ${wanted}; known are ` +
      `${OCI_MANIFEST}, ${DOCKER_MANIFEST}, ${OCI_INDEX} and ${DOCKER_INDEX}`,
  );
}

function check<const T extends v.GenericSchema>(
  schema: T,
  value: unknown,
  what: string,
): v.InferOutput<T> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const where = v.getDotPath(issue) ?? "the document";
  throw new CorruptDataError(`${what}: ${where}: ${issue.message}`);
}

function asList(value: string | string[] | null | undefined): string[] | undefined {
  if (value === null || value === undefined) return undefined;
  return typeof value === "string" ? ["/bin/sh", "-c", value] : value;
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], null | undefined> };

/** Drops fields that are null or undefined. */
function present<T extends object>(value: T): Present<T> {
  return Object.fromEntries(
    Object.entries(value).filter(([, field]) => field !== null && field !== undefined),
  ) as Present<T>;
}
