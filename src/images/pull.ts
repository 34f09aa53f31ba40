/** Bringing an image from a registry into the store: which parts of it, and in which order. */

import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import { GC_SHALLOW_LABEL } from "../metadata/labels.js";
import type { ReferenceTarget } from "../metadata/reference-table.js";
import { UnsupportedError } from "../system/errors.js";
import { isAttestation, listCandidates, readManifest } from "./image-graph.js";
import type { ResolvedImage } from "./image-record.js";
import { resolveTarget } from "./image-resolver.js";
import { MAX_CONFIG_BYTES, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES } from "./limits.js";
import { choosePlatforms, chooseSingle, type PlatformChoice } from "./load-oci.js";
import { checkConfigType, checkImage, parseConfig, parseIndex, parseManifest } from "./manifest.js";
import { isIndexType, isManifestType } from "./media-types.js";

/** Where an image comes from. */
export interface ImageSource {
  /** Brings a manifest, an index or a config into the store and under the pull's lease. */
  fetchDocument(descriptor: Descriptor): Promise<void>;
  /** The same for layers. */
  fetchLayer(descriptor: Descriptor): Promise<void>;
}

/** What a pull needs. */
export interface PullPlan {
  readonly content: ContentStore;
  readonly source: ImageSource;
  readonly target: ReferenceTarget;
  readonly choice: PlatformChoice;
  /** Names the image in errors. */
  readonly what: string;
  /** Called when config and manifest of a chosen image are here, and its layers are on their way. */
  readonly onImage?: (image: ResolvedImage) => void;
}

/**
 * Fetches the chosen platforms of an image: manifests first, then configs, then layers. What an
 * index lists beyond them, attestations included, is left where it is.
 *
 * @throws NotFoundError no image for the platform; what the source throws
 * @throws UnsupportedError schema 1, or an artifact that is no image
 * @throws CorruptDataError malformed content
 */
export async function pullContent(plan: PullPlan): Promise<void> {
  const { content, target, choice, what } = plan;
  await fetchTree(plan, target, 0);
  const available = await listCandidates(content, target);
  const chosen = isIndexType(target.mediaType)
    ? choosePlatforms(available, choice, what)
    : chooseSingle(available, choice, what);
  if (chosen.length === 0) throw new UnsupportedError(`${what}: the index lists no images`);
  const outcomes = await Promise.allSettled(
    chosen.map(({ descriptor }) => pullManifest(plan, descriptor)),
  );
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Fetches indexes whole; of manifests, at first, only those that alone can tell their platform. */
async function fetchTree(plan: PullPlan, descriptor: Descriptor, depth: number): Promise<void> {
  const { content, source, what } = plan;
  const { mediaType, digest } = descriptor;
  if (depth >= MAX_INDEX_DEPTH) {
    throw new UnsupportedError(`${what}: index ${digest}: nested too deep`);
  }
  const isIndex = isIndexType(mediaType);
  if (!isIndex && !isManifestType(mediaType)) {
    // The parser knows what to call schema 1, and what else this can be.
    if (depth === 0) parseManifest(Buffer.from("{}"), mediaType, `${what}: manifest ${digest}`);
    return;
  }
  if (!isIndex && (isAttestation(descriptor) || descriptor.platform !== undefined)) return;
  await source.fetchDocument(descriptor);
  if (!isIndex) return await fetchConfig(plan, descriptor, depth);
  const data = await content.readBlob(digest, MAX_MANIFEST_BYTES);
  for (const child of parseIndex(data, mediaType, `${what}: index ${digest}`).manifests) {
    await fetchTree(plan, child, depth + 1);
  }
}

async function fetchConfig(plan: PullPlan, descriptor: Descriptor, depth: number): Promise<void> {
  const manifest = await readManifest(plan.content, descriptor);
  const isImage = /image/.test(manifest.config.mediaType);
  // An index may list signatures and the like beside images; a name for one is a mistake.
  if (depth === 0) checkConfigType(manifest, `${plan.what}: manifest ${descriptor.digest}`);
  if (isImage && manifest.config.size <= MAX_CONFIG_BYTES) {
    await plan.source.fetchDocument(manifest.config);
  }
}

async function pullManifest(plan: PullPlan, descriptor: Descriptor): Promise<void> {
  const { content, source, what } = plan;
  await source.fetchDocument(descriptor);
  const manifest = await readManifest(content, descriptor);
  const where = `${what}: manifest ${descriptor.digest}`;
  checkConfigType(manifest, where);
  if (manifest.config.size > MAX_CONFIG_BYTES) {
    throw new UnsupportedError(`${where}: a config of ${manifest.config.size} bytes is too large`);
  }
  markWanted(content, descriptor.digest);
  await source.fetchDocument(manifest.config);
  const bytes = await content.readBlob(manifest.config.digest, MAX_CONFIG_BYTES);
  // Before the layers, which are what takes time.
  checkImage(manifest, parseConfig(bytes, `${what}: config ${manifest.config.digest}`), where);
  plan.onImage?.(
    await resolveTarget({
      content,
      target: descriptor,
      wanted: undefined,
      preferred: plan.choice.preferred,
      name: what,
    }),
  );
  const layers = new Map(manifest.layers.map((layer) => [layer.digest, layer]));
  const fetches = [...layers.values()].map((layer) => source.fetchLayer(layer));
  const outcomes = await Promise.allSettled(fetches);
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** A manifest that an earlier load did not want keeps its content from now on. */
function markWanted(content: ContentStore, digest: Digest): void {
  const { [GC_SHALLOW_LABEL]: shallow, ...labels } = content.info(digest).labels;
  if (shallow !== undefined) content.setLabels(digest, labels);
}
