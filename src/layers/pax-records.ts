/**
 * The records of pax extended headers: "LENGTH KEY=VALUE\n", where LENGTH counts the whole record
 * and VALUE is any bytes. A record overrides the field of the ustar header that follows; an empty
 * value takes back what a global header said.
 *
 * @see POSIX.1-2017 pax, "pax Extended Header"
 * @see GNU tar manual, "PAX keywords" and "Sparse Formats"
 */

import type { Xattr } from "../overlay/chain-index.js";
import { type ByteString, fromBuffer } from "../system/bytes.js";
import { CorruptDataError } from "../system/errors.js";
import type { SparseExtent } from "./tar-entry.js";

/** A time split into whole seconds (rounded down) and nanoseconds. */
export interface PaxTime {
  readonly sec: number;
  readonly nsec: number;
}

/** What one header's records say; absent where they say nothing. */
export interface PaxAttributes {
  path?: ByteString;
  linkPath?: ByteString;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: PaxTime;
  devMajor?: number;
  devMinor?: number;
  xattrs: Map<ByteString, Buffer>;
  sparse?: PaxSparse;
}

/** GNU.sparse.* records, of whichever version. */
export interface PaxSparse {
  major: number;
  minor: number;
  name?: ByteString;
  realSize?: number;
  /** Number of runs that 0.0 announces. */
  blocks?: number;
  /** Numbers of the map (0.0 and 0.1), offset and length by turns. */
  map: number[];
}

/** A fresh set that says nothing. */
export function emptyPaxAttributes(): PaxAttributes {
  return { xattrs: new Map() };
}

/** A copy that later records may change. */
export function copyPaxAttributes(from: PaxAttributes): PaxAttributes {
  const copy: PaxAttributes = { ...from, xattrs: new Map(from.xattrs) };
  if (from.sparse !== undefined) copy.sparse = { ...from.sparse, map: [...from.sparse.map] };
  return copy;
}

const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;

/** Calls `record` for each record of a header body, in order. Values are borrowed slices of `body`. */
export function forEachPaxRecord(
  body: Buffer,
  where: string,
  record: (key: ByteString, value: Buffer) => void,
): void {
  let at = 0;
  while (at < body.length) {
    // Some writers pad the header with NULs inside its size.
    if (body[at] === 0) return;
    const space = body.indexOf(SPACE, at);
    const text = space < 0 ? "" : body.toString("latin1", at, space);
    const length = /^[0-9]{1,10}$/.test(text) ? Number(text) : 0;
    const end = at + length;
    if (length === 0 || end > body.length || body[end - 1] !== NEWLINE) {
      throw new CorruptDataError(`${where}: pax header: malformed record at byte ${at}`);
    }
    const equals = body.indexOf(EQUALS, space + 1);
    if (equals < 0 || equals >= end || equals === space + 1) {
      throw new CorruptDataError(`${where}: pax header: record at byte ${at} has no key`);
    }
    record(fromBuffer(body, space + 1, equals), body.subarray(equals + 1, end - 1));
    at = end;
  }
}

/** Merges the records of a header body into `into`. Buffers in it are copies. */
export function applyPaxRecords(into: PaxAttributes, body: Buffer, where: string): void {
  forEachPaxRecord(body, where, (key, value) => applyRecord(into, key, value, where));
}

type Apply = (into: PaxAttributes, text: string, where: string) => void;

const KEYWORDS: Readonly<Record<string, Apply>> = {
  path: (into, text, where) => setText(into, "path", text, where),
  linkpath: (into, text, where) => setText(into, "linkPath", text, where),
  size: (into, text, where) => setNumber(into, "size", text, where),
  uid: (into, text, where) => setNumber(into, "uid", text, where),
  gid: (into, text, where) => setNumber(into, "gid", text, where),
  mtime: (into, text, where) => {
    if (text === "") delete into.mtime;
    else into.mtime = parsePaxTime(text, where);
  },
  "SCHILY.devmajor": (into, text, where) => setNumber(into, "devMajor", text, where),
  "SCHILY.devminor": (into, text, where) => setNumber(into, "devMinor", text, where),
  "GNU.sparse.major": (into, text, where) => {
    sparseOf(into).major = parseCount(text, "GNU.sparse.major", where);
  },
  "GNU.sparse.minor": (into, text, where) => {
    sparseOf(into).minor = parseCount(text, "GNU.sparse.minor", where);
  },
  "GNU.sparse.name": (into, text) => {
    sparseOf(into).name = text as ByteString;
  },
  "GNU.sparse.realsize": (into, text, where) => {
    sparseOf(into).realSize = parseCount(text, "GNU.sparse.realsize", where);
  },
  "GNU.sparse.size": (into, text, where) => {
    sparseOf(into).realSize = parseCount(text, "GNU.sparse.size", where);
  },
  "GNU.sparse.numblocks": (into, text, where) => {
    sparseOf(into).blocks = parseCount(text, "GNU.sparse.numblocks", where);
  },
  "GNU.sparse.offset": (into, text, where) => {
    sparseOf(into).map.push(parseCount(text, "GNU.sparse.offset", where));
  },
  "GNU.sparse.numbytes": (into, text, where) => {
    sparseOf(into).map.push(parseCount(text, "GNU.sparse.numbytes", where));
  },
  "GNU.sparse.map": (into, text, where) => {
    const numbers = text === "" ? [] : text.split(",");
    sparseOf(into).map = numbers.map((item) => parseCount(item, "GNU.sparse.map", where));
  },
};

