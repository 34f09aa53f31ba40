/**
 * What a view changed, as the entries of a layer archive: names without a leading slash, parents
 * before children, siblings in byte order, the same for the same upper every time.
 *
 * @see OCI image-spec layer.md, "Change Types" and "Whiteouts"
 */

import { isWhiteout } from "../overlay/format.js";
import { type ByteString, display, joinBytes } from "../system/bytes.js";
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "../system/constants.js";
import { OPAQUE_MARKER, type TarEntry, type TarEntryType, WHITEOUT_PREFIX } from "./tar-entry.js";
import type { ContentSource, DiffOptions, ObjectFacts } from "./upper-tree.js";
import { type ViewChange, ViewWalk } from "./view-walk.js";

/** One entry of the layer. */
export interface LayerEntry {
  readonly entry: TarEntry;
  /** Data of a regular file. */
  readonly source?: ContentSource;
}

const TYPES = new Map<number, TarEntryType>([
  [S_IFREG, "file"],
  [S_IFDIR, "directory"],
  [S_IFLNK, "symlink"],
  [S_IFCHR, "character"],
  [S_IFBLK, "block"],
  [S_IFIFO, "fifo"],
]);

/** Options of a LayerDiff. */
export interface LayerDiffOptions extends DiffOptions {
  /** Seconds since the epoch; later modification times become this one. @see SOURCE_DATE_EPOCH */
  readonly sourceDateEpoch?: number;
}

/** A diff in progress; close it after use. */
export class LayerDiff {
  /** What could not be put into the layer, and why, for a person. */
  readonly warnings: string[] = [];
  readonly #walk: ViewWalk;
  readonly #latest: number;

  /** @throws SyscallError the upper cannot be read */
  constructor(options: LayerDiffOptions) {
    this.#walk = new ViewWalk(options, "opaque");
    this.#latest = options.sourceDateEpoch ?? Number.POSITIVE_INFINITY;
  }

  /** Opens the data of an entry for reading; the caller closes the descriptor. */
  open(source: ContentSource): number {
    return this.#walk.content.open(source);
  }

  /** Where the data of an entry is, for messages. */
  describe(source: ContentSource): string {
    return this.#walk.content.describe(source);
  }

  /** Reads small files of the upper directory on the thread pool. @see Syscalls.readFilesAsync */
  readUpperFiles(paths: Buffer, numbers: Float64Array, out: Buffer): Promise<number> | number {
    return this.#walk.content.readUpperFiles(paths, numbers, out);
  }

  close(): void {
    this.#walk.close();
  }

  /** The entries of the layer. To be called once. */
  *entries(): Generator<LayerEntry, void, undefined> {
    for (const change of this.#walk.changes()) {
      if (!this.#canBeNamed(change.path)) continue;
      if (change.facts === undefined) {
        yield { entry: marker(whiteoutPath(change.path)) };
        continue;
      }
      if (isWhiteout(change.facts.mode, change.facts.rdev)) {
        this.warnings.push(
          `${display(change.path)}: left out; in a layer, a device 0:0 means a deletion`,
        );
        // It has taken the place of what the image has there.
        if (change.kind === "C") yield { entry: marker(whiteoutPath(change.path)) };
        continue;
      }
      const entry = this.#objectEntry(change, change.facts);
      if (entry === undefined) continue;
      const { source } = change.facts;
      yield source === undefined || entry.type !== "file" ? { entry } : { entry, source };
      if (change.isOpaque === true) yield { entry: marker(joinBytes(change.path, OPAQUE_MARKER)) };
    }
  }

  #canBeNamed(path: ByteString): boolean {
    if (!path.includes(WHITEOUT_PREFIX)) return true;
    if (!path.split("/").some((name) => name.startsWith(WHITEOUT_PREFIX))) return true;
    this.warnings.push(
      `${display(path)}: left out; in a layer, names that begin with ".wh." mean deletions`,
    );
    return false;
  }

  #objectEntry(change: ViewChange, facts: ObjectFacts): TarEntry | undefined {
    const type = TYPES.get(facts.mode & S_IFMT);
    if (type === undefined) {
      this.warnings.push(`${display(change.path)}: left out; a layer cannot hold a socket`);
      return undefined;
    }
    const isLate = facts.mtimeSec >= this.#latest;
    const isDevice = type === "character" || type === "block";
    return {
      path: change.path,
      type: change.linkTo === undefined ? type : "hardlink",
      mode: facts.mode & 0o7777,
      uid: facts.uid,
      gid: facts.gid,
      size: change.linkTo === undefined ? facts.size : 0,
      mtimeSec: isLate ? this.#latest : facts.mtimeSec,
      mtimeNsec: isLate ? 0 : facts.mtimeNsec,
      linkTarget: change.linkTo ?? facts.target,
      rdev: isDevice && change.linkTo === undefined ? facts.rdev : 0,
      // Those of a hard link are the file's own, told with its first name.
      xattrs: change.linkTo === undefined ? facts.xattrs : [],
    };
  }
}

function whiteoutPath(path: ByteString): ByteString {
  const slash = path.lastIndexOf("/") + 1;
  return (path.slice(0, slash) + WHITEOUT_PREFIX + path.slice(slash)) as ByteString;
}

/** The empty file of a whiteout; nothing about it may depend on when or where it was made. */
function marker(path: ByteString): TarEntry {
  return {
    path,
    type: "file",
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    linkTarget: "" as ByteString,
    rdev: 0,
    xattrs: [],
  };
}
