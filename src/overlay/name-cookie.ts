/** Directory cookies of names that have no position in a chain index. */

import type { ByteString } from "../system/bytes.js";

/** Above every position in an index, whose entries are counted with 32 bits. */
const FIRST = 2 ** 33;
/** Room for names of the same hash; past it they take their neighbours'. */
const ROOM = 16;

/**
 * A number between 2^33 and 2^53 that depends on the name alone: where its place in a listing begins.
 * Two of a million names share one with a probability of 1 in 500.
 */
export function nameCookie(name: ByteString): number {
  // Two hashes of the FNV-1a kind, mixed at the end as murmur3 does it.
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let at = 0; at < name.length; at++) {
    const byte = name.charCodeAt(at);
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x5bd1e995);
  }
  const high = mixed(a);
  const low = mixed(b ^ high) >>> 16;
  return FIRST + ((high >>> 0) * 2 ** 16 + low) * ROOM;
}

function mixed(hash: number): number {
  const once = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35);
  return twice ^ (twice >>> 16);
}
