/** Set-id bits after a write or truncation by somebody without CAP_FSETID. */

import type { NodeId, Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import { S_IALLUGO, S_ISGID, S_ISUID, S_IXGRP } from "../system/constants.js";
import { ESTALE } from "../system/errno.js";
import { STAT_MODE } from "../system/native.js";
import type { OverlayTree } from "./overlay-tree.js";

/**
 * Clears set-user-ID, and set-group-ID where the group may execute, as the VFS does on a write. Such a
 * write is told by the kernel, where it knows how; whoever else changes data is taken for one that may
 * leave the bits if it is root.
 */
export function clearSetId(tree: OverlayTree, id: NodeId): Result {
  const node = tree.node(id);
  if (node === undefined || !node.hasUpper) return -ESTALE;
  const result = tree.statUpper(node);
  if (result < 0) return result;
  const mode = tree.stat[STAT_MODE]!;
  let kept = mode & ~S_ISUID;
  if ((mode & S_IXGRP) !== 0) kept &= ~S_ISGID;
  if (kept === mode) return 0;
  const cleared = sys.fchmodat(tree.holderFd(node), node.places[0]!.name, kept & S_IALLUGO);
  // The kernel would go on running the file with the rights of its owner.
  if (cleared >= 0) tree.kernel?.expireAttributes(id, node.incarnation);
  return cleared;
}
