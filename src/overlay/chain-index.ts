/**
 * The chain index: the MERGED tree of a whole layer chain, computed once and never changed.
 *
 * Vocabulary. An *inode* is a number from 1 on; the root directory is inode 1. An
 * *entry* is a name in a directory that leads to an inode; a hard-linked inode has several entries.
 * A *layer* number is a position in `layers`, base first; the data of a regular file lies in that
 * layer's own `fs` tree at `contentPath`.
 *
 * The numbers are stable: views of a chain use them as FUSE node IDs and as st_ino.
 */

import type { ByteString } from "../system/bytes.js";

/** The root directory's inode. */
export const ROOT_INODE = 1;

/** One extended attribute. */
export interface Xattr {
  readonly name: ByteString;
  readonly value: Buffer;
}

/** What stat knows of an inode. Times are split so that no request allocates a bigint. */
export interface InodeAttributes {
  /** File type and permission bits, as in st_mode. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Encoded as the kernel's new_encode_dev (FUSE's rdev field): minor low 8 | major<<8 | minor high<<12. */
  rdev: number;
  /** Bytes. */
  size: number;
  /** 512-byte units. */
  blocks: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
}

/** Where a name of an inode stands. */
export interface EntryLocation {
  readonly parent: number;
  readonly name: ByteString;
}

/**
 * Read access to a chain's merged tree. All methods are synchronous; those of a stored index do no
 * I/O, a live one (see `isLive`) reads a directory when it is first asked for.
 */
export interface ChainIndex {
  /**
   * False for a stored index: it knows all its inodes from the start, and their numbers are the same
   * for ever. True for lower directories that are read as one goes: an inode is known once its
   * directory was read, so that a number found on disk must be led to by a path first.
   */
  readonly isLive: boolean;
  /** True for the number of a known inode. */
  has(inode: number): boolean;
  /** Chain IDs of the layers, base first; an inode's `layer` is a position in it. */
  readonly layers: readonly string[];
  /** The inode of `name` in directory `dir`, or 0 when there is none (or `dir` is no directory). */
  lookup(dir: number, name: ByteString): number;
  /** The entries of `dir` are numbered `firstEntry(dir)` to `endEntry(dir) - 1`, sorted by name bytes. */
  firstEntry(dir: number): number;
  endEntry(dir: number): number;
  entryName(entry: number): ByteString;
  entryInode(entry: number): number;
  /** st_mode of an inode. */
  mode(inode: number): number;
  /** Link count: names of a file; 2 + subdirectories for a directory. */
  nlink(inode: number): number;
  /** Fills `out` and returns it. */
  attributes(inode: number, out: InodeAttributes): InodeAttributes;
  /** Extended attributes, without overlay-private ones; the same frozen array each time or a new one. */
  xattrs(inode: number): readonly Xattr[];
  /** Target of a symlink ("" for other types). */
  symlinkTarget(inode: number): ByteString;
  /** The directory that holds a directory (root: itself), or the first name's directory of a file. */
  parent(inode: number): number;
  /** The (first) name of an inode ("" for the root). */
  name(inode: number): ByteString;
  /** Every name of an inode; one element unless it is hard-linked. */
  names(inode: number): readonly EntryLocation[];
  /** The layer whose `fs` holds the inode's data (for a merged directory: the topmost that has it). */
  layer(inode: number): number;
  /** Path of the inode's data below that layer's `fs`, without a leading slash ("" for the root). */
  contentPath(inode: number): ByteString;
  /** The merged path of an inode's first name, without a leading slash. */
  path(inode: number): ByteString;
  /** The inode at a path without leading slash, following no symlink; 0 when there is none. */
  resolve(path: ByteString): number;
}

/** What `ChainIndex.resolve` answers, by one lookup for each name. */
export function resolvePath(index: Pick<ChainIndex, "lookup">, path: ByteString): number {
  let inode = ROOT_INODE;
  if (path === "") return inode;
  for (const name of path.split("/")) {
    inode = index.lookup(inode, name as ByteString);
    if (inode === 0) return 0;
  }
  return inode;
}
