/**
 * Bounds on everything that an archive from outside can make us hold, write or do. Each has a
 * reason; what a legitimate but extreme image may exceed can be raised by the caller.
 */

/** Bounds on one layer archive. All are inclusive. */
export interface LayerLimits {
  /**
   * Bytes of one pax extended header. The kernel keeps at most 64 KiB per attribute value and ext4
   * about as much per inode; GNU tar and Go accept 1 MiB.
   */
  readonly paxHeaderBytes: number;
  /** Bytes of a path or link target: PATH_MAX less its NUL; the kernel takes no longer one. */
  readonly pathBytes: number;
  /** Bytes of one path component: NAME_MAX of every Linux file system that matters. */
  readonly nameBytes: number;
  /** Runs of one sparse file; 2^20 describe a file of 4 GiB that alternates every 4 KiB. */
  readonly sparseExtents: number;
  /** Entries of a layer; the largest public images have about a million, an index entry takes ~100 bytes. */
  readonly entries: number;
  /** Bytes of the uncompressed archive. */
  readonly tarBytes: number;
  /**
   * Uncompressed over compressed bytes. gzip reaches 1032 on zeros, zstd far more; only looked at
   * beyond `ratioFreeBytes`, because a small archive of zeros is no threat.
   */
  readonly ratio: number;
  readonly ratioFreeBytes: number;
}

/** The bounds that apply when the caller names none. */
export const DEFAULT_LIMITS: LayerLimits = {
  paxHeaderBytes: 1024 * 1024,
  pathBytes: 4095,
  nameBytes: 255,
  sparseExtents: 1 << 20,
  entries: 10_000_000,
  tarBytes: 1024 ** 4,
  ratio: 1000,
  ratioFreeBytes: 1024 ** 3,
};
