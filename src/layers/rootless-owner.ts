/**
 * Owners that a user without root cannot give to files: kept beside the file, in the attribute that umoci and
 * other tools use for it. A file without it belongs to the image's root.
 *
 * @see rootlesscontaine.rs, message Resource: uint32 uid = 1, gid = 2, in protobuf
 */

import { type ByteString, toBytes } from "../system/bytes.js";

/** The attribute's name; regular files and directories can have it. */
export const OWNER_ATTRIBUTE: ByteString = toBytes("user.rootlesscontainers");

/** The image's owner of a file. */
export interface ImageOwner {
  readonly uid: number;
  readonly gid: number;
}

const UID_FIELD = 0x08;
const GID_FIELD = 0x10;
const MAX_ID = 2 ** 32 - 1;

/** The attribute's value. */
export function encodeOwner({ uid, gid }: ImageOwner): Buffer {
  return Buffer.from([...field(UID_FIELD, uid), ...field(GID_FIELD, gid)]);
}

function field(tag: number, id: number): number[] {
  // Zero is what an absent field means.
  if (id === 0) return [];
  const bytes = [tag];
  let rest = id;
  for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return [...bytes, rest];
}

/** What a value says; undefined when it is none, which programs may have written. */
export function decodeOwner(value: Buffer): ImageOwner | undefined {
  const owner = { uid: 0, gid: 0 };
  for (let at = 0; at < value.length; ) {
    const tag = value[at++]!;
    let id = 0;
    let scale = 1;
    for (;;) {
      const byte = value[at++];
      if (byte === undefined) return undefined;
      id += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (id > MAX_ID || (tag !== UID_FIELD && tag !== GID_FIELD)) return undefined;
    owner[tag === UID_FIELD ? "uid" : "gid"] = id;
  }
  return owner;
}

/** True when this process cannot change owners: it keeps them in the attribute. */
export function keepsOwnersBeside(privileged: boolean): boolean {
  // Root of a user namespace can, as far as IDs are mapped.
  return !privileged && process.geteuid?.() !== 0;
}
