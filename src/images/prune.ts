/** Removing images that nothing uses, because somebody asked for it. */

import type { BuildStepRow } from "../metadata/build-step-table.js";
import type { EventLog } from "../metadata/event-log.js";
import type { Garbage } from "../metadata/garbage-collection.js";
import { parsePointInTime } from "../metadata/point-in-time.js";
import { InvalidArgumentError } from "../system/errors.js";
import type { GarbageCollector } from "./garbage-collector.js";
import { hasLabel } from "./image-filters.js";
import type { ImageRecord } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import { ImageUsers } from "./image-users.js";

/** What to remove. */
export type PruneOptions = {
  /** Also images that have a name, and the build cache. */
  readonly all: boolean;
  /** "until=TIME": came here, or got a name, before; "label=K[=V]"; "label!=K[=V]". */
  readonly filters: readonly string[];
  /** Only find out. */
  readonly dryRun: boolean;
};

/** What was, or would be, removed. */
export type PruneReport = Garbage & {
  readonly images: readonly ImageRecord[];
  readonly buildSteps: number;
};

/** What a prune works on. */
export type PruneStores = {
  readonly images: ImageStore;
  readonly garbage: GarbageCollector;
  readonly events: EventLog;
};

/**
 * Removes images that no view, lease or pin keeps: those without a name, or with `all` every one;
 * then everything that nothing refers to.
 *
 * @throws InvalidArgumentError a malformed filter
 */
export async function prune(stores: PruneStores, options: PruneOptions): Promise<PruneReport> {
  const { images, garbage, events } = stores;
  const { database } = images;
  const filters = parseFilters(options.filters);
  const users = new ImageUsers(database);
  const candidates = (await images.list()).filter(
    (image) =>
      (options.all || image.repoDigests.length === 0) &&
      // One that only a view keeps has nothing to remove.
      image.references.length > 0 &&
      !users.isInUse(image) &&
      matches(image, filters),
  );
  const steps = options.all ? database.buildSteps.list().filter(isOld(filters)) : [];
  if (options.dryRun) {
    const references = new Set(candidates.flatMap((image) => image.references));
    const buildSteps = new Set(steps.map((step) => step.key));
    const found = garbage.preview({ references, buildSteps });
    return { ...found, images: candidates, buildSteps: steps.length };
  }
  const removed: ImageRecord[] = [];
  for (const image of candidates) {
    const isInUse = () => new ImageUsers(database).isInUse(image);
    if (await images.removeUnused(image, isInUse)) removed.push(image);
  }
  database.transaction(() => {
    for (const step of steps) database.buildSteps.delete(step.key);
  });
  const swept = await garbage.run();
  events.publish("store", "prune", "", { reclaimed: String(swept.bytes) });
  return { ...swept, images: removed, buildSteps: steps.length };
}

type Filters = {
  readonly untilNs: bigint | undefined;
  readonly labels: readonly string[];
  readonly notLabels: readonly string[];
};

function parseFilters(filters: readonly string[]): Filters {
  const untils: bigint[] = [];
  const labels: string[] = [];
  const notLabels: string[] = [];
  for (const filter of filters) {
    const [, key, value = ""] = /^(until|label!?)=(.+)$/s.exec(filter) ?? [];
    if (key === "until") untils.push(parsePointInTime(value));
    else if (key === "label") labels.push(value);
    else if (key === "label!") notLabels.push(value);
    else {
      throw new InvalidArgumentError(
        `filter ${JSON.stringify(filter)}: want until=TIME, label=KEY[=VALUE] or label!=KEY[=VALUE]`,
      );
    }
  }
  if (untils.length > 1) throw new InvalidArgumentError('filter "until": give it only once');
  return { untilNs: untils[0], labels, notLabels };
}

function matches(image: ImageRecord, filters: Filters): boolean {
  const { untilNs, labels, notLabels } = filters;
  if (!labels.every((label) => hasLabel(image, label))) return false;
  if (notLabels.some((label) => hasLabel(image, label))) return false;
  // Not the config's own date: reproducible images are from 1970.
  return untilNs === undefined || image.arrivedNs < untilNs;
}

function isOld({ untilNs, labels }: Filters): (step: BuildStepRow) => boolean {
  // Steps have no labels.
  return (step) => labels.length === 0 && (untilNs === undefined || step.usedNs < untilNs);
}
