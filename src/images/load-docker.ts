/**
 * Loading what `docker save` wrote without an OCI index: manifest.json names a config and plain
 * layer tars for each image. The manifest that such an archive lacks is made here, always the same
 * one for the same config and layers.
 */

import { open } from "node:fs/promises";
import * as v from "valibot";
import type { Descriptor } from "../content/descriptor.js";
import { type Digest, digestOf } from "../content/digest.js";
import { CorruptDataError, NotFoundError } from "../system/errors.js";
import type { ArchiveContents } from "./archive-intake.js";
import { sniffCompression } from "./archive-stream.js";
import { type LoadContext, throwIfAborted } from "./blob-source.js";
import { MAX_CONFIG_BYTES } from "./limits.js";
import type { PlatformChoice, PreparedImage } from "./load-oci.js";
import { type ImageConfig, parseConfig } from "./manifest.js";
import { layerTypeFor, OCI_CONFIG, OCI_MANIFEST } from "./media-types.js";
import { formatPlatform, normalizePlatform, platformRank } from "./platform.js";
import { normalizeReference } from "./reference.js";

const entrySchema = v.object({
  Config: v.string(),
  RepoTags: v.nullish(v.array(v.string())),
  Layers: v.nullish(v.array(v.string())),
});

type Entry = v.InferOutput<typeof entrySchema>;

/**
 * Makes a manifest for every image of a manifest.json.
 *
 * @throws NotFoundError a file that it names is missing; or no image for the wanted platform
 * @throws CorruptDataError malformed; or a layer that is not what the config's diff ID says
 */
export async function prepareDockerImages(
  context: LoadContext,
  archive: ArchiveContents,
  choice: PlatformChoice,
): Promise<PreparedImage[]> {
  const images: PreparedImage[] = [];
  for (const [position, value] of (archive.manifest ?? []).entries()) {
    throwIfAborted(context);
    const parsed = v.safeParse(entrySchema, value);
    if (!parsed.success) {
      const reason = parsed.issues[0].message;
      throw new CorruptDataError(`${context.what}: manifest.json, image ${position}: ${reason}`);
    }
    images.push(...(await prepareEntry(context, archive, parsed.output, choice)));
  }
  if (images.length > 0) return images;
  throw new NotFoundError(`${context.what}: manifest.json lists no images`);
}

async function prepareEntry(
  context: LoadContext,
  archive: ArchiveContents,
  entry: Entry,
  choice: PlatformChoice,
): Promise<PreparedImage[]> {
  const { content, what } = context;
  const configDigest = requireBlob(context, archive, entry.Config, "config");
  checkConfigName(context, entry.Config, configDigest);
  const config = parseConfig(
    await content.readBlob(configDigest, MAX_CONFIG_BYTES),
    `${what}: config ${entry.Config}`,
  );
  checkPlatform(context, entry, config, choice);
  const layers = await describeLayers(context, archive, entry, config);
  const target = await writeManifest(context, configDigest, layers);
  const names = (entry.RepoTags ?? []).flatMap((name) => normalizedOrNothing(name));
  return names.length === 0 ? [{ target }] : names.map((reference) => ({ reference, target }));
}

function requireBlob(
  context: LoadContext,
  archive: ArchiveContents,
  path: string,
  role: string,
): Digest {
  const digest = archive.blobAt(path.replace(/^(?:\.?\/)+/, ""));
  if (digest !== undefined) return digest;
  throw new NotFoundError(`${context.what}: ${role} ${path} is missing from the archive`);
}

/** docker names a config file by its digest; what does not have it was damaged or changed. */
function checkConfigName(context: LoadContext, path: string, actual: Digest): void {
  const hex = /^([0-9a-f]{64})\.json$/.exec(path)?.[1];
  if (hex === undefined || actual === `sha256:${hex}`) return;
  throw new CorruptDataError(
    `${context.what}: config ${path}: its content has the digest ${actual}; the archive is damaged`,
    { details: { expected: `sha256:${hex}`, actual } },
  );
}

function checkPlatform(
  context: LoadContext,
  entry: Entry,
  config: ImageConfig,
  choice: PlatformChoice,
): void {
  const { platforms, all } = choice;
  if (all || platforms.length === 0) return;
  if (platforms.some((wanted) => platformRank(wanted, config) !== undefined)) return;
  const name = entry.RepoTags?.[0] ?? entry.Config;
  throw new NotFoundError(
    `${context.what}: image ${name}: not for platform ${formatPlatform(platforms[0]!)}; it is for ` +
      formatPlatform(normalizePlatform(config)),
  );
}

async function describeLayers(
  context: LoadContext,
  archive: ArchiveContents,
  entry: Entry,
  config: ImageConfig,
): Promise<Descriptor[]> {
  const paths = entry.Layers ?? [];
  if (paths.length !== config.diffIds.length) {
    throw new CorruptDataError(
      `${context.what}: image ${entry.Config}: ${paths.length} layers, but the config has ` +
        `${config.diffIds.length} diff IDs`,
    );
  }
  const layers: Descriptor[] = [];
  for (const [position, path] of paths.entries()) {
    const digest = requireBlob(context, archive, path, "layer");
    const compression = await compressionOf(context, digest);
    const diffId = config.diffIds[position];
    // A plain tar is its own diff ID; a compressed one is checked when it is unpacked.
    if (compression === "none" && digest !== diffId) {
      throw new CorruptDataError(
        `${context.what}: layer ${path}: its content has the digest ${digest}, but the config says ` +
          `${diffId}; the archive is damaged`,
        { details: { expected: diffId, actual: digest } },
      );
    }
    const mediaType = layerTypeFor(compression, OCI_MANIFEST);
    layers.push({ mediaType, digest, size: context.content.info(digest).size });
  }
  return layers;
}

async function compressionOf(
  context: LoadContext,
  digest: Digest,
): Promise<"gzip" | "zstd" | "none"> {
  const file = await open(context.content.path(digest), "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
    return sniffCompression(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

/**
 * OCI's types, although docker made the archive: every tool that reads either kind reads these, and
 * some (umoci) read no other.
 */
async function writeManifest(
  context: LoadContext,
  config: Digest,
  layers: readonly Descriptor[],
): Promise<{ mediaType: string; digest: Digest; size: number }> {
  const size = context.content.info(config).size;
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, digest: config, size },
    layers,
  };
  const data = Buffer.from(JSON.stringify(manifest));
  const { lease } = context;
  await context.content.writeBlob(data, { mediaType: OCI_MANIFEST, lease });
  return { mediaType: OCI_MANIFEST, digest: digestOf(data), size: data.length };
}

function normalizedOrNothing(name: string): string[] {
  try {
    return [normalizeReference(name)];
  } catch {
    return [];
  }
}
