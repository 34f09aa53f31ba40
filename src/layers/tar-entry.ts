/**
 * The model of one tar entry, shared by the reader, the writer and everything that makes or applies
 * layers. It is independent of the header format (v7, ustar, GNU, pax) that carried it: an entry
 * knows what it is, never how it was spelled.
 */

import type { Xattr } from "../overlay/chain-index.js";
import type { ByteString } from "../system/bytes.js";

/** What an entry is. "hardlink" names another entry by `linkTarget`; sockets have no tar form. */
export type TarEntryType =
  | "file"
  | "hardlink"
  | "symlink"
  | "character"
  | "block"
  | "directory"
  | "fifo";

/** A run of data in a sparse file; what no extent covers is a hole. */
export interface SparseExtent {
  /** Where the run begins in the file, bytes. */
  readonly offset: number;
  readonly length: number;
}

/** One entry of an archive. */
export interface TarEntry {
  /**
   * The name exactly as the archive spells it ("./etc/", "etc", "/etc"); a writer adds the trailing
   * slash of a directory itself. Cleaning is `cleanEntryPath`'s work, not the codec's.
   */
  readonly path: ByteString;
  readonly type: TarEntryType;
  /** Permission, set-id and sticky bits: 0 to 0o7777. The type is in `type` alone. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a file, holes included; 0 for every other type. */
  readonly size: number;
  /** Seconds since the epoch, may be negative; with `mtimeNsec` from 0 to 999,999,999 added to it. */
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  /** Target of a symlink, or the name of the file that a hard link names; "" for other types. */
  readonly linkTarget: ByteString;
  /** Device number in new_encode_dev form (as STAT_RDEV); 0 for other types. */
  readonly rdev: number;
  /** Extended attributes in the archive's order. */
  readonly xattrs: readonly Xattr[];
  /**
   * The runs of data of a sparse file, ascending and disjoint, when the archive recorded holes: its
   * body then holds these runs one after the other and nothing else. In an entry to be written every
   * run but the last must be a multiple of 512 bytes long, because GNU tar reads each in blocks.
   */
  readonly sparse?: readonly SparseExtent[];
}

/** Bytes of a tar block; headers take one, and bodies are padded to it. */
export const TAR_BLOCK = 512;

/** File type bits of st_mode for each entry type; a hard link has none of its own. */
export const TYPE_MODE: Readonly<Record<Exclude<TarEntryType, "hardlink">, number>> = {
  file: 0o100000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
  directory: 0o040000,
  fifo: 0o010000,
};

/** Bytes of body that follow the header of `entry`, without padding. */
export function bodySize(entry: TarEntry): number {
  if (entry.sparse === undefined) return entry.size;
  let total = 0;
  for (const extent of entry.sparse) total += extent.length;
  return total;
}

/** Device number from its halves, in the kernel's new_encode_dev form. */
export function encodeDevice(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12);
}

/** Major number of a device in new_encode_dev form. */
export function deviceMajor(rdev: number): number {
  return (rdev >>> 8) & 0xfff;
}

/** Minor number of a device in new_encode_dev form. */
export function deviceMinor(rdev: number): number {
  return (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
}

/** Name prefix of a whiteout in a layer archive. @see OCI image-spec layer.md, "Whiteouts" */
export const WHITEOUT_PREFIX = ".wh." as ByteString;
/** A file of this name makes its directory opaque. @see OCI image-spec layer.md, "Opaque Whiteout" */
export const OPAQUE_MARKER = ".wh..wh..opq" as ByteString;
/** Other names with this prefix are aufs bookkeeping (".wh..wh.plnk", ".wh..wh.aufs"): no files. */
export const WHITEOUT_META_PREFIX = ".wh..wh." as ByteString;
