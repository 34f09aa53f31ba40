/** From targets to images: what has the same ID is one image with all its names. */

import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { ReferenceRow, ReferenceTarget } from "../metadata/reference-table.js";
import type { ImageRecord, ResolvedImage } from "./image-record.js";
import type { Platform } from "./platform.js";
import { isDanglingName, parseReference, repositoryOf } from "./reference.js";

/**
 * A reference with this label keeps its image from being cleaned up, by us and by kubelets. An image
 * is pinned while any of its references is.
 */
export const PINNED_LABEL = "io.cri-containerd.pinned";

/** What a target is, for the store's platform; follows from content alone. */
export type Summary = {
  readonly id: Digest;
  readonly target: ReferenceTarget;
  readonly manifestDigest: Digest;
  readonly size: number;
  readonly platform: Platform;
  readonly labels: Readonly<Record<string, string>>;
  readonly user: string;
  readonly created?: string;
  readonly chainId?: Digest;
};

/** A target and the reference that leads to it; without one, a view keeps it. */
export type ImageTarget = { readonly reference?: ReferenceRow; readonly summary: Summary };

/** What a resolved image is in a list. */
export function summaryOf(image: ResolvedImage): Summary {
  const blobs = [image.manifestDescriptor, image.configDescriptor, ...image.layers];
  const sizes = new Map(blobs.map((blob) => [blob.digest, blob.size]));
  const chainId = image.chainIds.at(-1);
  const { created, config } = image.config;
  return {
    id: image.id,
    target: image.target,
    manifestDigest: image.manifestDescriptor.digest,
    size: [...sizes.values()].reduce((sum, size) => sum + size, 0),
    platform: image.platform,
    labels: config.Labels ?? {},
    user: config.User ?? "",
    ...(created === undefined ? {} : { created }),
    ...(chainId === undefined ? {} : { chainId }),
  };
}

/** True for a reference that is pinned. */
export function isPinned(row: Pick<ReferenceRow, "labels">): boolean {
  return row.labels[PINNED_LABEL] === "pinned";
}

/** Merges targets into images; names are sorted. */
export function mergeImages(targets: readonly ImageTarget[], database: Database): ImageRecord[] {
  const groups = new Map<Digest, ImageTarget[]>();
  for (const target of targets) {
    const group = groups.get(target.summary.id);
    if (group === undefined) groups.set(target.summary.id, [target]);
    else group.push(target);
  }
  return [...groups.values()].map((group) => mergeGroup(group, database));
}

function mergeGroup(group: readonly ImageTarget[], database: Database): ImageRecord {
  const { summary } = group[0]!;
  const tags = new Set<string>();
  const digests = new Set<string>();
  for (const { reference } of group) {
    if (reference === undefined || isDanglingName(reference.name)) continue;
    const parsed = parseReference(reference.name);
    if (parsed.tag !== undefined) tags.add(reference.name);
    digests.add(`${repositoryOf(parsed)}@${parsed.digest ?? reference.target.digest}`);
  }
  const rows = group.flatMap(({ reference }) => (reference === undefined ? [] : [reference]));
  const pinned = rows.filter(isPinned);
  const arrivedNs = latest(rows.map((row) => row.updatedNs));
  return {
    id: summary.id,
    repoTags: [...tags].sort(),
    repoDigests: [...digests].sort(),
    digest: summary.target.digest,
    manifestDigest: summary.manifestDigest,
    mediaType: summary.target.mediaType,
    ...(summary.created === undefined ? {} : { created: summary.created }),
    size: summary.size,
    platform: summary.platform,
    ...(summary.chainId === undefined ? {} : { chainId: summary.chainId }),
    unpacked:
      summary.chainId === undefined || database.snapshots.get(summary.chainId) !== undefined,
    labels: summary.labels,
    user: summary.user,
    pinned: pinned.length > 0,
    references: rows.map((row) => row.name).sort(),
    pinnedReferences: pinned.map((row) => row.name).sort(),
    targets: [...new Set(rows.map((row) => row.target.digest))],
    arrivedNs,
    lastUsedNs: latest([arrivedNs, database.uses.get(summary.id) ?? 0n]),
  };
}

function latest(times: readonly bigint[]): bigint {
  return times.toSorted((a, b) => (a < b ? -1 : 1)).at(-1) ?? 0n;
}
