/**
 * Does a stored chain index say what the layers' trees say? The index is built once more, over the trees as
 * they are now, and the two must agree in everything that a view shows. Times of access and of change, and
 * what directories and blocks take on this disk, are the disk's own business.
 */

import { lstatSync } from "node:fs";
import { display, toBuffer } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { type BuildIndexOptions, readMergedTree } from "./index-builder.js";
import type { IndexArrays } from "./index-format.js";
import { type FlatIndex, openIndex } from "./index-reader.js";

/** An index, the trees that it is of, and what they stand on. */
export type VerifyIndexOptions = Pick<
  BuildIndexOptions,
  "parentIndexPath" | "between" | "chainId" | "fsDir" | "privileged"
> & {
  readonly indexPath: string;
  /** The trees of the whole chain, base first. */
  readonly layerDirs: readonly string[];
};

/** Where index and trees do not agree. */
export interface IndexDifference {
  /** Of the chain that ends with the layer which has it. */
  readonly chainId: string;
  /** For a person. */
  readonly problem: string;
}

type NumberSection = "mode" | "nlink" | "uid" | "gid" | "rdev" | "mtimeSec" | "mtimeNsec" | "layer";
const NAMES = "list of names";
const NUMBERS: readonly NumberSection[] = [
  ...(["mode", "nlink", "uid", "gid", "rdev"] as const),
  ...(["mtimeSec", "mtimeNsec", "layer"] as const),
];

/**
 * Compares; writes nothing, so that a full or read-only disk can be checked.
 *
 * @returns the first difference; undefined when they agree
 * @throws CorruptDataError, NotFoundError the index, or the one below, cannot be read
 * @throws SyscallError a tree cannot be read
 */
export function verifyIndex(options: VerifyIndexOptions): IndexDifference | undefined {
  const stored = openIndex(options.indexPath);
  return new Comparison(stored, readMergedTree(options), options).firstDifference();
}

class Comparison {
  readonly #stored: FlatIndex;
  readonly #actual: FlatIndex;
  readonly #options: Pick<VerifyIndexOptions, "chainId" | "layerDirs">;

  constructor(
    stored: FlatIndex,
    actual: FlatIndex,
    options: Pick<VerifyIndexOptions, "chainId" | "layerDirs">,
  ) {
    this.#stored = stored;
    this.#actual = actual;
    this.#options = options;
  }

  firstDifference(): IndexDifference | undefined {
    const stored = this.#stored;
    const actual = this.#actual;
    const { chainId } = this.#options;
    if (stored.layers.join() !== actual.layers.join()) {
      return { chainId, problem: "the index is that of other layers" };
    }
    const count = Math.min(stored.inodeCount, actual.inodeCount);
    for (let inode = 1; inode <= count; inode++) {
      const difference = this.#differenceAt(inode);
      if (difference !== undefined) return difference;
    }
    if (stored.inodeCount === actual.inodeCount) return undefined;
    const index = stored.inodeCount > count ? stored : actual;
    const which = index === stored ? "the index only" : "the tree only";
    const problem = `${display(index.path(count + 1))}: it is in ${which}`;
    return { chainId: layerOf(index, count + 1), problem };
  }

  #differenceAt(inode: number): IndexDifference | undefined {
    const stored = this.#stored;
    const actual = this.#actual;
    const field = differentField(stored, actual, inode) ?? this.#differentPlace(inode);
    if (field === undefined) return undefined;
    const name = display(stored.path(inode)) || ".";
    const problem =
      field === "name"
        ? `${name}: it is in the index, on disk stands ${display(actual.path(inode)) || "."} in its place`
        : `${name}: ${field} differs from the index`;
    if (field === NAMES) return { chainId: this.#layerOfNames(inode), problem };
    // The one that covers the other has lost it, or should not have it.
    const upper = stored.layer(inode) > actual.layer(inode) ? stored : actual;
    return { chainId: layerOf(upper, inode), problem };
  }

  /**
   * The chain whose layer has a name too many or too few in a directory. What comes to light because a whiteout
   * is gone is taken for the fault of its own layer; the one that lost the whiteout stands on that.
   */
  #layerOfNames(directory: number): string {
    const [stored, actual] = [this.#stored, this.#actual];
    for (const [index, other] of [
      [stored, actual],
      [actual, stored],
    ] as const) {
      for (let entry = index.firstEntry(directory); entry < index.endEntry(directory); entry++) {
        if (other.lookup(directory, index.entryName(entry)) === 0) {
          return layerOf(index, index.entryInode(entry));
        }
      }
    }
    return layerOf(stored, directory);
  }

  /** A file with several names has its data under each; which one is noted depends on what was merged at once. */
  #differentPlace(inode: number): string | undefined {
    const place = this.#stored.contentPath(inode);
    const other = this.#actual.contentPath(inode);
    if (place === other) return undefined;
    const directory = this.#options.layerDirs[this.#stored.layer(inode)]!;
    const [one, two] = [place, other].map((name) =>
      lstatSync(Buffer.concat([Buffer.from(`${directory}/`), toBuffer(name)]), {
        bigint: true,
        throwIfNoEntry: false,
      }),
    );
    const isSame = one !== undefined && one.ino === two?.ino && one.dev === two.dev;
    return isSame ? undefined : "place of the data";
  }
}

/** The chain whose layer an inode comes from. */
function layerOf(index: FlatIndex, inode: number): string {
  return index.layers[index.layer(inode)]!;
}

function differentField(stored: FlatIndex, actual: FlatIndex, inode: number): string | undefined {
  if (stored.path(inode) !== actual.path(inode)) return "name";
  const numbers = NUMBERS.find(
    (section) => at(stored, section, inode) !== at(actual, section, inode),
  );
  if (numbers !== undefined) return numbers.replace(/N?[sS]ec$/, "");
  const isDirectory = (stored.mode(inode) & S_IFMT) === S_IFDIR;
  if (!isDirectory && at(stored, "size", inode) !== at(actual, "size", inode)) return "size";
  if (stored.symlinkTarget(inode) !== actual.symlinkTarget(inode)) return "link target";
  if (xattrText(stored, inode) !== xattrText(actual, inode)) return "extended attributes";
  return entryText(stored, inode) === entryText(actual, inode) ? undefined : NAMES;
}

function at(index: FlatIndex, section: NumberSection | "size", inode: number): number {
  const arrays: IndexArrays = index.arrays;
  return arrays[section][inode]!;
}

function xattrText(index: FlatIndex, inode: number): string {
  const xattrs = index.xattrs(inode);
  if (xattrs.length === 0) return "";
  return xattrs
    .map(({ name, value }) => `${name}=${value.toString("latin1")}`)
    .sort()
    .join("\0");
}

/** The names in a directory and where they lead; hard links are told apart by the latter. */
function entryText(index: FlatIndex, inode: number): string {
  const names: string[] = [];
  const end = index.endEntry(inode);
  for (let entry = index.firstEntry(inode); entry < end; entry++) {
    names.push(`${index.entryName(entry)}/${index.entryInode(entry)}`);
  }
  return names.join("\0");
}
