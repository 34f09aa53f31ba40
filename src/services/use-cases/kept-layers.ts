/**
 * Layers that an unfinished pull has brought: a lease that outlives the pull, and the daemon, keeps
 * them for the next try.
 */

import { type Digest, digestOf } from "../../content/digest.js";
import type { Database } from "../../metadata/database.js";
import { UNFINISHED_PULL_LABEL } from "../../metadata/labels.js";

const KEEP_MS = 24 * 3600 * 1000;

/** One lease per reference, so that tries that nobody ends do not add up. */
function leaseId(reference: string): string {
  return `pull-${digestOf(reference).slice("sha256:".length)}`;
}

/** Keeps a blob for a day from the first one that was kept. */
export function keepLayer(database: Database, reference: string, digest: Digest): void {
  const { leases } = database;
  const id = leaseId(reference);
  database.transaction(() => {
    // Another pull of the same reference may have ended meanwhile.
    if (leases.get(id) === undefined) {
      leases.create({ id, lifetimeMs: KEEP_MS, labels: { [UNFINISHED_PULL_LABEL]: reference } });
    }
    leases.addResource(id, { type: "content", id: digest });
  });
}

/** Lets go of what was kept: the reference holds it now. */
export function forgetKept(database: Database, reference: string): void {
  database.leases.delete(leaseId(reference));
}
