/**
 * Merging one directory of lower trees that have no index, by the marks that any of the tools leaves:
 * the kernel's (character devices 0:0, `opaque`, `redirect`, `metacopy` in trusted.overlay.* or
 * user.overlay.*) and fuse-overlayfs's and AUFS's (`.wh.NAME` files, `.wh..wh..opq`,
 * user.fuseoverlayfs.opaque).
 *
 * A *part* is a directory of one layer that a merged directory shows; the topmost comes first.
 *
 * @see image-spec layer.md, "Whiteouts", and fuse-overlayfs(1)
 */

import { overlayAttributes } from "../overlay/format.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import { S_IFDIR, S_IFMT, S_IFREG } from "../system/constants.js";
import { type DirectoryScan, STAT_MODE, STAT_RDEV, STAT_SLOTS } from "../system/native.js";
import { hidesName, type OverlayMarks, overlayMarks } from "./overlay-marks.js";

const TRUSTED = overlayAttributes(true);
const USER = overlayAttributes(false);
const WHITEOUT_PREFIX = ".wh.";
/** Names of AUFS's own bookkeeping, which nobody is shown. */
const AUFS_PREFIX = ".wh..wh.";
const AUFS_OPAQUE = ".wh..wh..opq";
const FUSE_OVERLAYFS_OPAQUE = "user.fuseoverlayfs.opaque";

type Xattrs = [ByteString, Buffer][] | undefined;

/** A directory of one layer. */
export interface Part {
  /** Position among the layers, base first. */
  readonly layer: number;
  /** Below the layer's root, without a leading slash. */
  readonly path: ByteString;
  readonly marks: OverlayMarks;
}

/** One visible name of a merged directory, as its topmost part has it. */
export interface LiveEntry {
  readonly name: ByteString;
  /** Where the object lies: its layer and its path there. */
  readonly layer: number;
  readonly path: ByteString;
  /** Its stat record, of STAT_SLOTS numbers. */
  readonly stats: Float64Array;
  readonly xattrs: Xattrs;
  readonly target: ByteString | undefined;
  /** Of a directory: what it consists of, topmost first. */
  readonly parts: Part[];
  /** Of a metacopy file: where its data is, once found. */
  data: { layer: number; path: ByteString; stats: Float64Array } | undefined;
  isMetacopy: boolean;
}

/** The marks of an entry in either namespace of the kernel's, and fuse-overlayfs's opaque mark. */
export function liveMarks(xattrs: Xattrs): OverlayMarks {
  const kernel = overlayMarks(xattrs, TRUSTED);
  if (xattrs === undefined) return kernel;
  const user = overlayMarks(xattrs, USER);
  const isForeignOpaque = xattrs.some(
    ([name, value]) => name === FUSE_OVERLAYFS_OPAQUE && value.toString("latin1") === "y",
  );
  return {
    isOpaque: kernel.isOpaque || user.isOpaque || isForeignOpaque,
    hasXattrWhiteouts: kernel.hasXattrWhiteouts || user.hasXattrWhiteouts,
    isXattrWhiteout: kernel.isXattrWhiteout || user.isXattrWhiteout,
    isMetacopy: kernel.isMetacopy || user.isMetacopy,
    redirect: kernel.redirect ?? user.redirect,
    origin: undefined,
  };
}

/** How the merge reads a part, and where it finds what a redirect names. */
export interface LiveLayers {
  scan(layer: number, path: ByteString): DirectoryScan;
  /** The parts of the directory at an absolute path (no leading slash) in the layers below `layer`. */
  partsBelow(layer: number, path: ByteString): Part[];
}

/** A name on its way through the parts. */
interface Candidate {
  readonly entry: LiveEntry;
  /** What lower parts have under this name still belongs to it. */
  isOpen: boolean;
}

/** Merges the parts of one directory. */
export class DirectoryMerge {
  readonly #layers: LiveLayers;
  readonly #candidates = new Map<ByteString, Candidate>();
  readonly #hidden = new Set<ByteString>();
  /** The parts below the one being added. */
  #below: readonly Part[] = [];

  constructor(layers: LiveLayers) {
    this.#layers = layers;
  }