const SCHILY_XATTR = "SCHILY.xattr.";
const LIBARCHIVE_XATTR = "LIBARCHIVE.xattr.";

function applyRecord(into: PaxAttributes, key: ByteString, value: Buffer, where: string): void {
  const keyword = Object.hasOwn(KEYWORDS, key) ? KEYWORDS[key] : undefined;
  if (keyword !== undefined) {
    keyword(into, value.toString("latin1", 0, value.length), where);
  } else if (key.startsWith(SCHILY_XATTR)) {
    // Raw bytes; where both spellings stand (bsdtar writes both), this one needs no decoding.
    into.xattrs.set(decodeXattrKey(key.slice(SCHILY_XATTR.length)), Buffer.from(value));
  } else if (key.startsWith(LIBARCHIVE_XATTR)) {
    const name = unescapeName(key.slice(LIBARCHIVE_XATTR.length));
    if (!into.xattrs.has(name)) {
      into.xattrs.set(name, Buffer.from(value.toString("latin1", 0, value.length), "base64"));
    }
  }
  // Others (atime, ctime, uname, gname, comment, LIBARCHIVE.creationtime …) describe nothing that
  // a layer keeps: POSIX lets a reader ignore keywords.
}

function setText(
  into: PaxAttributes,
  field: "path" | "linkPath",
  text: string,
  where: string,
): void {
  if (text.includes("\0")) {
    throw new CorruptDataError(`${where}: pax header: NUL byte in ${field.toLowerCase()}`);
  }
  if (text === "") delete into[field];
  else into[field] = text as ByteString;
}

function setNumber(
  into: PaxAttributes,
  field: "size" | "uid" | "gid" | "devMajor" | "devMinor",
  text: string,
  where: string,
): void {
  if (text === "") delete into[field];
  else into[field] = parseCount(text, field, where);
}

function sparseOf(into: PaxAttributes): PaxSparse {
  into.sparse ??= { major: 0, minor: 0, map: [] };
  return into.sparse;
}

/** A decimal number from 0 to 2^53 - 1. */
function parseCount(text: string, key: string, where: string): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new CorruptDataError(`${where}: pax header: ${key} is not a number: ${quote(text)}`);
}

/**
 * Parses "[-]SECONDS[.FRACTION]"; digits beyond nanoseconds are cut off.
 *
 * @throws CorruptDataError not of this form
 */
export function parsePaxTime(text: string, where: string): PaxTime {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) {
    throw new CorruptDataError(`${where}: pax header: not a time: ${quote(text)}`);
  }
  const seconds = Number(match[2]);
  const nsec = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { sec: seconds, nsec };
  // The fraction of a negative time counts away from zero; ours always counts forward.
  return nsec === 0 ? { sec: 0 - seconds, nsec: 0 } : { sec: -seconds - 1, nsec: 1e9 - nsec };
}

/** Writes a time as pax does: the shortest decimal that is exact. */
export function formatPaxTime(sec: number, nsec: number): string {
  const negative = sec < 0;
  const whole = negative && nsec > 0 ? -(sec + 1) : Math.abs(sec);
  const rest = negative && nsec > 0 ? 1e9 - nsec : nsec;
  const fraction = rest === 0 ? "" : `.${String(rest).padStart(9, "0").replace(/0+$/, "")}`;
  return `${negative ? "-" : ""}${whole}${fraction}`;
}

/** libarchive percent-encodes "%", "=" and what is not printable in attribute names. */
function unescapeName(name: string): ByteString {
  return name.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  ) as ByteString;
}

/** GNU tar spells "%" and "=" in a SCHILY.xattr key as %25 and %3D, because "=" ends the key. */
function decodeXattrKey(key: string): ByteString {
  return key.replace(/%3D/g, "=").replace(/%25/g, "%") as ByteString;
}

/** The SCHILY.xattr record key of an attribute. */
export function xattrKey(name: ByteString): string {
  return SCHILY_XATTR + name.replace(/%/g, "%25").replace(/=/g, "%3D");
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}

/** One record with its self-counting length. */
export function encodePaxRecord(key: string, value: Buffer | string): ByteString {
  const text = typeof value === "string" ? value : fromBuffer(value);
  const rest = key.length + text.length + 3;
  let length = rest + String(rest).length;
  // Counting its own digits may add one more.
  if (rest + String(length).length !== length) length = rest + String(length).length;
  return `${length} ${key}=${text}\n` as ByteString;
}

/** Attributes as the model has them, in the archive's order. */
export function toXattrs(xattrs: ReadonlyMap<ByteString, Buffer>): Xattr[] {
  return Array.from(xattrs, ([name, value]) => ({ name, value }));
}

/**
 * Pairs up and checks the numbers of a sparse map; runs without bytes (GNU tar ends a map with one
 * at the file's size) are dropped.
 *
 * @throws CorruptDataError odd count, runs that overlap, are out of order, or reach beyond the size
 */
export function toExtents(numbers: readonly number[], size: number, where: string): SparseExtent[] {
  if (numbers.length % 2 !== 0) {
    throw new CorruptDataError(`${where}: sparse map: an offset without its length`);
  }
  const extents: SparseExtent[] = [];
  let reached = 0;
  for (let position = 0; position < numbers.length; position += 2) {
    const offset = numbers[position] as number;
    const length = numbers[position + 1] as number;
    if (offset < reached || length < 0 || offset + length > size) {
      throw new CorruptDataError(`${where}: sparse map: runs overlap or exceed the file's size`);
    }
    reached = offset + length;
    if (length > 0) extents.push({ offset, length });
  }
  return extents;
}
