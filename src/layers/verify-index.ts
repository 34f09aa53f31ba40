/**
 * Does a stored chain index say what the layer's tree says? The index is built once more, over the tree as
 * it is now, and the two must agree in everything that a view shows. Times of access and of change, and
 * what directories and blocks take on this disk, are the disk's own business.
 */

import { display } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { type BuildIndexOptions, readMergedTree } from "./index-builder.js";
import type { IndexArrays } from "./index-format.js";
import { type FlatIndex, openIndex } from "./index-reader.js";

/** An index, the tree that it is of, and what it was built on. */
export type VerifyIndexOptions = Pick<
  BuildIndexOptions,
  "parentIndexPath" | "chainId" | "fsDir" | "privileged"
> & {
  readonly indexPath: string;
};

type NumberSection = "mode" | "nlink" | "uid" | "gid" | "rdev" | "mtimeSec" | "mtimeNsec" | "layer";
const NUMBERS: readonly NumberSection[] = [
  ...(["mode", "nlink", "uid", "gid", "rdev"] as const),
  ...(["mtimeSec", "mtimeNsec", "layer"] as const),
];

/**
 * Compares; writes nothing, so that a full or read-only disk can be checked.
 *
 * @returns the first difference, for a person; undefined when they agree
 * @throws CorruptDataError, NotFoundError the index, or its parent's, cannot be read
 * @throws SyscallError the tree cannot be read
 */
export function verifyIndex(options: VerifyIndexOptions): string | undefined {
  return firstDifference(openIndex(options.indexPath), readMergedTree(options));
}

function firstDifference(stored: FlatIndex, actual: FlatIndex): string | undefined {
  if (stored.layers.join() !== actual.layers.join()) return "the index is that of other layers";
  const count = Math.min(stored.inodeCount, actual.inodeCount);
  for (let inode = 1; inode <= count; inode++) {
    const field = differentField(stored, actual, inode);
    if (field === undefined) continue;
    const path = display(stored.path(inode)) || ".";
    return field === "name"
      ? `${path}: it is in the index, on disk stands ${display(actual.path(inode)) || "."} in its place`
      : `${path}: ${field} differs from the index`;
  }
  if (stored.inodeCount === actual.inodeCount) return undefined;
  const index = stored.inodeCount > count ? stored : actual;
  const which = index === stored ? "the index only" : "the tree only";
  return `${display(index.path(count + 1))}: it is in ${which}`;
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
  if (stored.contentPath(inode) !== actual.contentPath(inode)) return "place of the data";
  if (xattrText(stored, inode) !== xattrText(actual, inode)) return "extended attributes";
  return entryText(stored, inode) === entryText(actual, inode) ? undefined : "list of names";
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
