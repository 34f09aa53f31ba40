/**
 * The file format of a chain index: a header, a table of sections, and one typed array per section.
 *
 * All numbers are little-endian and every section starts at a multiple of 8, so that a reader uses
 * the file's bytes in place. Slot 0 of the per-inode sections is unused: inodes count from 1.
 * Inodes are numbered breadth first, the children of one directory in byte order of their names, so
 * that the entries of directory `d` are `firstEntry[d]` to `firstEntry[d + 1] - 1` and reading a
 * directory with attributes goes through memory in order.
 *
 *     0  "VARVEIDX"          24  u32 layer count       44  u32 number of sections
 *     8  u32 version         28  u32 text count        48  u32 CRC-32 of the body
 *    12  u32 header length   32  u32 xattr set count   52  u32 CRC-32 of the header (this field 0)
 *    16  u32 inode count     36  u32 linked inodes     56  f64 length of the file
 *    20  u32 entry count     40  u32 extra names       64  per section: f64 offset, f64 byte length
 */

import { endianness } from "node:os";
import { crc32 } from "node:zlib";
import { CorruptDataError, UnsupportedError } from "../system/errors.js";

const MAGIC = "VARVEIDX";
const SLASH = 0x2f;
const DOT = 0x2e;
/** Version of the format; a reader refuses every other. */
export const INDEX_VERSION = 1;
const HEADER_FIXED = 64;

/** Bit of `flags`: the inode's data is not on the local disk yet (lazily pulled layers). */
export const FLAG_CONTENT_ABSENT = 1;

/** The arrays of an index, by section. "ref" values count from 1; 0 means none. */
export interface IndexArrays {
  // Per inode.
  size: Float64Array;
  blocks: Float64Array;
  atimeSec: Float64Array;
  mtimeSec: Float64Array;
  ctimeSec: Float64Array;
  atimeNsec: Uint32Array;
  mtimeNsec: Uint32Array;
  ctimeNsec: Uint32Array;
  mode: Uint32Array;
  nlink: Uint32Array;
  uid: Uint32Array;
  gid: Uint32Array;
  rdev: Uint32Array;
  /** Position in the list of layers. */
  layer: Uint32Array;
  /** The directory of the first name. */
  parent: Uint32Array;
  /** The entry of the first name; 0 and meaningless for the root. */
  firstName: Uint32Array;
  /** Xattr set ref. */
  xattrSet: Uint32Array;
  /** Text ref of a symlink's target. */
  target: Uint32Array;
  /** Text ref of the path in the layer's fs, where it differs from the merged path. */
  content: Uint32Array;
  /** One slot more than inodes: the end of the last directory. */
  firstEntry: Uint32Array;
  /** FLAG_* bits. */
  flags: Uint8Array;
  // Per entry.
  entryInode: Uint32Array;
  /** Start of each name in `names`, one slot more than entries. */
  nameStart: Uint32Array;
  // Inodes with several names, ascending; each owns a run of `linkEntry`, its names after the first.
  linkInode: Uint32Array;
  linkStart: Uint32Array;
  linkEntry: Uint32Array;
  // Heaps.
  /** Start of each text, one slot more than texts (ref r is text r - 1). */
  textStart: Uint32Array;
  /** Start of each xattr set, one slot more than sets. */
  xattrStart: Uint32Array;
  names: Uint8Array;
  texts: Uint8Array;
  /** Sets: per attribute u16 name length, u32 value length, name, value. */
  xattrs: Uint8Array;
  /** Chain IDs, each ended by a line feed. */
  layers: Uint8Array;
}

/** How many there are of each counted thing. */
export interface IndexCounts {
  readonly inodes: number;
  readonly entries: number;
  readonly layers: number;
  readonly texts: number;
  readonly xattrSets: number;
  readonly linkedInodes: number;
  readonly extraNames: number;
}

const COUNT_OFFSETS: readonly (readonly [keyof IndexCounts, number])[] = [
  ["inodes", 16],
  ["entries", 20],
  ["layers", 24],
  ["texts", 28],
  ["xattrSets", 32],
  ["linkedInodes", 36],
  ["extraNames", 40],
];

type ArrayKind =
  | typeof Float64Array<ArrayBuffer>
  | typeof Uint32Array<ArrayBuffer>
  | typeof Uint8Array<ArrayBuffer>;
type Section = readonly [
  keyof IndexArrays,
  ArrayKind,
  /** Elements, or undefined for a heap of any length. */
  ((counts: IndexCounts) => number) | undefined,
];

const perInode = (counts: IndexCounts) => counts.inodes + 1;

