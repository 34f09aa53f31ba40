/**
 * The index that this thread built last. The next layer of a chain starts from it, and an image may
 * have a hundred: reading, checking and taking apart the parent's file costs more than merging a thin layer.
 */

import { statSync } from "node:fs";
import { type FlatIndex, openIndex } from "./index-reader.js";

/** Images with many layers are built of thin ones over a small base; a large index would only take memory. */
const MAX_BYTES = 4n << 20n;

let last: { readonly identity: string; readonly index: FlatIndex } | undefined;

/** The identity of a file that may be kept; a rename of its directory does not change it. */
function identityOf(path: string): string | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined || stat.size > MAX_BYTES) return undefined;
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`;
}

/** Keeps an index that has just been written to `path`, unless it is large, until the next one. */
export function remember(path: string, index: FlatIndex): void {
  const identity = identityOf(path);
  last = identity === undefined ? undefined : { identity, index };
}

/**
 * Opens an index, from memory when it is the one that was built last.
 *
 * @throws NotFoundError, CorruptDataError as `openIndex`
 */
export function openRecent(path: string): FlatIndex {
  if (last !== undefined && last.identity === identityOf(path)) return last.index;
  return openIndex(path);
}
