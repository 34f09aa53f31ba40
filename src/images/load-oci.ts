/** Loading what an OCI index.json lists: names, platforms, and the blobs they need. */

import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import { GC_SHALLOW_LABEL } from "../metadata/labels.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import { NotFoundError, UnsupportedError } from "../system/errors.js";
import { type BlobSource, fetchRequired, type LoadContext, throwIfAborted } from "./blob-source.js";
import {
  type Candidate,
  isAttestation,
  listCandidates,
  rankCandidates,
  readManifest,
} from "./image-graph.js";
import { resolveTarget } from "./image-resolver.js";
import { MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES } from "./limits.js";
import { type JsonObject, parseIndex } from "./manifest.js";
import { isConfigType, isIndexType, isManifestType, OCI_INDEX } from "./media-types.js";
import { formatPlatform, type Platform } from "./platform.js";
import { danglingName, normalizeReference, parseReference } from "./reference.js";

/** An image whose content is complete in the store and that wants its name. */
export type PreparedImage = { readonly reference?: string; readonly target: ReferenceTarget };

/** Which platforms of an index to take. */
export type PlatformChoice = {
  /** Empty: the store's own. */
  readonly platforms: readonly Platform[];
  readonly all: boolean;
  readonly preferred: Platform;
};

const IMAGE_NAME = "io.containerd.image.name";
const REF_NAME = "org.opencontainers.image.ref.name";

/**
 * Brings every image of an index.json into the store.
 *
 * @param baseName repository for names that are a tag only
 * @throws NotFoundError a blob is missing (named), or no image for the platform
 * @throws CorruptDataError, UnsupportedError malformed content; nothing in it is an image
 */
export async function prepareOciImages(
  context: LoadContext,
  source: BlobSource,
  index: JsonObject,
  choice: PlatformChoice,
  baseName: string | undefined,
): Promise<PreparedImage[]> {
  const what = `${context.what}: index.json`;
  const { manifests } = parseIndex(Buffer.from(JSON.stringify(index)), OCI_INDEX, what);
  const images: PreparedImage[] = [];
  let skipped: unknown;
  for (const descriptor of await chooseUnnamed(context, manifests, choice)) {
    throwIfAborted(context);
    if (isAttestation(descriptor)) continue;
    try {
      await prepareTarget(context, source, descriptor, choice);
    } catch (error) {
      // Layouts also hold signatures and other artifacts; they do not spoil the images.
      if (!(error instanceof UnsupportedError)) throw error;
      skipped = error;
      continue;
    }
    const { mediaType, digest, size } = descriptor;
    const reference = nameOf(descriptor, baseName);
    images.push({
      target: { mediaType, digest, size },
      ...(reference === undefined ? {} : { reference }),
    });
  }
  if (images.length > 0) return images;
  throw skipped ?? new NotFoundError(`${what}: lists no images`);
}

/**
 * An index.json may itself be the index of one nameless multi-platform image: then only the wanted
 * platforms of it are taken.
 */
async function chooseUnnamed(
  context: LoadContext,
  manifests: readonly Descriptor[],
  choice: PlatformChoice,
): Promise<readonly Descriptor[]> {
  const isVariant = (one: Descriptor) =>
    one.platform !== undefined && isManifestType(one.mediaType) && rawName(one) === undefined;
  const variants = manifests.filter((one) => isVariant(one) && !isAttestation(one));
  if (variants.length < 2 || choice.all) return manifests;
  const candidates = variants.map((descriptor) => ({ descriptor, platform: descriptor.platform! }));
  const chosen = choosePlatforms(candidates, choice, context.what).map((one) => one.descriptor);
  return manifests.filter((one) => !isVariant(one) || chosen.includes(one));
}

function rawName(descriptor: Descriptor): string | undefined {
  return descriptor.annotations?.[IMAGE_NAME] ?? descriptor.annotations?.[REF_NAME];
}

/**
 * The normalised name of a listed image; undefined when it has none that is valid. containerd's
 * annotation is a full name; OCI's is, by the specification, a tag, and by custom often a full name.
 */
function nameOf(descriptor: Descriptor, baseName: string | undefined): string | undefined {
  const name = rawName(descriptor);
  if (name === undefined || name.startsWith("moby-dangling@")) return undefined;
  const isFull = descriptor.annotations?.[IMAGE_NAME] !== undefined || /[/:@]/.test(name);
  if (!isFull && baseName === undefined) return undefined;
  const text = isFull ? name : `${baseName}:${name}`;
  try {
    const { digest } = parseReference(text);
    if (digest !== undefined && digest !== descriptor.digest) return undefined;
    return normalizeReference(text);
  } catch {
    return undefined;
  }
}

async function prepareTarget(
  context: LoadContext,
  source: BlobSource,
  target: Descriptor,
  choice: PlatformChoice,
): Promise<void> {
  const { content } = context;
  if (isIndexType(target.mediaType)) await fetchIndex(context, source, target, 0);
  else if (isManifestType(target.mediaType)) await fetchManifest(context, source, target, true);
  else {
    throw new UnsupportedError(
      `${context.what}: ${target.digest} has the media type ${JSON.stringify(target.mediaType)}, ` +
        "which is no image",
    );
  }
  const available: Candidate[] = [];
  for (const candidate of await listCandidates(content, target)) {
    if (content.has(candidate.descriptor.digest)) available.push(candidate);
  }
  const chosen = isIndexType(target.mediaType)
    ? choosePlatforms(available, choice, `${context.what}: image ${target.digest}`)
    : chooseSingle(available, choice, `${context.what}: image ${target.digest}`);
  const complete = await fetchChosen(context, source, chosen, choice.all);
  const wanted = new Set(complete.map((candidate) => candidate.descriptor.digest));
  if (wanted.size === 0) {
    throw new NotFoundError(`${context.what}: image ${target.digest}: no platform is complete`);
  }
  for (const { descriptor } of available) markWanted(context, descriptor, wanted);
}