/** The sections in file order. */
const SECTIONS: readonly Section[] = [
  ["size", Float64Array, perInode],
  ["blocks", Float64Array, perInode],
  ["atimeSec", Float64Array, perInode],
  ["mtimeSec", Float64Array, perInode],
  ["ctimeSec", Float64Array, perInode],
  ["atimeNsec", Uint32Array, perInode],
  ["mtimeNsec", Uint32Array, perInode],
  ["ctimeNsec", Uint32Array, perInode],
  ["mode", Uint32Array, perInode],
  ["nlink", Uint32Array, perInode],
  ["uid", Uint32Array, perInode],
  ["gid", Uint32Array, perInode],
  ["rdev", Uint32Array, perInode],
  ["layer", Uint32Array, perInode],
  ["parent", Uint32Array, perInode],
  ["firstName", Uint32Array, perInode],
  ["xattrSet", Uint32Array, perInode],
  ["target", Uint32Array, perInode],
  ["content", Uint32Array, perInode],
  ["firstEntry", Uint32Array, (counts) => counts.inodes + 2],
  ["flags", Uint8Array, perInode],
  ["entryInode", Uint32Array, (counts) => counts.entries],
  ["nameStart", Uint32Array, (counts) => counts.entries + 1],
  ["linkInode", Uint32Array, (counts) => counts.linkedInodes],
  ["linkStart", Uint32Array, (counts) => counts.linkedInodes + 1],
  ["linkEntry", Uint32Array, (counts) => counts.extraNames],
  ["textStart", Uint32Array, (counts) => counts.texts + 1],
  ["xattrStart", Uint32Array, (counts) => counts.xattrSets + 1],
  ["names", Uint8Array, undefined],
  ["texts", Uint8Array, undefined],
  ["xattrs", Uint8Array, undefined],
  ["layers", Uint8Array, undefined],
];

const HEADER_LENGTH = HEADER_FIXED + SECTIONS.length * 16;
const align8 = (length: number) => Math.ceil(length / 8) * 8;

/**
 * Encodes an index as the buffers of its file, header first. The buffers alias `arrays`; padding is
 * in buffers of its own.
 */
export function encodeIndex(arrays: IndexArrays, counts: IndexCounts): Buffer[] {
  requireLittleEndian();
  const header = Buffer.alloc(HEADER_LENGTH);
  const parts: Buffer[] = [header];
  let position = HEADER_LENGTH;
  let checksum = 0;
  SECTIONS.forEach(([name], section) => {
    const array = arrays[name];
    header.writeDoubleLE(position, HEADER_FIXED + section * 16);
    header.writeDoubleLE(array.byteLength, HEADER_FIXED + section * 16 + 8);
    const padding = Buffer.alloc(align8(array.byteLength) - array.byteLength);
    for (const part of [Buffer.from(array.buffer, array.byteOffset, array.byteLength), padding]) {
      if (part.length === 0) continue;
      checksum = crc32(part, checksum);
      parts.push(part);
      position += part.length;
    }
  });
  header.write(MAGIC, 0, "latin1");
  header.writeUInt32LE(INDEX_VERSION, 8);
  header.writeUInt32LE(HEADER_LENGTH, 12);
  for (const [count, offset] of COUNT_OFFSETS) header.writeUInt32LE(counts[count], offset);
  header.writeUInt32LE(SECTIONS.length, 44);
  header.writeUInt32LE(checksum, 48);
  header.writeDoubleLE(position, 56);
  header.writeUInt32LE(crc32(header), 52);
  return parts;
}

/**
 * Checks an index file's bytes and returns arrays that alias them.
 *
 * @param path names the file in errors
 * @throws CorruptDataError not an index, another version, cut short, or a checksum that does not match
 */
export function decodeIndex(
  file: ArrayBuffer,
  path: string,
): { arrays: IndexArrays; counts: IndexCounts } {
  requireLittleEndian();
  const corrupt = (reason: string): never => {
    throw new CorruptDataError(`open chain index ${path}: ${reason}`);
  };
  const header = checkHeader(file, corrupt);
  const counts = Object.fromEntries(
    COUNT_OFFSETS.map(([count, offset]) => [count, header.readUInt32LE(offset)]),
  ) as unknown as IndexCounts;
  const sections = SECTIONS.map(([name, Kind, expected], section) => {
    const offset = header.readDoubleLE(HEADER_FIXED + section * 16);
    const bytes = header.readDoubleLE(HEADER_FIXED + section * 16 + 8);
    const isInside = offset >= HEADER_LENGTH && bytes >= 0 && offset + bytes <= file.byteLength;
    if (!isInside || offset % 8 !== 0) corrupt(`section ${name} lies outside the file`);
    const length = bytes / Kind.BYTES_PER_ELEMENT;
    if (expected !== undefined && expected(counts) !== length)
      corrupt(`section ${name} has ${length} elements, not ${expected(counts)}`);
    return [name, new Kind(file, offset, length)];
  });
  const arrays = Object.fromEntries(sections) as unknown as IndexArrays;
  checkReferences(arrays, counts, corrupt);
  return { arrays, counts };
}

