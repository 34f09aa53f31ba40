/** What images take on the disk, and what of that is theirs alone. */

import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { GarbageCollector } from "./garbage-collector.js";
import type { ImageRecord } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import { ImageUsers } from "./image-users.js";

/** What one image takes; bytes. */
export type ImageUsage = {
  readonly image: ImageRecord;
  /** Of its content, all platforms, that is here. */
  readonly contentBytes: number;
  /** Of its unpacked layers. */
  readonly unpackedBytes: number;
  /** What other images have, too. */
  readonly sharedBytes: number;
  readonly uniqueBytes: number;
  readonly views: readonly string[];
  /** A view, a lease or a pin keeps it. */
  readonly isInUse: boolean;
};

/** Things of one kind; what several have counts once. */
export type UsageTotal = {
  readonly count: number;
  readonly active: number;
  readonly bytes: number;
  /** What removing all that is not in use would free. */
  readonly reclaimableBytes: number;
};

/** Everything but what was written in views. */
export type MeasuredUsage = {
  readonly images: UsageTotal;
  readonly snapshots: UsageTotal;
  readonly buildCache: UsageTotal;
  readonly imageUsages: readonly ImageUsage[];
};

/** Blobs and snapshots by name, with their bytes: digests of both kinds never meet. */
type Sizes = ReadonlyMap<string, number>;
type Parts = { readonly blobs: readonly string[]; readonly snapshots: readonly string[] };

/** Measures the store. Content counts with its own size, unpacked layers with their disk usage. */
export async function measureUsage(
  images: ImageStore,
  garbage: GarbageCollector,
): Promise<MeasuredUsage> {
  const { database } = images;
  const sizes = allSizes(database);
  const users = new ImageUsers(database);
  const records = await images.list();
  const parts = records.map((image) =>
    partsOf(garbage, sizes, [...image.targets, image.manifestDigest]),
  );
  const owners = countOwners(parts);
  const imageUsages = records.map((image, position): ImageUsage => {
    const { blobs, snapshots } = parts[position]!;
    const all = [...blobs, ...snapshots];
    const shared = all.filter((name) => owners.get(name)! > 1);
    const bytes = sumOf(all, sizes);
    const sharedBytes = sumOf(shared, sizes);
    return {
      image,
      contentBytes: sumOf(blobs, sizes),
      unpackedBytes: sumOf(snapshots, sizes),
      sharedBytes,
      uniqueBytes: bytes - sharedBytes,
      views: users.viewsOf(image),
      isInUse: users.isInUse(image),
    };
  });
  const used = imageUsages.flatMap((usage, position) => (usage.isInUse ? [parts[position]!] : []));
  const steps = database.buildSteps.list().map((step) => step.manifestDigest);
  return {
    images: {
      count: records.length,
      active: used.length,
      ...totalOf(parts, used, (one) => one.blobs, sizes),
    },
    snapshots: {
      ...countSnapshots(parts, used),
      ...totalOf(parts, used, (one) => one.snapshots, sizes),
    },
    buildCache: cacheTotal(partsOf(garbage, sizes, steps), steps.length, owners, sizes),
    imageUsages,
  };
}

function allSizes(database: Database): Sizes {
  const sizes = new Map<string, number>();
  for (const { digest, size } of database.blobs.list()) sizes.set(digest, size);
  for (const { name, sizeBytes } of database.snapshots.list())
    sizes.set(`chain ${name}`, sizeBytes);
  return sizes;
}

/** What is here of all that `roots` refer to. */
function partsOf(garbage: GarbageCollector, sizes: Sizes, roots: readonly Digest[]): Parts {
  const { blobs, snapshots } = garbage.reach(roots);
  return {
    blobs: [...blobs].filter((name) => sizes.has(name)),
    snapshots: [...snapshots].map((name) => `chain ${name}`).filter((name) => sizes.has(name)),
  };
}

function countOwners(parts: readonly Parts[]): ReadonlyMap<string, number> {
  const owners = new Map<string, number>();
  for (const { blobs, snapshots } of parts) {
    for (const name of [...blobs, ...snapshots]) owners.set(name, (owners.get(name) ?? 0) + 1);
  }
  return owners;
}

function sumOf(names: Iterable<string>, sizes: Sizes): number {
  let sum = 0;
  for (const name of names) sum += sizes.get(name)!;
  return sum;
}

function totalOf(
  all: readonly Parts[],
  used: readonly Parts[],
  pick: (parts: Parts) => readonly string[],
  sizes: Sizes,
): Pick<UsageTotal, "bytes" | "reclaimableBytes"> {
  const bytes = sumOf(new Set(all.flatMap(pick)), sizes);
  return { bytes, reclaimableBytes: bytes - sumOf(new Set(used.flatMap(pick)), sizes) };
}

function countSnapshots(all: readonly Parts[], used: readonly Parts[]) {
  const names = (parts: readonly Parts[]) => new Set(parts.flatMap((one) => one.snapshots)).size;
  return { count: names(all), active: names(used) };
}

/** Of the build cache only counts what no image has: the rest stays when it goes. */
function cacheTotal(
  parts: Parts,
  count: number,
  owners: ReadonlyMap<string, number>,
  sizes: Sizes,
): UsageTotal {
  const own = [...parts.blobs, ...parts.snapshots].filter((name) => !owners.has(name));
  const bytes = sumOf(own, sizes);
  return { count, active: 0, bytes, reclaimableBytes: bytes };
}
