/** Leases that a person or a program holds: what they list is kept until they are removed or expire. */

import { isDigest } from "../../content/digest.js";
import type { Labels } from "../../metadata/labels.js";
import { TRANSIENT_LABEL } from "../../metadata/labels.js";
import type { LeaseResource, LeaseRow } from "../../metadata/lease-table.js";
import { InvalidArgumentError, NotFoundError } from "../../system/errors.js";
import type { Core } from "../core.js";

/** A lease with what it keeps. */
export interface HeldLease {
  readonly lease: LeaseRow;
  readonly resources: readonly LeaseResource[];
  /** Of work that is under way. */
  readonly isTransient: boolean;
}

/** What a lease is to be; an empty `id` means a random one, no seconds mean no end. */
export interface NewLease {
  readonly id: string;
  readonly lifetimeSeconds: number;
  readonly labels: Labels;
  /** Names or IDs of images, digests of blobs, chain IDs. */
  readonly resources: readonly string[];
}

const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
// A century: beyond it the sum of times does not fit the database's integers any more.
const MAX_LIFETIME_SECONDS = 100 * 366 * 24 * 3600;

/**
 * Creates a lease. Images are kept as they are now: a name that moves later is not followed.
 *
 * @throws NotFoundError, InvalidArgumentError a resource is not here, or ambiguous
 * @throws InvalidArgumentError a malformed ID or lifetime
 * @throws AlreadyExistsError the ID is taken
 */
export async function createLease(core: Core, wanted: NewLease): Promise<HeldLease> {
  const { id, lifetimeSeconds, labels } = wanted;
  if (id !== "" && !ID.test(id)) {
    throw new InvalidArgumentError(
      `lease ${JSON.stringify(id)}: want at most 128 letters, digits, "_", "." and "-"`,
    );
  }
  if (lifetimeSeconds < 0 || lifetimeSeconds > MAX_LIFETIME_SECONDS) {
    throw new InvalidArgumentError(`lease: a lifetime of ${lifetimeSeconds} s is out of range`);
  }
  const { [TRANSIENT_LABEL]: _, ...own } = labels;
  const found = await Promise.all(wanted.resources.map((text) => findResources(core, text)));
  const { leases } = core.database;
  const lease = core.database.transaction(() => {
    const made = leases.create({
      ...(id === "" ? {} : { id }),
      ...(lifetimeSeconds === 0 ? {} : { lifetimeMs: lifetimeSeconds * 1000 }),
      labels: own,
    });
    for (const resource of found.flat()) {
      checkHere(core, resource);
      leases.addResource(made.id, resource);
    }
    return made;
  });
  core.events.publish("lease", "create", lease.id, own);
  return { lease, resources: leases.resources(lease.id), isTransient: false };
}

async function findResources(core: Core, text: string): Promise<LeaseResource[]> {
  if (isDigest(text)) {
    if (core.snapshots.has(text)) return [{ type: "snapshot", id: text }];
    if (core.content.has(text)) return [{ type: "content", id: text }];
  }
  const image = await core.images.get(text);
  // An image that only a view keeps has no names, but a manifest.
  const targets = image.targets.length === 0 ? [image.digest] : image.targets;
  return targets.map((digest) => ({ type: "content", id: digest }));
}

/** It may have gone while others were looked up. */
function checkHere(core: Core, { type, id }: LeaseResource): void {
  const store = type === "content" ? core.content : core.snapshots;
  if (isDigest(id) && store.has(id)) return;
  throw new NotFoundError(`lease: ${type} ${id} has been removed meanwhile`);
}

/** Every lease that has not expired, oldest first. */
export function listLeases(core: Core): HeldLease[] {
  const { leases } = core.database;
  return leases
    .list()
    .filter((lease) => !leases.isExpired(lease))
    .map((lease) => ({
      lease,
      resources: leases.resources(lease.id),
      isTransient: lease.labels[TRANSIENT_LABEL] !== undefined,
    }));
}

/**
 * Removes a lease; what it kept goes at the next collection.
 *
 * @throws NotFoundError; InvalidArgumentError an ambiguous prefix
 * @throws InvalidArgumentError the lease is of work that is under way
 */
export function removeLease(core: Core, text: string): void {
  const all = listLeases(core);
  const exact = all.filter(({ lease }) => lease.id === text);
  const matches =
    exact.length > 0 || text === "" ? exact : all.filter(({ lease }) => lease.id.startsWith(text));
  if (matches.length > 1) {
    const ids = matches.map(({ lease }) => lease.id).join(", ");
    throw new InvalidArgumentError(`remove lease ${text}: ambiguous: ${ids}; give more characters`);
  }
  const [match] = matches;
  if (match === undefined) throw new NotFoundError(`remove lease ${text}: no such lease`);
  const { lease, isTransient } = match;
  if (isTransient) {
    throw new InvalidArgumentError(
      `remove lease ${lease.id}: it belongs to work that is under way and goes with it`,
    );
  }
  core.database.leases.delete(lease.id);
  core.events.publish("lease", "delete", lease.id, lease.labels);
}
