/** What the stores occupy on disk. */

import type { DiskUsage } from "../../layers/usage-counter.js";
import type { Database } from "../../metadata/database.js";

/**
 * Blobs and unpacked layers, containerd's included, from what was counted when they were made: the
 * answer takes no walk over the disk. What is being written in views and containers does not count.
 */
export function storeUsage(database: Database): DiskUsage {
  const own = database.containerd.list().filter(({ chainId }) => chainId === undefined);
  const layers = [...database.snapshots.list(), ...own];
  return {
    bytes: layers.reduce((sum, row) => sum + (row.sizeBytes ?? 0), database.blobs.totalBytes()),
    inodes: layers.reduce((sum, row) => sum + (row.inodes ?? 0), database.blobs.list().length),
  };
}
