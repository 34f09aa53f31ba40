/** From targets to images: what has the same ID is one image with all its names. */

import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { ReferenceRow, ReferenceTarget } from "../metadata/reference-table.js";
import type { ImageRecord } from "./image-record.js";
import type { Platform } from "./platform.js";
import { isDanglingName, parseReference, repositoryOf } from "./reference.js";

/**
 * A reference with this label keeps its image from being cleaned up by kubelets. An image is pinned
 * while any of its references is.
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
  return {
    id: summary.id,
    repoTags: [...tags].sort(),
    repoDigests: [...digests].sort(),
    digest: summary.target.digest,
    mediaType: summary.target.mediaType,
    ...(summary.created === undefined ? {} : { created: summary.created }),
    size: summary.size,
    platform: summary.platform,
    ...(summary.chainId === undefined ? {} : { chainId: summary.chainId }),
    unpacked:
      summary.chainId === undefined || database.snapshots.get(summary.chainId) !== undefined,
    labels: summary.labels,
    user: summary.user,
    pinned: group.some(({ reference }) => reference?.labels[PINNED_LABEL] === "pinned"),
  };
}
