/** What a view changed, as `docker diff` lists it. */

import type { ByteString } from "../system/bytes.js";
import type { DiffOptions } from "./upper-tree.js";
import { ViewWalk } from "./view-walk.js";

export type { DiffOptions } from "./upper-tree.js";

/** One changed path: added, changed or deleted. */
export interface PathChange {
  readonly kind: "A" | "C" | "D";
  /** Absolute, "/x". */
  readonly path: ByteString;
}

/**
 * Lists the differences between a view and its image, sorted by path. A directory is listed when
 * something in it or it itself changed; of a deleted directory only its own path is; the root never.
 * A moved directory is a deletion and an addition of everything in it.
 *
 * @throws SyscallError the upper cannot be read
 */
export function listChanges(options: DiffOptions): PathChange[] {
  const walk = new ViewWalk(options, "compare");
  try {
    const changes: PathChange[] = [];
    for (const { kind, path } of walk.changes())
      if (path !== "") changes.push({ kind, path: `/${path}` as ByteString });
    return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
  } finally {
    walk.close();
  }
}
