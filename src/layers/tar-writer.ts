/**
 * Encodes tar entries: a plain ustar header where everything fits, a pax header before it where
 * something does not. Names go in as they are, UTF-8 or not, as with GNU tar and Go (POSIX has
 * "hdrcharset=BINARY" for it, but GNU tar warns of that at every entry). The same entry always gives
 * the same bytes: no user names, no times of its own, records sorted by key.
 *
 * @see POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"
 */

import type { ByteString } from "../system/bytes.js";
import { encodePaxRecord, formatPaxTime, xattrKey } from "./pax-records.js";
import {
  bodySize,
  deviceMajor,
  deviceMinor,
  TAR_BLOCK,
  type TarEntry,
  type TarEntryType,
} from "./tar-entry.js";
import { FIELD, USTAR_MAGIC } from "./tar-header.js";

const TYPE_FLAG: Readonly<Record<TarEntryType, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

const PAX_FLAG = "x";
/** Largest numbers of 7 and 11 octal digits. */
const MAX_OCTAL_7 = 0o7777777;
const MAX_OCTAL_11 = 0o77777777777;
const NAME_BYTES = FIELD.name[1];
const PREFIX_BYTES = FIELD.prefix[1];
const ZEROS = Buffer.alloc(2 * TAR_BLOCK);
const NOTHING = "" as ByteString;
const BLANK = 0x20;
const DIGIT_ZERO = 0x30;

/** The two zero blocks that end an archive. Shared; do not change it. */
export const END_OF_ARCHIVE: Buffer = ZEROS;

