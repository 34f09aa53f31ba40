/**
 * Makes one entry of all that an archive says about it: its header block, the pax records that
 * apply, GNU long names, a sparse map. Checks the ranges that the header formats leave open.
 */

import { type ByteString, display } from "../system/bytes.js";
import { CorruptDataError, UnsupportedError } from "../system/errors.js";
import type { LayerLimits } from "./limits.js";
import { type PaxAttributes, toXattrs } from "./pax-records.js";
import { encodeDevice, type SparseExtent, type TarEntry, type TarEntryType } from "./tar-entry.js";
import type { RawHeader } from "./tar-header.js";

/** The sources of one entry. */
export interface EntrySources {
  readonly header: RawHeader;
  readonly attributes: PaxAttributes;
  readonly longName: ByteString | undefined;
  readonly longLink: ByteString | undefined;
  /** Bytes of the file, holes included. */
  readonly size: number;
  /** Bytes of it in the archive. */
  readonly stored: number;
  readonly sparse: readonly SparseExtent[] | undefined;
  /** The archive's name in errors. */
  readonly subject: string;
  readonly limits: LayerLimits;
}

const TYPES: Readonly<Record<number, TarEntryType>> = {
  0: "file",
  48: "file",
  49: "hardlink",
  50: "symlink",
  51: "character",
  52: "block",
  53: "directory",
  54: "fifo",
  // "Contiguous" file: the difference meant something to one system in 1984.
  55: "file",
  // Old GNU sparse file.
  83: "file",
};

const NO_XATTRS: TarEntry["xattrs"] = Object.freeze([]);

/** True for the type flags of regular files, the only entries with a body. */
export function isFileFlag(flag: number): boolean {
  return TYPES[flag] === "file";
}

/** A path for an error message: quoted, and not endless. */
export function quotePath(path: ByteString): string {
  return JSON.stringify(display(path.slice(0, 300) as ByteString));
}

/**
 * Merges the sources of an entry.
 *
 * @throws CorruptDataError owner, device or length out of range; sparse map and body disagree
 * @throws UnsupportedError a type that is not a file system object
 */
export function mergeEntry(from: EntrySources): TarEntry {
  const { header, attributes } = from;
  const path = from.longName ?? attributes.sparse?.name ?? attributes.path ?? header.path;
  const type = typeOf(from, path);
  const linkTarget = linkTargetOf(from, type);
  requirePathLength(from, path, linkTarget);
  if (from.sparse !== undefined) requireStored(from, from.sparse, path);
  return {
    path,
    type,
    mode: header.mode,
    uid: requireId(from, attributes.uid ?? header.uid, "uid", path),
    gid: requireId(from, attributes.gid ?? header.gid, "gid", path),
    size: type === "file" ? from.size : 0,
    mtimeSec: attributes.mtime?.sec ?? header.mtimeSec,
    mtimeNsec: attributes.mtime?.nsec ?? 0,
    linkTarget,
    rdev: type === "character" || type === "block" ? deviceOf(from, path) : 0,
    xattrs: attributes.xattrs.size === 0 ? NO_XATTRS : toXattrs(attributes.xattrs),
    ...(from.sparse !== undefined && type === "file" ? { sparse: from.sparse } : undefined),
  };
}

function typeOf(from: EntrySources, path: ByteString): TarEntryType {
  const flag = from.header.type;
  const type = TYPES[flag];
  if (type === undefined) {
    const shown = JSON.stringify(String.fromCharCode(flag));
    throw new UnsupportedError(
      `${from.subject}: entry ${quotePath(path)}: tar entry type ${shown} is not supported`,
    );
  }
  return type === "file" && path.endsWith("/") ? "directory" : type;
}

function linkTargetOf(from: EntrySources, type: TarEntryType): ByteString {
  if (type !== "hardlink" && type !== "symlink") return "" as ByteString;
  return from.longLink ?? from.attributes.linkPath ?? from.header.linkName;
}

function requirePathLength(from: EntrySources, path: ByteString, linkTarget: ByteString): void {
  const limit = from.limits.pathBytes;
  // A directory's trailing slash is not part of its name.
  if (path.length <= limit + 1 && linkTarget.length <= limit) return;
  throw new CorruptDataError(
    `${from.subject}: entry ${quotePath(path)}: path or link target longer than ${limit} bytes`,
  );
}

function requireId(from: EntrySources, id: number, what: string, path: ByteString): number {
  // 2^32 - 1 is -1, "leave alone", to chown(2), and no owner at all to the kernel.
  if (id >= 0 && id <= 0xfffffffe) return id;
  throw new CorruptDataError(
    `${from.subject}: entry ${quotePath(path)}: ${what} ${id} out of range`,
  );
}

function deviceOf(from: EntrySources, path: ByteString): number {
  const major = from.attributes.devMajor ?? from.header.devMajor;
  const minor = from.attributes.devMinor ?? from.header.devMinor;
  if (major >= 0 && major <= 0xfff && minor >= 0 && minor <= 0xfffff) {
    return encodeDevice(major, minor);
  }
  throw new CorruptDataError(
    `${from.subject}: entry ${quotePath(path)}: device number ${major}:${minor} out of range`,
  );
}

function requireStored(
  from: EntrySources,
  sparse: readonly SparseExtent[],
  path: ByteString,
): void {
  const total = sparse.reduce((sum, extent) => sum + extent.length, 0);
  if (total === from.stored) return;
  throw new CorruptDataError(
    `${from.subject}: entry ${quotePath(path)}: sparse map of ${total} bytes with a body of ${from.stored}`,
  );
}
