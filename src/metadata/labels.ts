/** Labels: small string maps that users and other programs attach to records. */

import { InvalidArgumentError } from "../system/errors.js";

/** Label keys and values, both UTF-8 text. */
export type Labels = Readonly<Record<string, string>>;

/** Key and value together, in UTF-8 bytes; containerd's limit, which its clients rely on. */
export const MAX_LABEL_BYTES = 4096;

/** A record whose label of this name is not empty is a root of garbage collection. */
export const GC_ROOT_LABEL = "containerd.io/gc.root";

/**
 * A manifest with this label is kept by an index, but keeps nothing itself: it is one of the
 * platforms that were not wanted.
 */
export const GC_SHALLOW_LABEL = "varve.gc.shallow";

/** Marks leases and views of one process's running work; after a restart that work is dead. */
export const TRANSIENT_LABEL = "varve.transient";

/** Marks views made for users who are neither root nor the daemon's own: no set-id programs, no devices. */
export const GUEST_LABEL = "varve.guest";

/** Marks leases on what an unfinished pull has fetched: kept for its next try, while there is room. */
export const UNFINISHED_PULL_LABEL = "varve.pull";

/** Encodes labels for a table, keys sorted so that equal maps are equal text. */
export function encodeLabels(labels: Labels | undefined, owner: string): string {
  if (labels === undefined) return "{}";
  for (const [key, value] of Object.entries(labels)) {
    const bytes = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes <= MAX_LABEL_BYTES) continue;
    throw new InvalidArgumentError(
      `label ${JSON.stringify(key.slice(0, 64))} of ${owner}: key and value take ${bytes} bytes, ` +
        `at most ${MAX_LABEL_BYTES} are allowed`,
    );
  }
  return JSON.stringify(Object.fromEntries(Object.entries(labels).sort(byKey)));
}

/** Decodes what `encodeLabels` wrote. */
export function decodeLabels(text: string): Labels {
  return JSON.parse(text) as Labels;
}

function byKey(a: readonly [string, string], b: readonly [string, string]): number {
  return a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0;
}
