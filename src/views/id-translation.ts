/** Owners on disk and owners in a mount: `uidmapping`, `gidmapping` and `squash_to_…` at work. */

import { type IdTranslation, OVERFLOW_ID } from "../overlay/altered-file-system.js";
import type { IdMapping } from "./overlay-options.js";

/** The translation that a mapping describes. */
export function idTranslation({ ranges, squashTo }: IdMapping): IdTranslation {
  const toDisk = (id: number): number => {
    if (ranges.length === 0) return id;
    const range = ranges.find(({ shown, size }) => id >= shown && id < shown + size);
    return range === undefined ? -1 : range.disk + (id - range.shown);
  };
  if (squashTo !== undefined) return { toShown: () => squashTo, toDisk };
  const toShown = (id: number): number => {
    if (ranges.length === 0) return id;
    const range = ranges.find(({ disk, size }) => id >= disk && id < disk + size);
    return range === undefined ? OVERFLOW_ID : range.shown + (id - range.disk);
  };
  return { toShown, toDisk };
}
