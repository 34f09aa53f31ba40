/**
 * Making damaged snapshots again from their layers' blobs.
 *
 * An index is built on its parent's, so whatever stands on a damaged snapshot is made again with it.
 * Nothing is touched that a mounted view or a container shows, nor where one of the blobs is not here.
 */

import { chainIdsOf, type Digest } from "../../content/digest.js";
import type { SnapshotRow } from "../../metadata/snapshot-table.js";
import type { LayerToUnpack } from "../../snapshots/unpacker.js";
import { CancelledError } from "../../system/errors.js";
import type { Core } from "../core.js";
import { withLease } from "../use-cases/transient-lease.js";
import type { DamagedSnapshot } from "./check-snapshots.js";
import type { CheckOptions } from "./faults.js";

/** Reports all, after having repaired those that can be. */
export async function repairSnapshots(
  core: Core,
  damaged: readonly DamagedSnapshot[],
  o: CheckOptions,
): Promise<void> {
  const names = new Set(damaged.map(({ row }) => row.name));
  // Those that stand on another damaged one go with it.
  const roots = damaged.filter(({ row }) => row.parent === undefined || !names.has(row.parent));
  const outcomes = new Map<string, Outcome>();
  for (const { row } of roots) {
    const family = withDescendants(core, row);
    const outcome = await makeAgain(core, family, o);
    for (const { name } of family) outcomes.set(name, outcome);
  }
  for (const { row, kind, problem } of damaged) {
    const { isRepaired, remedy } = outcomes.get(row.name)!;
    o.onFault({ kind, object: row.name, problem, isRepaired, remedy });
  }
}

interface Outcome {
  readonly isRepaired: boolean;
  readonly remedy: string;
}

function withDescendants(core: Core, row: SnapshotRow): SnapshotRow[] {
  const family = [row];
  for (const member of family) family.push(...core.database.snapshots.children(member.name));
  return family;
}

async function makeAgain(
  core: Core,
  family: readonly SnapshotRow[],
  o: CheckOptions,
): Promise<Outcome> {
  const user = userOf(core, family);
  if (user !== undefined) {
    return { isRepaired: false, remedy: `${user}; then "varve check --repair" unpacks it again` };
  }
  const chains = chainsOf(core, family);
  if (chains === undefined) {
    const remedy =
      "not all of its layers' blobs are here: pull or load its image again, then repair";
    return { isRepaired: false, remedy };
  }
  if (!o.repair) return { isRepaired: false, remedy: '"varve check --repair" unpacks it again' };
  const blobs = chains.flat().map(({ descriptor }) => descriptor.digest);
  const resources = [...new Set(blobs)].map((id) => ({ type: "content", id }) as const);
  try {
    await withLease(core.database, resources, () => unpackAnew(core, family, chains, o));
    return { isRepaired: true, remedy: "unpacked again" };
  } catch (error) {
    if (error instanceof CancelledError) throw error;
    return {
      isRepaired: false,
      remedy: `it was removed, but could not be unpacked again: ${(error as Error).message}`,
    };
  }
}

async function unpackAnew(
  core: Core,
  family: readonly SnapshotRow[],
  chains: readonly (readonly LayerToUnpack[])[],
  o: CheckOptions,
): Promise<void> {
  const names = family.map((row) => row.name).reverse();
  core.database.transaction(() => {
    for (const name of names) core.database.snapshots.delete(name);
  });
  // In the same tick: the names are free when it is unpacked, by whomever.
  const discarding = core.snapshots.discard(names);
  for (const layers of chains) {
    await core.unpacker.unpack(layers, { signal: o.signal });
    const chainIds = chainIdsOf(layers.map((layer) => layer.diffId));
    layers.forEach(({ descriptor }, position) => {
      core.snapshots.setBlob(chainIds[position]!, descriptor.digest);
    });
  }
  await discarding;
}

/** Who must let go first. */
function userOf(core: Core, family: readonly SnapshotRow[]): string | undefined {
  const names = new Set(family.map((row) => row.name));
  const busy = [...core.unpacker.busy()].find((name) => names.has(name));
  if (busy !== undefined) return "wait until its image is unpacked";
  const { views, database } = core;
  const view = database.views
    .list()
    .find((one) => names.has(one.chainId ?? "") && views.isMounted(one));
  if (view !== undefined) return `unmount view ${view.name}`;
  const shared = database.containerd.list().find(({ chainId }) => names.has(chainId ?? ""));
  return shared === undefined ? undefined : `remove containerd's snapshot ${shared.key}`;
}

/** The whole chain of each snapshot that nothing stands on; undefined when a blob is missing. */
function chainsOf(core: Core, family: readonly SnapshotRow[]): LayerToUnpack[][] | undefined {
  const parents = new Set(family.map((row) => row.parent));
  const chains: LayerToUnpack[][] = [];
  for (const top of family.filter((row) => !parents.has(row.name))) {
    const layers: LayerToUnpack[] = [];
    for (let row: SnapshotRow | undefined = top; row !== undefined; ) {
      const digest = core.snapshots.blobOf(row.name as Digest);
      if (digest === undefined || row.diffId === undefined || !core.content.has(digest)) {
        return undefined;
      }
      const { size, mediaType = "application/vnd.oci.image.layer.v1.tar" } =
        core.content.info(digest);
      layers.unshift({ descriptor: { digest, size, mediaType }, diffId: row.diffId });
      row = row.parent === undefined ? undefined : core.database.snapshots.get(row.parent);
    }
    chains.push(layers);
  }
  return chains;
}
