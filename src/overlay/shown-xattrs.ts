/**
 * IDs inside extended attributes: of POSIX ACLs, and the root user of the namespace in which a file's
 * capabilities count.
 *
 * @see Linux include/uapi/linux/posix_acl_xattr.h, include/uapi/linux/capability.h (vfs_ns_cap_data)
 */

import { EINVAL } from "../system/errno.js";

/** One direction of a translation; -1: there is no such ID on the other side. */
export interface IdTranslator {
  uid(id: number): number;
  gid(id: number): number;
}

const ACL_HEADER_BYTES = 4;
const ACL_ENTRY_BYTES = 8;
const ACL_USER = 0x02;
const ACL_GROUP = 0x08;

/** A translated copy; what is no ACL is left to the kernel to refuse. @returns -EINVAL for an ID without counterpart */
export function translateAcl(value: Buffer, to: IdTranslator): Buffer | number {
  const result = Buffer.from(value);
  for (let at = ACL_HEADER_BYTES; at + ACL_ENTRY_BYTES <= result.length; at += ACL_ENTRY_BYTES) {
    const tag = result.readUInt16LE(at);
    if (tag !== ACL_USER && tag !== ACL_GROUP) continue;
    const id = result.readUInt32LE(at + 4);
    const translated = tag === ACL_USER ? to.uid(id) : to.gid(id);
    if (translated < 0) return -EINVAL;
    result.writeUInt32LE(translated, at + 4);
  }
  return result;
}

const CAPS_V2_BYTES = 20;
const CAPS_V3_BYTES = 24;
const REVISION_MASK = 0xff000000;
const REVISION_2 = 0x02000000;
const REVISION_3 = 0x03000000;

/**
 * Capabilities count in the namespace whose root is the given user; revision 2 says user 0 by being
 * shorter. So what the image gives its root is shown as given to whom root is shown as, and the other way
 * round.
 *
 * @returns -EINVAL for a user without counterpart
 */
export function translateCapabilities(value: Buffer, to: IdTranslator): Buffer | number {
  if (value.length !== CAPS_V2_BYTES && value.length !== CAPS_V3_BYTES) return value;
  const magic = value.readUInt32LE(0);
  const revision = (magic & REVISION_MASK) >>> 0;
  if (revision !== REVISION_2 && revision !== REVISION_3) return value;
  const root = to.uid(revision === REVISION_3 ? value.readUInt32LE(CAPS_V2_BYTES) : 0);
  if (root < 0) return -EINVAL;
  const result = Buffer.alloc(root === 0 ? CAPS_V2_BYTES : CAPS_V3_BYTES);
  value.copy(result, 0, 0, CAPS_V2_BYTES);
  const flags = magic & ~REVISION_MASK;
  result.writeUInt32LE((flags | (root === 0 ? REVISION_2 : REVISION_3)) >>> 0, 0);
  if (root !== 0) result.writeUInt32LE(root, CAPS_V2_BYTES);
  return result;
}