  /** The visible entries, sorted by the bytes of their names. */
  merge(parts: readonly Part[]): LiveEntry[] {
    for (const [position, part] of parts.entries()) {
      this.#below = part.marks.isOpaque ? [] : parts.slice(position + 1);
      if (this.#addPart(part)) break;
    }
    return [...this.#candidates.values()]
      .map((candidate) => candidate.entry)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** True when the part hides all below it. */
  #addPart(part: Part): boolean {
    const scan = this.#layers.scan(part.layer, part.path);
    const whiteouts: ByteString[] = [];
    const before = new Set(this.#candidates.keys());
    let isOpaque = part.marks.isOpaque;
    scan.names.forEach((name, position) => {
      if (name.startsWith(WHITEOUT_PREFIX)) {
        if (name === AUFS_OPAQUE) isOpaque = true;
        else if (!name.startsWith(AUFS_PREFIX)) whiteouts.push(name.slice(4) as ByteString);
        return;
      }
      const at = position * STAT_SLOTS;
      const marks = liveMarks(scan.xattrs[position]);
      const mode = scan.stats[at + STAT_MODE]!;
      if (hidesName(mode, scan.stats[at + STAT_RDEV]!, marks, part.marks)) whiteouts.push(name);
      else if (before.has(name)) this.#continue(part, name, scan, position, marks);
      else if (!this.#hidden.has(name)) this.#add(part, name, scan, position, marks);
    });
    for (const name of whiteouts) {
      this.#hidden.add(name);
      const candidate = this.#candidates.get(name);
      if (candidate !== undefined) candidate.isOpen = false;
    }
    return isOpaque;
  }

  #add(
    part: Part,
    name: ByteString,
    scan: DirectoryScan,
    position: number,
    marks: OverlayMarks,
  ): void {
    const entry: LiveEntry = {
      name,
      layer: part.layer,
      path: joinBytes(part.path, name),
      stats: scan.stats.slice(position * STAT_SLOTS, (position + 1) * STAT_SLOTS),
      xattrs: scan.xattrs[position],
      target: scan.targets[position],
      parts: [],
      data: undefined,
      isMetacopy: false,
    };
    const candidate = { entry, isOpen: true };
    this.#candidates.set(name, candidate);
    this.#extend(candidate, part.layer, entry.path, entry.stats, marks);
  }

  /** A lower part has the name too. */
  #continue(
    part: Part,
    name: ByteString,
    scan: DirectoryScan,
    position: number,
    marks: OverlayMarks,
  ): void {
    const candidate = this.#candidates.get(name)!;
    if (!candidate.isOpen) return;
    const stats = scan.stats.slice(position * STAT_SLOTS, (position + 1) * STAT_SLOTS);
    if (typeOf(stats) !== typeOf(candidate.entry.stats)) candidate.isOpen = false;
    else this.#extend(candidate, part.layer, joinBytes(part.path, name), stats, marks);
  }

  /** Adds a directory, or the data of a file, of one layer to what a name stands for. */
  #extend(
    candidate: Candidate,
    layer: number,
    path: ByteString,
    stats: Float64Array,
    marks: OverlayMarks,
  ): void {
    const { entry } = candidate;
    const type = typeOf(stats);
    if (type === S_IFDIR) {
      entry.parts.push({ layer, path, marks });
      candidate.isOpen = !marks.isOpaque && marks.redirect === undefined;
      if (!marks.isOpaque && marks.redirect !== undefined)
        entry.parts.push(...(this.#redirected(layer, marks.redirect)?.parts ?? []));
      return;
    }
    if (type !== S_IFREG) {
      candidate.isOpen = false;
      return;
    }
    if (!marks.isMetacopy) {
      if (entry.isMetacopy) entry.data = { layer, path, stats };
      candidate.isOpen = false;
      return;
    }
    entry.isMetacopy = true;
    if (marks.redirect === undefined) return;
    const found = this.#redirected(layer, marks.redirect);
    if (found !== undefined && typeOf(found.stats) === S_IFREG)
      entry.data = found.isMetacopy ? found.data : found;
    candidate.isOpen = false;
  }

  /** What a redirect in `layer` leads to below it: an absolute path, or a sibling's name. */
  #redirected(layer: number, redirect: ByteString): LiveEntry | undefined {
    let parts = this.#below;
    let name = redirect;
    if (redirect.startsWith("/")) {
      const slash = redirect.lastIndexOf("/");
      parts = this.#layers.partsBelow(layer, redirect.slice(1, Math.max(slash, 1)) as ByteString);
      name = redirect.slice(slash + 1) as ByteString;
    }
    return new DirectoryMerge(this.#layers).merge(parts).find((entry) => entry.name === name);
  }
}

function typeOf(stats: Float64Array): number {
  return stats[STAT_MODE]! & S_IFMT;
}
