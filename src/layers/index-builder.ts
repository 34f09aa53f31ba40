/**
 * Building a chain index: the parent chain's index plus one layer's own tree gives the merged tree
 * (see tree-merger.ts).
 */

import { overlayAttributes } from "../overlay/format.js";
import type { ByteString } from "../system/bytes.js";
import type { LowerLink } from "./hard-links.js";
import { settleImpliedDirectories } from "./implied-directories.js";
import { openRecent, remember } from "./index-cache.js";
import { emptyIndex, FlatIndex } from "./index-reader.js";
import { writeIndex } from "./index-writer.js";
import { DiskTree } from "./layer-scan.js";
import { TreeMerger } from "./tree-merger.js";
import type { DiskUsage } from "./usage-counter.js";

/** What `buildIndex` needs. */
export interface BuildIndexOptions {
  /** The parent chain's index; absent for the first layer of a chain. */
  readonly parentIndexPath?: string;
  /** Chain ID of the new chain. */
  readonly chainId: string;
  /** The layer's own tree, in the overlay's format. */
  readonly fsDir: string;
  /**
   * Directories of the layer that its archive did not name but only passed through, "" for the
   * root: they keep the lower directory's attributes, and do not replace a symlink to a directory.
   */
  readonly impliedDirectories: readonly ByteString[];
  /** Hard links of the layer to files of the layers below (from applyLayer). */
  readonly lowerLinks?: readonly LowerLink[];
  /** The trees of the parent chain's layers, base first; needed with `lowerLinks`. */
  readonly layerDirs?: readonly string[];
  /** Where the index goes; its directory exists. */
  readonly outputPath: string;
  /** True: attributes are trusted.overlay.*; false: user.overlay.*. */
  readonly privileged: boolean;
}

/**
 * Builds the index of a chain and writes it whole or not at all; not synced. The layer's
 * implied directories and hard links on disk are settled first (see settleImpliedDirectories).
 *
 * @returns what the layer's own tree occupies on disk
 * @throws NotFoundError the parent's index is missing
 * @throws CorruptDataError the parent's index is damaged, or marks or hard links of the layer lead nowhere
 * @throws SyscallError the tree cannot be read or the file not be written
 */
export function buildIndex(options: BuildIndexOptions): DiskUsage {
  const lower =
    options.parentIndexPath === undefined ? emptyIndex() : openRecent(options.parentIndexPath);
  const names = overlayAttributes(options.privileged);
  const disk = new DiskTree(options.fsDir);
  try {
    const implied = settleImpliedDirectories({
      lower,
      hasParent: options.parentIndexPath !== undefined,
      disk,
      implied: options.impliedDirectories,
      lowerLinks: options.lowerLinks ?? [],
      layerDirs: options.layerDirs ?? [],
      names,
      privileged: options.privileged,
    });
    const merger = new TreeMerger(lower, disk, names, implied, options.chainId);
    remember(options.outputPath, writeIndex(merger.merge(), options.outputPath));
    return merger.usage;
  } finally {
    disk.close();
  }
}

/**
 * The index that `buildIndex` would write for a layer whose implied directories and hard links were settled
 * when it was unpacked; in memory, and without a change of anything on disk.
 *
 * @throws as `buildIndex`
 */
export function readMergedTree(
  options: Pick<BuildIndexOptions, "parentIndexPath" | "chainId" | "fsDir" | "privileged">,
): FlatIndex {
  const { parentIndexPath, chainId, privileged } = options;
  const lower = parentIndexPath === undefined ? emptyIndex() : openRecent(parentIndexPath);
  const disk = new DiskTree(options.fsDir);
  try {
    const names = overlayAttributes(privileged);
    const { arrays, counts } = new TreeMerger(lower, disk, names, new Set(), chainId)
      .merge()
      .finish();
    return new FlatIndex(arrays, counts.inodes);
  } finally {
    disk.close();
  }
}
