/**
 * Character devices 0:0 that users make (mknod, RENAME_WHITEOUT; an overlay mounted inside the view
 * does both). On disk they are what the format calls whiteouts; the attribute `varve` with inode 0,
 * which no copied-up object has, tells that this one is to be seen. A layer cannot express it: there
 * it is a whiteout.
 */

import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import type { OverlayAttributes } from "./format.js";
import { encodeInode } from "./upper-object.js";

/** Marks a device 0:0 in the temporary area as visible; needs the privileged namespace. */
export function markVisibleDevice(
  dirfd: number,
  name: ByteString,
  attributes: OverlayAttributes,
): Result {
  return sys.setxattrat(dirfd, name, attributes.varve, encodeInode(0), 0);
}

/** True for a device 0:0 that hides nothing. */
export function isVisibleDevice(
  dirfd: number,
  name: ByteString,
  attributes: OverlayAttributes,
): boolean {
  const value = sys.getxattrat(dirfd, name, attributes.varve);
  return typeof value !== "number" && value.length === 8 && value.readBigUInt64LE() === 0n;
}
