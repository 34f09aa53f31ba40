/** Finding the names of a hard-linked lower file in the view, to link them all when it is copied up. */

import type { NodeId, Result } from "../fuse/file-system.js";
import { S_IFDIR } from "../system/constants.js";
import type { EntryLocation } from "./chain-index.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";

/** More names than this are linked into the upper only when somebody visits them. */
const LINK_AT_ONCE = 1024;

/**
 * Links the lower names of a copied-up file into the upper, so that the upper directory alone shows
 * the whole change. Best effort: names left out are still the same file in the view.
 *
 * @param ensureUpperDirectory gives a name's directory its upper part
 */
export function linkLowerNames(
  tree: OverlayTree,
  inode: number,
  ensureUpperDirectory: (tree: OverlayTree, id: NodeId) => Result,
): void {
  const names = tree.index.names(inode);
  if (names.length > LINK_AT_ONCE) return;
  const node = tree.hardLinks.node(inode);
  const isPresent = ({ parent, name }: EntryLocation) =>
    isVisible(tree, parent) && tree.find(parent, name) === inode;
  let present = names.filter(isPresent);
  if (present.length < names.length) {
    // A name is nowhere to be found before the file's first copy-up: its directory was moved in an
    // earlier session and not visited since. The upper directory knows where to.
    visitUpperDirectories(tree);
    present = names.filter(isPresent);
  }
  for (const { parent, name } of present) {
    if (ensureUpperDirectory(tree, parent) < 0) return;
    if (tree.hardLinks.linkName(node, parent, name) < 0) return;
  }
}

/** True when a lower directory is in the view, at its own place or at a known other one. */
function isVisible(tree: OverlayTree, directory: number): boolean {
  const node = tree.nodes.get(directory);
  if (node !== undefined) return !node.removed && node.lower === directory;
  const parent = tree.index.parent(directory);
  if (!isVisible(tree, parent)) return false;
  return tree.find(parent, tree.index.name(directory)) === directory;
}

/** Gets to know every directory with an upper part. */
function visitUpperDirectories(tree: OverlayTree): void {
  const pending: OverlayNode[] = [tree.nodes.get(1)!];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    const state = tree.directory(node);
    if (typeof state === "number") continue;
    for (const entry of state.names()) {
      if (entry.type !== S_IFDIR) continue;
      const id = tree.attach(node, state, entry);
      const child = id > 0 ? tree.nodes.get(id) : undefined;
      if (child !== undefined) pending.push(child);
    }
  }
}
