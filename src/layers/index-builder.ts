/**
 * Building a chain index: the index of a chain below plus the own trees of the layers above it give the
 * merged tree (see tree-merger.ts).
 */

import { type OverlayAttributes, overlayAttributes } from "../overlay/format.js";
import type { ByteString } from "../system/bytes.js";
import type { LowerLink } from "./hard-links.js";
import { adoptRoot, needsChain, settleImpliedDirectories } from "./implied-directories.js";
import { openRecent, remember } from "./index-cache.js";
import { emptyIndex, FlatIndex } from "./index-reader.js";
import { writeIndex } from "./index-writer.js";
import { DiskTree } from "./layer-scan.js";
import type { RunLayer } from "./run-entries.js";
import { TreeMerger } from "./tree-merger.js";
import type { DiskUsage } from "./usage-counter.js";

/** A layer whose chain has no index. Nothing in it continues what lies elsewhere (redirects, metacopy). */
export interface UnindexedLayer {
  readonly chainId: string;
  /** The layer's own tree, settled. */
  readonly fsDir: string;
}

/** What `buildIndex` needs. */
export interface BuildIndexOptions {
  /** The index of the nearest chain below that has one; absent when none has. */
  readonly parentIndexPath?: string;
  /** The layers between that chain and this one, base first; none by default. */
  readonly between?: readonly UnindexedLayer[];
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
  /** The file is on disk before it has its name. */
  readonly isDurable?: boolean;
  /** True: attributes are trusted.overlay.*; false: user.overlay.*. */
  readonly privileged: boolean;
}

/**
 * Builds the index of a chain and writes it whole or not at all. The layer's implied directories and
 * hard links on disk are settled first (see settleImpliedDirectories).
 *
 * @returns what the layer's own tree occupies on disk
 * @throws NotFoundError the index below is missing
 * @throws CorruptDataError the index below is damaged, or marks or hard links of the layer lead nowhere
 * @throws SyscallError a tree cannot be read or the file not be written
 */
export function buildIndex(options: BuildIndexOptions): DiskUsage {
  const names = overlayAttributes(options.privileged);
  return withRun(options, (below, run) => {
    const disk = run.at(-1)!.disk;
    const others = run.slice(0, -1);
    const isSimple = others.length > 0 && !needsChain(options);
    if (isSimple && options.impliedDirectories.length > 0) {
      adoptRoot(disk, others.at(-1)!.disk, { names, privileged: options.privileged });
    }
    const lower = isSimple || others.length === 0 ? below : merged(below, others, names);
    const implied = isSimple
      ? new Set<ByteString>()
      : settleImpliedDirectories({
          lower,
          hasParent: lower.layers.length > 0,
          disk,
          implied: options.impliedDirectories,
          lowerLinks: options.lowerLinks ?? [],
          layerDirs: options.layerDirs ?? [],
          names,
          privileged: options.privileged,
        });
    const merger = new TreeMerger(lower, isSimple ? run : run.slice(-1), names, implied);
    const written = writeIndex(merger.merge(), options.outputPath, options.isDurable === true);
    remember(options.outputPath, written);
    return merger.usage;
  });
}

/**
 * The index that `buildIndex` would write for a layer whose implied directories and hard links were settled
 * when it was unpacked; in memory, and without a change of anything on disk.
 *
 * @throws as `buildIndex`
 */
export function readMergedTree(
  options: Pick<
    BuildIndexOptions,
    "parentIndexPath" | "between" | "chainId" | "fsDir" | "privileged"
  >,
): FlatIndex {
  return withRun(options, (below, run) =>
    merged(below, run, overlayAttributes(options.privileged)),
  );
}

/** Runs `work` on the index below, and on the trees above it, base first. */
function withRun<R>(
  o: Pick<BuildIndexOptions, "parentIndexPath" | "between" | "chainId" | "fsDir">,
  work: (below: FlatIndex, run: readonly RunLayer[]) => R,
): R {
  const run: RunLayer[] = [];
  try {
    for (const { chainId, fsDir } of [...(o.between ?? []), o]) {
      run.push({ chainId, disk: new DiskTree(fsDir) });
    }
    const { parentIndexPath } = o;
    return work(parentIndexPath === undefined ? emptyIndex() : openRecent(parentIndexPath), run);
  } finally {
    for (const { disk } of run) disk.close();
  }
}

function merged(below: FlatIndex, run: readonly RunLayer[], names: OverlayAttributes): FlatIndex {
  const { arrays, counts } = new TreeMerger(below, run, names, new Set()).merge().finish();
  return new FlatIndex(arrays, counts.inodes);
}
