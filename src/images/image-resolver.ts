/** From a target (manifest or index) to one platform's image, read and checked. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import { NotFoundError } from "../system/errors.js";
import { type Candidate, listCandidates, rankCandidates, readManifest } from "./image-graph.js";
import type { ResolvedImage } from "./image-record.js";
import { MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES } from "./limits.js";
import { checkConfigType, checkImage, parseConfig, parseManifest } from "./manifest.js";
import { isIndexType } from "./media-types.js";
import { formatPlatform, normalizePlatform, type Platform } from "./platform.js";
import { isDanglingName } from "./reference.js";

/** Where to look, and what for. */
export type ResolveOptions = {
  readonly content: ContentStore;
  readonly target: ReferenceTarget;
  /** The platform that was asked for; when absent, `preferred` is a mere preference. */
  readonly wanted: Platform | undefined;
  readonly preferred: Platform;
  /** How errors, and the result's `reference`, call the image. */
  readonly name: string;
};

/**
 * Chooses a platform's manifest and reads it with its config.
 *
 * @throws NotFoundError no such platform, or its manifest or config is not in the store
 * @throws CorruptDataError, UnsupportedError as the parsers
 */
export async function resolveTarget(options: ResolveOptions): Promise<ResolvedImage> {
  const { content, target, name } = options;
  const descriptor = await chooseManifest(options);
  const what = `image ${name}: manifest ${descriptor.digest}`;
  const manifestBytes = await content.readBlob(descriptor.digest, MAX_MANIFEST_BYTES);
  const manifest = parseManifest(manifestBytes, descriptor.mediaType, what);
  checkConfigType(manifest, what);
  const configBytes = await content.readBlob(manifest.config.digest, MAX_CONFIG_BYTES);
  const config = parseConfig(configBytes, `image ${name}: config ${manifest.config.digest}`);
  const chainIds = checkImage(manifest, config, what);
  return {
    reference: isDanglingName(name) ? manifest.config.digest : name,
    id: manifest.config.digest,
    target,
    manifestDescriptor: { ...descriptor, mediaType: manifest.mediaType },
    manifest,
    manifestBytes,
    configDescriptor: manifest.config,
    config,
    configBytes,
    layers: manifest.layers,
    diffIds: config.diffIds,
    chainIds,
    platform: normalizePlatform(config),
  };
}

async function chooseManifest(options: ResolveOptions): Promise<Descriptor> {
  const { content, target, wanted, preferred, name } = options;
  // A plain manifest is what it is; only a platform that was asked for can rule it out.
  if (!isIndexType(target.mediaType) && wanted === undefined) return target;
  const candidates = await listCandidates(content, target);
  const ranked = rankCandidates(candidates, wanted ?? preferred);
  // Without a wish, an image of another platform is better than none: it can be looked at.
  const rest = wanted === undefined ? candidates.filter((one) => !ranked.includes(one)) : [];
  // With one, only the best fit will do: a lesser one would be a surprise.
  const fitting = wanted === undefined ? ranked : ranked.filter((one) => isLike(one, ranked[0]!));
  const order = [...fitting, ...rest].map((candidate) => candidate.descriptor);
  // A platform is here when its config is: loading and pulling leave that away otherwise. Layers
  // may be gone after they were unpacked.
  for (const descriptor of order) if (await hasConfig(content, descriptor)) return descriptor;
  const platform = formatPlatform(wanted ?? preferred);
  if (order.length > 0) {
    throw new NotFoundError(
      `image ${name}: the content of platform ${platform} is not here; load the image again with ` +
        "that platform",
    );
  }
  const offered = candidates.flatMap((one) => (one.platform ? [formatPlatform(one.platform)] : []));
  throw new NotFoundError(
    `image ${name}: not for platform ${platform}; it is for ${offered.join(", ") || "none it names"}`,
    { details: { platform, offered } },
  );
}

function isLike(candidate: Candidate, best: Candidate): boolean {
  return formatPlatform(candidate.platform!) === formatPlatform(best.platform!);
}

async function hasConfig(content: ContentStore, descriptor: Descriptor): Promise<boolean> {
  if (!content.has(descriptor.digest)) return false;
  return content.has((await readManifest(content, descriptor)).config.digest);
}
