/**
 * Layers that containerd need not unpack because varve has them: when containerd prepares the snapshot
 * that it would unpack a layer into, it says which chain it is for (a label). Is that chain one of ours, a
 * committed snapshot that shares its directory appears in containerd's key space, and the answer
 * is ALREADY_EXISTS; containerd then looks for a committed snapshot with that label and parent, and
 * neither fetches nor unpacks the layer. So it works with the layers of images that were pulled by varve,
 * and with those that containerd has forgotten meanwhile.
 *
 * Invariant: a shared row keeps our snapshot from collection, and the parent of a shared row is shared.
 * Layers that containerd unpacked itself are no parents for ours: the index of a chain holds only for the
 * trees that it was made from.
 *
 * @see containerd, "Remote Snapshotter" documentation (docs/remote-snapshotter.md)
 */

import type { ContainerdRow } from "../metadata/containerd-table.js";
import type { Database } from "../metadata/database.js";
import type { Digest } from "../metadata/digest.js";
import type { Labels } from "../metadata/labels.js";
import type { ProxyDirectories } from "./proxy-directories.js";

/** What sharing asks of the owner of our own layers. */
export interface Sharing {
  /** Waits until all of them are durable. */
  settle(): Promise<void>;
  /** Waits until a chain has an index. */
  readyIndex(chainId: Digest): Promise<unknown>;
}

/** Names the chain that a snapshot is prepared for. */
export const CHAIN_LABEL = "containerd.io/snapshot.ref";

/**
 * Makes the committed snapshot that stands for the chain which `labels` name, if there is none yet.
 *
 * @param parent the committed snapshot below it
 * @returns false when the chain is none of ours, or not on top of this parent
 */
export function shareChain(
  database: Database,
  directories: ProxyDirectories,
  labels: Labels,
  parent: ContainerdRow | undefined,
): boolean {
  const chainId = labels[CHAIN_LABEL] as Digest | undefined;
  if (chainId === undefined) return false;
  const { containerd, snapshots } = database;
  const chain = snapshots.get(chainId);
  if (chain === undefined || chain.kind !== "committed") return false;
  if (chain.parent !== parent?.chainId) return false;
  if (parent !== undefined && parent.chainId === undefined) return false;
  // One for all namespaces of containerd.
  const key = `varve/${parent?.id ?? 0}/${chainId}`;
  if (containerd.get(key) !== undefined) return true;
  database.transaction(() => {
    const row = containerd.insertShared({
      ...{ key, chainId, parentId: parent?.id, labels: { [CHAIN_LABEL]: chainId } },
      ...{ sizeBytes: chain.sizeBytes, inodes: chain.inodes },
    });
    directories.share(row.id, chainId);
  });
  return true;
}
