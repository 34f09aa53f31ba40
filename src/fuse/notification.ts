/** Encodes messages that the kernel did not ask for: a reply header with unique 0 and the kind in place of the error. */

import type { ByteString } from "../system/bytes.js";
import {
  FUSE_EXPIRE_ONLY,
  FUSE_NOTIFY_INVAL_ENTRY,
  FUSE_NOTIFY_INVAL_INODE,
  FUSE_NOTIFY_RESEND,
  OUT_HEADER_BYTES,
} from "./constants.js";
import type { NodeId } from "./file-system.js";
import { INCARNATION_SHIFT } from "./request.js";

const BODY = OUT_HEADER_BYTES;

/** A zeroed message of `bodyBytes` with its header filled in. */
function message(kind: number, bodyBytes: number): { buffer: Buffer; view: DataView } {
  const buffer = Buffer.alloc(BODY + bodyBytes);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  view.setUint32(0, buffer.length, true);
  view.setInt32(4, kind, true);
  return { buffer, view };
}

/**
 * The kernel shall forget what it knows of `name` in `parent` (struct fuse_notify_inval_entry_out:
 * parent 0, namelen 8, flags 12; name, NUL). With `expireOnly` it only asks again at the next use.
 */
export function invalidateEntryMessage(
  parent: NodeId,
  name: ByteString,
  expireOnly: boolean,
): Buffer {
  const { buffer, view } = message(FUSE_NOTIFY_INVAL_ENTRY, 16 + name.length + 1);
  view.setBigUint64(BODY, BigInt(parent), true);
  view.setUint32(BODY + 8, name.length, true);
  view.setUint32(BODY + 12, expireOnly ? FUSE_EXPIRE_ONLY : 0, true);
  buffer.write(name, BODY + 16, "latin1");
  return buffer;
}

/**
 * The kernel shall forget the attributes of `node` and its pages in [offset, offset + length)
 * (struct fuse_notify_inval_inode_out: ino 0, off 8, len 16). A negative offset leaves the pages; a
 * length of 0 or less reaches to the end.
 */
export function invalidateInodeMessage(
  node: NodeId,
  offset: number,
  length: number,
  incarnation = 0,
): Buffer {
  const { buffer, view } = message(FUSE_NOTIFY_INVAL_INODE, 24);
  view.setBigUint64(BODY, BigInt(node), true);
  const upper = view.getUint32(BODY + 4, true) + incarnation * 2 ** INCARNATION_SHIFT;
  view.setUint32(BODY + 4, upper, true);
  view.setBigInt64(BODY + 8, BigInt(offset), true);
  view.setBigInt64(BODY + 16, BigInt(length), true);
  return buffer;
}

/** The kernel shall send again what it had sent and has no answer to. No body. */
export function resendMessage(): Buffer {
  return message(FUSE_NOTIFY_RESEND, 0).buffer;
}
