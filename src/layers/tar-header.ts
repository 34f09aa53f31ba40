/**
 * One 512-byte tar header block: where its fields stand, and how they are read.
 *
 * @see POSIX.1-2017 pax, "ustar Interchange Format"
 * @see GNU tar manual, "Basic Tar Format" (base-256 numbers, old GNU sparse files)
 */

import { type ByteString, fromBuffer } from "../system/bytes.js";
import { CorruptDataError } from "../system/errors.js";
import { TAR_BLOCK } from "./tar-entry.js";

/** Field positions as [offset, length]. */
export const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkName: [157, 100],
  magic: [257, 8],
  devMajor: [329, 8],
  devMinor: [337, 8],
  prefix: [345, 155],
  /** GNU: four [offset, length] pairs of 12-byte numbers. */
  sparseMap: [386, 96],
  /** GNU: not zero when a block with more pairs follows. */
  sparseExtended: [482, 1],
  sparseRealSize: [483, 12],
} as const satisfies Record<string, readonly [number, number]>;

/** "ustar", NUL, version "00". */
export const USTAR_MAGIC = "ustar\x0000";
const GNU_MAGIC = "ustar  \0";

/** A header block's fields, before pax records and GNU long names are merged in. */
export interface RawHeader {
  /** Prefix and name joined. */
  path: ByteString;
  /** Type flag as a character code. */
  type: number;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of body as the header states them. */
  size: number;
  mtimeSec: number;
  linkName: ByteString;
  devMajor: number;
  devMinor: number;
  isGnu: boolean;
}

/** True for a block of zeros, two of which end an archive. */
export function isZeroBlock(block: Buffer, at: number): boolean {
  for (let position = at; position < at + TAR_BLOCK; position++) {
    if (block[position] !== 0) return false;
  }
  return true;
}

/** The unsigned checksum of a block, its own field counted as spaces. */
export function headerChecksum(block: Buffer, at: number): number {
  let sum = 8 * 0x20;
  for (let position = at; position < at + 148; position++) sum += block[position] as number;
  for (let position = at + 156; position < at + TAR_BLOCK; position++) {
    sum += block[position] as number;
  }
  return sum;
}

/** Bytes above 127 count as negative in archives of tars whose `char` was signed. */
function signedChecksum(block: Buffer, at: number): number {
  let sum = headerChecksum(block, at);
  for (let position = at; position < at + TAR_BLOCK; position++) {
    const inChecksum = position >= at + 148 && position < at + 156;
    if (!inChecksum && (block[position] as number) > 127) sum -= 256;
  }
  return sum;
}

/** The bytes of a NUL-terminated (or full) field. */
export function readText(block: Buffer, start: number, length: number): ByteString {
  let end = start;
  const limit = start + length;
  while (end < limit && block[end] !== 0) end++;
  return fromBuffer(block, start, end);
}

/** A big-endian two's complement number whose first byte has its top bit as the format's mark. */
function readBase256(block: Buffer, start: number, length: number): number {
  const first = block[start] as number;
  const negative = (first & 0x40) !== 0;
  let value = negative ? (first & 0x7f) - 0x80 : first & 0x7f;
  for (let position = start + 1; position < start + length; position++) {
    value = value * 256 + (block[position] as number);
  }
  return value;
}

/**
 * Reads a number field: octal text, or GNU's base-256 when the top bit of its first byte is set.
 *
 * @returns undefined for what is neither, or is beyond 2^53
 */
export function readNumber(block: Buffer, start: number, length: number): number | undefined {
  if ((block[start] as number) & 0x80) {
    const value = readBase256(block, start, length);
    return Number.isSafeInteger(value) ? value : undefined;
  }
  let position = start;
  const limit = start + length;
  while (position < limit && block[position] === 0x20) position++;
  let value = 0;
  for (; position < limit; position++) {
    const digit = (block[position] as number) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  // Only terminators may follow: spaces and NULs, in any mix that old tars produced.
  for (; position < limit; position++) {
    const byte = block[position];
    if (byte === 0) break;
    if (byte !== 0x20) return undefined;
  }
  return value;
}

function requireNumber(
  block: Buffer,
  at: number,
  field: keyof typeof FIELD,
  where: string,
): number {
  const [offset, length] = FIELD[field];
  const value = readNumber(block, at + offset, length);
  if (value === undefined) throw new CorruptDataError(`${where}: tar header: bad ${field} field`);
  return value;
}

function readPath(block: Buffer, at: number, isUstar: boolean): ByteString {
  const name = readText(block, at + FIELD.name[0], FIELD.name[1]);
  if (!isUstar || block[at + FIELD.prefix[0]] === 0) return name;
  // star's variant ends with "tar\0" and keeps times in the last bytes of the prefix.
  const isStar = block.toString("latin1", at + 508, at + 512) === "tar\0";
  const prefix = readText(block, at + FIELD.prefix[0], isStar ? 131 : FIELD.prefix[1]);
  return prefix === "" ? name : (`${prefix}/${name}` as ByteString);
}

/**
 * Decodes one v7, ustar or GNU header block.
 *
 * @param block borrowed; the 512 bytes from `at` are read and not kept
 * @param where what to name in an error: archive and position
 * @throws CorruptDataError checksum mismatch or a malformed number
 */
export function decodeHeader(block: Buffer, at: number, where: string): RawHeader {
  const checksum = readNumber(block, at + FIELD.checksum[0], FIELD.checksum[1]);
  if (checksum !== headerChecksum(block, at) && checksum !== signedChecksum(block, at)) {
    throw new CorruptDataError(`${where}: not a tar header (checksum mismatch)`);
  }
  const magic = block.toString("latin1", at + FIELD.magic[0], at + FIELD.magic[0] + FIELD.magic[1]);
  const isGnu = magic === GNU_MAGIC;
  // Some writers leave the version blank; the magic alone says that a prefix field exists.
  const isUstar = magic.startsWith("ustar\0");
  const type = block[at + FIELD.type[0]] as number;
  // "3" and "4" are devices; old tars leave garbage in these fields of other types.
  const hasDevice = (isGnu || isUstar) && (type === 0x33 || type === 0x34);
  return {
    path: readPath(block, at, isUstar),
    type,
    mode: requireNumber(block, at, "mode", where) & 0o7777,
    uid: requireNumber(block, at, "uid", where),
    gid: requireNumber(block, at, "gid", where),
    size: requireNumber(block, at, "size", where),
    mtimeSec: requireNumber(block, at, "mtime", where),
    linkName: readText(block, at + FIELD.linkName[0], FIELD.linkName[1]),
    devMajor: hasDevice ? requireNumber(block, at, "devMajor", where) : 0,
    devMinor: hasDevice ? requireNumber(block, at, "devMinor", where) : 0,
    isGnu,
  };
}