/** Zeros (0 to 511) that follow a body of `size` bytes. A shared buffer; do not change it. */
export function padding(size: number): Buffer {
  return ZEROS.subarray(0, (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK);
}

/**
 * The header of an entry, ready for the archive: one ustar block, after a pax header if need be, and
 * for an entry with `sparse` before the sparse map (pax format 1.0), which counts as header here.
 * What must follow is the body of `bodySize(entry)` bytes and its `padding`.
 *
 * @returns a new buffer; its length is a multiple of 512
 */
export function encodeEntryHeader(entry: TarEntry): Buffer {
  const path = storedPath(entry);
  const map = entry.sparse === undefined ? undefined : encodeSparseMap(entry);
  const size = entry.type === "file" ? bodySize(entry) + (map?.length ?? 0) : 0;
  const records = paxRecords(entry, path, size);
  const split = splitPath(path);
  const paxLength = records.length === 0 ? 0 : TAR_BLOCK + padded(records.length);
  const buffer = Buffer.allocUnsafe(paxLength + TAR_BLOCK + (map?.length ?? 0));
  if (paxLength > 0) encodePaxHeader(buffer, path, records);
  encodeBlock(buffer, paxLength, {
    name: split?.name ?? (path.slice(0, NAME_BYTES) as ByteString),
    prefix: split?.prefix ?? NOTHING,
    flag: TYPE_FLAG[entry.type],
    mode: entry.mode,
    uid: octalOrZero(entry.uid, MAX_OCTAL_7),
    gid: octalOrZero(entry.gid, MAX_OCTAL_7),
    size: octalOrZero(size, MAX_OCTAL_11),
    mtime: octalOrZero(entry.mtimeSec, MAX_OCTAL_11),
    linkName: entry.linkTarget.slice(0, FIELD.linkName[1]) as ByteString,
    rdev: entry.rdev,
    isDevice: entry.type === "character" || entry.type === "block",
  });
  map?.copy(buffer, paxLength + TAR_BLOCK);
  return buffer;
}

/** `size` rounded up to whole blocks. */
function padded(size: number): number {
  return Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
}

/** Directories end in a slash, as every tar since v7 has it. */
function storedPath(entry: TarEntry): ByteString {
  const isBare = entry.type === "directory" && !entry.path.endsWith("/");
  if (!isBare) return entry.path;
  return (entry.path === "" ? "./" : `${entry.path}/`) as ByteString;
}

/** A number that its field holds, else 0 (a pax record then has it). */
function octalOrZero(value: number, limit: number): number {
  return value >= 0 && value <= limit ? value : 0;
}

/** Splits a path between prefix and name at a slash; undefined when no split fits. */
function splitPath(path: ByteString): { name: ByteString; prefix: ByteString } | undefined {
  if (path.length <= NAME_BYTES) return { name: path, prefix: NOTHING };
  if (path.length > NAME_BYTES + 1 + PREFIX_BYTES) return undefined;
  // The name must not be empty, so a directory's own trailing slash is no place to split.
  const slash = path.lastIndexOf("/", Math.min(PREFIX_BYTES, path.length - 2));
  if (slash <= 0 || path.length - slash - 1 > NAME_BYTES) return undefined;
  return {
    prefix: path.slice(0, slash) as ByteString,
    name: path.slice(slash + 1) as ByteString,
  };
}

/** The records that an entry needs, sorted by key, as one string of bytes. */
function paxRecords(entry: TarEntry, path: ByteString, size: number): ByteString {
  const records: [string, Buffer | string][] = [];
  if (entry.sparse !== undefined) {
    records.push(["GNU.sparse.major", "1"], ["GNU.sparse.minor", "0"]);
    records.push(["GNU.sparse.name", path], ["GNU.sparse.realsize", String(entry.size)]);
  } else if (splitPath(path) === undefined) {
    records.push(["path", path]);
  }
  if (entry.linkTarget.length > FIELD.linkName[1]) records.push(["linkpath", entry.linkTarget]);
  if (entry.uid > MAX_OCTAL_7) records.push(["uid", String(entry.uid)]);
  if (entry.gid > MAX_OCTAL_7) records.push(["gid", String(entry.gid)]);
  if (size > MAX_OCTAL_11) records.push(["size", String(size)]);
  if (entry.mtimeNsec !== 0 || entry.mtimeSec !== octalOrZero(entry.mtimeSec, MAX_OCTAL_11)) {
    records.push(["mtime", formatPaxTime(entry.mtimeSec, entry.mtimeNsec)]);
  }
  for (const xattr of entry.xattrs) records.push([xattrKey(xattr.name), xattr.value]);
  if (records.length > 1) records.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return records.map(([key, value]) => encodePaxRecord(key, value)).join("") as ByteString;
}

/** Fills the start of `buffer` with the header block of `records` and their padded body. */
function encodePaxHeader(buffer: Buffer, path: ByteString, records: ByteString): void {
  const bare = path.endsWith("/") ? path.slice(0, -1) : path;
  const base = bare.slice(bare.lastIndexOf("/") + 1);
  encodeBlock(buffer, 0, {
    // What a tar without pax would extract it as; nobody else looks at it.
    name: `PaxHeaders.0/${base}`.slice(0, NAME_BYTES) as ByteString,
    prefix: NOTHING,
    flag: PAX_FLAG,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: records.length,
    mtime: 0,
    linkName: NOTHING,
    rdev: 0,
    isDevice: false,
  });
  putText(buffer, TAR_BLOCK, records);
  buffer.fill(0, TAR_BLOCK + records.length, TAR_BLOCK + padded(records.length));
}

/** The text map that opens a sparse body: count, then offset and length, padded to blocks. */
function encodeSparseMap(entry: TarEntry): Buffer {
  const extents = [...(entry.sparse ?? [])];
  const last = extents.at(-1);
  // GNU tar marks a hole at the end by an empty run at the file's size.
  if ((last === undefined ? 0 : last.offset + last.length) < entry.size) {
    extents.push({ offset: entry.size, length: 0 });
  }
  const lines = [extents.length, ...extents.flatMap(({ offset, length }) => [offset, length])];
  const text = Buffer.from(`${lines.join("\n")}\n`, "latin1");
  return Buffer.concat([text, padding(text.length)]);
}

interface BlockFields {
  readonly name: ByteString;
  readonly prefix: ByteString;
  readonly flag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly linkName: ByteString;
  readonly rdev: number;
  readonly isDevice: boolean;
}

function encodeBlock(buffer: Buffer, at: number, fields: BlockFields): void {
  buffer.fill(0, at, at + TAR_BLOCK);
  // The sum of all bytes, with the checksum's own as blanks.
  let sum = FIELD.checksum[1] * BLANK;
  sum += putText(buffer, at + FIELD.name[0], fields.name);
  sum += putOctal(buffer, at, FIELD.mode, fields.mode);
  sum += putOctal(buffer, at, FIELD.uid, fields.uid);
  sum += putOctal(buffer, at, FIELD.gid, fields.gid);
  sum += putOctal(buffer, at, FIELD.size, fields.size);
  sum += putOctal(buffer, at, FIELD.mtime, fields.mtime);
  sum += putText(buffer, at + FIELD.type[0], fields.flag);
  sum += putText(buffer, at + FIELD.linkName[0], fields.linkName);
  sum += putText(buffer, at + FIELD.magic[0], USTAR_MAGIC);
  if (fields.isDevice) {
    sum += putOctal(buffer, at, FIELD.devMajor, deviceMajor(fields.rdev));
    sum += putOctal(buffer, at, FIELD.devMinor, deviceMinor(fields.rdev));
  }
  sum += putText(buffer, at + FIELD.prefix[0], fields.prefix);
  // Six digits, NUL, blank.
  putOctal(buffer, at, [FIELD.checksum[0], FIELD.checksum[1] - 1], sum);
  buffer[at + FIELD.checksum[0] + FIELD.checksum[1] - 1] = BLANK;
}

// A call of Buffer's own costs more than these few bytes do.

/** Writes one byte per character; returns their sum. */
function putText(buffer: Buffer, at: number, text: string): number {
  let sum = 0;
  for (let position = 0; position < text.length; position++) {
    const byte = text.charCodeAt(position);
    buffer[at + position] = byte;
    sum += byte;
  }
  return sum;
}

/** Fills a field with octal digits, all but its last byte; returns their sum. */
function putOctal(
  buffer: Buffer,
  at: number,
  [offset, length]: readonly [number, number],
  value: number,
): number {
  let sum = 0;
  let rest = value;
  for (let position = at + offset + length - 2; position >= at + offset; position--) {
    const digit = DIGIT_ZERO + (rest & 7);
    // Shifts take 32 bits, sizes and times have 33.
    rest = rest > 0x7fffffff ? Math.floor(rest / 8) : rest >> 3;
    buffer[position] = digit;
    sum += digit;
  }
  return sum;
}