function checkHeader(file: ArrayBuffer, corrupt: (reason: string) => never): Buffer {
  if (file.byteLength < HEADER_LENGTH) corrupt("it is too short to be one");
  const header = Buffer.from(Buffer.from(file, 0, HEADER_LENGTH));
  if (header.toString("latin1", 0, 8) !== MAGIC) corrupt("it does not start with VARVEIDX");
  const version = header.readUInt32LE(8);
  if (version !== INDEX_VERSION)
    corrupt(`it has version ${version}, this varve reads ${INDEX_VERSION}; unpack the image again`);
  const checksum = header.readUInt32LE(52);
  header.writeUInt32LE(0, 52);
  if (crc32(header) !== checksum) corrupt("its header is damaged (checksum)");
  if (header.readUInt32LE(12) !== HEADER_LENGTH || header.readUInt32LE(44) !== SECTIONS.length)
    corrupt("its section table has another shape");
  if (header.readDoubleLE(56) !== file.byteLength)
    corrupt(`it has ${file.byteLength} bytes, not ${header.readDoubleLE(56)}`);
  if (crc32(Buffer.from(file, HEADER_LENGTH)) !== header.readUInt32LE(48))
    corrupt("its content is damaged (checksum)");
  return header;
}

/**
 * The checksum guards against damage, this against a builder's mistake or a forged file: no number
 * in the arrays may lead outside them, so that readers need no checks of their own.
 */
function checkReferences(
  arrays: IndexArrays,
  counts: IndexCounts,
  corrupt: (reason: string) => never,
): void {
  const { inodes, entries } = counts;
  if (inodes < 1) corrupt("it has no root directory");
  const ascends = (starts: Uint32Array, end: number, from = 0) => {
    for (let slot = from + 1; slot < starts.length; slot += 1)
      if (starts[slot]! < starts[slot - 1]!) return false;
    return (starts.at(-1) ?? 0) === end;
  };
  const below = (values: Uint32Array, limit: number, from: number) => {
    for (let slot = from; slot < values.length; slot += 1) if (values[slot]! >= limit) return false;
    return true;
  };
  const isSound =
    ascends(arrays.firstEntry, entries, 1) &&
    ascends(arrays.nameStart, arrays.names.length) &&
    ascends(arrays.textStart, arrays.texts.length) &&
    ascends(arrays.xattrStart, arrays.xattrs.length) &&
    ascends(arrays.linkStart, counts.extraNames) &&
    below(arrays.entryInode, inodes + 1, 0) &&
    below(arrays.parent, inodes + 1, 1) &&
    below(arrays.firstName, Math.max(1, entries), 1) &&
    below(arrays.linkEntry, entries, 0) &&
    below(arrays.target, counts.texts + 1, 1) &&
    below(arrays.content, counts.texts + 1, 1) &&
    below(arrays.xattrSet, counts.xattrSets + 1, 1) &&
    below(arrays.layer, Math.max(1, counts.layers), 1);
  if (!isSound) corrupt("its numbers lead outside it");
  // Parents come before their children, so that climbing to the root always ends.
  for (let inode = 2; inode <= inodes; inode += 1)
    if (arrays.parent[inode]! >= inode || arrays.parent[inode] === 0)
      corrupt(`inode ${inode} has no earlier parent`);
  if (!areNames(arrays)) corrupt("one of its names cannot be a file's");
}

/** False when a name could lead anywhere: it is empty, a dot or two, or has a slash or zero byte in it. */
function areNames({ names, nameStart }: IndexArrays): boolean {
  if (names.includes(SLASH) || names.includes(0)) return false;
  for (let entry = 1; entry < nameStart.length; entry += 1) {
    const start = nameStart[entry - 1]!;
    const length = nameStart[entry]! - start;
    if (length > 2) continue;
    if (length === 0) return false;
    if (names[start] === DOT && (length === 1 || names[start + 1] === DOT)) return false;
  }
  return true;
}

function requireLittleEndian(): void {
  if (endianness() !== "LE")
    throw new UnsupportedError("chain index: this machine is big-endian, the format is not");
}