/** Fetches an index and, as far as the source has them, all manifests below. */
async function fetchIndex(
  context: LoadContext,
  source: BlobSource,
  descriptor: Descriptor,
  depth: number,
): Promise<void> {
  if (depth >= MAX_INDEX_DEPTH) {
    throw new UnsupportedError(`${context.what}: index ${descriptor.digest}: nested too deep`);
  }
  if (depth === 0) await fetchRequired(context, source, descriptor, "index");
  else if (!(await source.fetch(descriptor))) return;
  const data = await context.content.readBlob(descriptor.digest, MAX_MANIFEST_BYTES);
  const what = `${context.what}: index ${descriptor.digest}`;
  for (const child of parseIndex(data, descriptor.mediaType, what).manifests) {
    throwIfAborted(context);
    if (isIndexType(child.mediaType)) await fetchIndex(context, source, child, depth + 1);
    else if (isManifestType(child.mediaType)) await fetchManifest(context, source, child, false);
  }
}

/** Fetches a manifest; also its config when only that can tell the platform. */
async function fetchManifest(
  context: LoadContext,
  source: BlobSource,
  descriptor: Descriptor,
  isRequired: boolean,
): Promise<void> {
  if (isRequired) await fetchRequired(context, source, descriptor, "manifest");
  else if (!(await source.fetch(descriptor))) return;
  if (descriptor.platform !== undefined || isAttestation(descriptor)) return;
  const { config } = await readManifest(context.content, descriptor);
  if (isConfigType(config.mediaType)) await source.fetch(config);
}

/** The candidates to take out of an index. @throws NotFoundError none fits a wanted platform */
export function choosePlatforms(
  available: readonly Candidate[],
  choice: PlatformChoice,
  what: string,
): Candidate[] {
  if (choice.all) return [...available];
  const wanted = choice.platforms.length > 0 ? choice.platforms : [choice.preferred];
  // The only one there is will be what the user means, unless they said otherwise.
  if (choice.platforms.length === 0 && available.length === 1) return [...available];
  const chosen = new Set<Candidate>();
  for (const platform of wanted) {
    const [best] = rankCandidates(available, platform);
    if (best === undefined) throw noPlatform(available, platform, what);
    chosen.add(best);
  }
  return [...chosen];
}

/** An image that is no index is taken as it is, unless a platform was asked for. */
export function chooseSingle(
  available: readonly Candidate[],
  choice: PlatformChoice,
  what: string,
): Candidate[] {
  const { platforms } = choice;
  if (choice.all || platforms.length === 0) return [...available];
  const fits = platforms.some((platform) => rankCandidates(available, platform).length > 0);
  if (!fits) throw noPlatform(available, platforms[0]!, what);
  return [...available];
}

function noPlatform(
  available: readonly Candidate[],
  wanted: Platform,
  what: string,
): NotFoundError {
  const offered = available.flatMap((one) => (one.platform ? [formatPlatform(one.platform)] : []));
  return new NotFoundError(
    `${what}: not for platform ${formatPlatform(wanted)}; it is for ` +
      `${offered.join(", ") || "none that it names"}`,
    { details: { offered } },
  );
}

/** Fetches config and layers of the chosen manifests and checks that they belong together. */
async function fetchChosen(
  context: LoadContext,
  source: BlobSource,
  chosen: readonly Candidate[],
  isLenient: boolean,
): Promise<Candidate[]> {
  const complete: Candidate[] = [];
  for (const candidate of chosen) {
    const { descriptor } = candidate;
    const manifest = await readManifest(context.content, descriptor);
    // An archive made of some platforms still has the whole index; "all" means all that it has.
    if (isLenient && chosen.length > 1 && !(await source.fetch(manifest.config))) continue;
    await fetchRequired(context, source, manifest.config, "config");
    for (const layer of manifest.layers) await fetchRequired(context, source, layer, "layer");
    await resolveTarget({
      content: context.content,
      target: descriptor,
      wanted: undefined,
      preferred: { os: "", architecture: "" },
      name: danglingName(descriptor.digest),
    });
    complete.push(candidate);
  }
  return complete;
}

/** A platform that was not wanted leaves only its manifest behind; a wanted one keeps everything. */
function markWanted(context: LoadContext, manifest: Descriptor, wanted: ReadonlySet<Digest>): void {
  const { content } = context;
  const { labels } = content.info(manifest.digest);
  if (wanted.has(manifest.digest)) {
    const { [GC_SHALLOW_LABEL]: shallow, ...rest } = labels;
    if (shallow !== undefined) content.setLabels(manifest.digest, rest);
  } else if (context.fresh.has(manifest.digest)) {
    content.setLabels(manifest.digest, { ...labels, [GC_SHALLOW_LABEL]: "platform not wanted" });
  }
}
