/** Leases for work that no reference protects yet. */

import type { Database } from "../../metadata/database.js";
import { TRANSIENT_LABEL } from "../../metadata/labels.js";
import type { LeaseResource } from "../../metadata/lease-table.js";

/**
 * Runs `work` under a lease that keeps `resources` (and what they refer to) from garbage collection
 * until it settles. A lease that a crash leaves behind is deleted at the next start: nothing waits
 * for the disk, neither at its beginning nor at its end.
 */
export async function withLease<R>(
  database: Database,
  resources: readonly LeaseResource[],
  work: (lease: string) => Promise<R>,
): Promise<R> {
  const { id } = database.lazyTransaction(() => {
    const lease = database.leases.create({ labels: { [TRANSIENT_LABEL]: "true" } });
    for (const resource of resources) database.leases.addResource(lease.id, resource);
    return lease;
  });
  try {
    return await work(id);
  } finally {
    database.lazyTransaction(() => database.leases.delete(id));
  }
}
