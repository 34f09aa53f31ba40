/**
 * Views whose owners are shown as other users of the host: container root as an ordinary user. The upper
 * directory and what is committed keep the image's own IDs.
 */

import type { Labels } from "../metadata/labels.js";
import type { ViewRow } from "../metadata/view-table.js";
import type { Alterations } from "../overlay/altered-file-system.js";
import { InvalidArgumentError } from "../system/errors.js";
import { idTranslation } from "./id-translation.js";
import type { IdRange } from "./overlay-options.js";

/** How the image's users and groups are shown; `disk` is the image's ID, `shown` the host's. */
export interface IdMaps {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

/** What the kernel takes for a user namespace, user_namespaces(7). */
const MAX_RANGES = 340;
/** (uid_t)-1 means "none". */
const MAX_ID = 2 ** 32 - 2;
const UID_LABEL = "varve.uidmap";
const GID_LABEL = "varve.gidmap";

/**
 * Reads mappings in podman's spelling, CONTAINER:HOST[:COUNT]. Who maps only users, or only groups, means
 * both.
 *
 * @returns undefined when there are none
 * @throws InvalidArgumentError malformed, overlapping or too many
 */
export function parseIdMaps(uids: readonly string[], gids: readonly string[]): IdMaps | undefined {
  if (uids.length === 0 && gids.length === 0) return undefined;
  return {
    uids: parseRanges("--uidmap", uids.length === 0 ? gids : uids),
    gids: parseRanges("--gidmap", gids.length === 0 ? uids : gids),
  };
}

/** The spelling that `parseIdMaps` reads. */
export function formatRanges(ranges: readonly IdRange[]): string[] {
  return ranges.map(({ disk, shown, size }) => `${disk}:${shown}:${size}`);
}

function parseRanges(flag: string, texts: readonly string[]): IdRange[] {
  const ranges = texts.map((text) => parseRange(flag, text));
  if (ranges.length > MAX_RANGES) {
    throw new InvalidArgumentError(`mount: ${ranges.length} times ${flag}: at most ${MAX_RANGES}`);
  }
  for (const side of ["disk", "shown"] as const) {
    const sorted = ranges.toSorted((a, b) => a[side] - b[side]);
    const clash = sorted.find((range, at) => at > 0 && isOver(sorted[at - 1]!, range, side));
    if (clash === undefined) continue;
    throw new InvalidArgumentError(
      `mount: ${flag} ${formatRanges([clash])[0]}: another one has some of its ${side === "disk" ? "container" : "host"} IDs`,
    );
  }
  return ranges;
}

function isOver(before: IdRange, range: IdRange, side: "disk" | "shown"): boolean {
  return before[side] + before.size > range[side];
}

function parseRange(flag: string, text: string): IdRange {
  const numbers = /^\d+:\d+(:\d+)?$/.test(text) ? text.split(":").map(Number) : [];
  const [disk = -1, shown = -1, size = 1] = numbers;
  const isInside = disk >= 0 && size > 0 && Math.max(disk, shown) + size - 1 <= MAX_ID;
  if (isInside) return { disk, shown, size };
  throw new InvalidArgumentError(
    `mount: ${flag} ${text}: want CONTAINER:HOST:COUNT, as in 0:100000:65536`,
  );
}

/** Labels that remember the mappings with a view. */
export function idMapLabels(maps: IdMaps | undefined): Labels {
  if (maps === undefined) return {};
  const { uids, gids } = maps;
  return { [UID_LABEL]: formatRanges(uids).join(), [GID_LABEL]: formatRanges(gids).join() };
}

/** The mappings of a view; undefined when it has none. */
export function idMapsOf({ labels }: ViewRow): IdMaps | undefined {
  const { [UID_LABEL]: uids, [GID_LABEL]: gids } = labels;
  if (uids === undefined || gids === undefined) return undefined;
  return parseIdMaps(uids.split(","), gids.split(","));
}

/** What the file system shows differently because of them. */
export function idMapAlterations({ uids, gids }: IdMaps): Alterations {
  return {
    uids: idTranslation({ ranges: uids }),
    gids: idTranslation({ ranges: gids }),
    staticLinkCount: false,
    acl: true,
    fsync: true,
    // A file of the overflow user in an image helps nobody.
    refusesStrangers: true,
  };
}
