/**
 * What the overlay's private attributes say about one entry of a layer tree or an upper directory,
 * and how a marked entry continues what lies below. Index builder and diff share it, so that both
 * see the same tree as the kernel and as our own views.
 */

import type { ChainIndex, Xattr } from "../overlay/chain-index.js";
import { isOverlayAttribute, isWhiteout, type OverlayAttributes } from "../overlay/format.js";
import { type ByteString, fromBuffer } from "../system/bytes.js";

/** The marks of one entry. */
export interface OverlayMarks {
  /** A directory that hides everything below it. */
  readonly isOpaque: boolean;
  /** A directory whose empty files with the `whiteout` attribute are whiteouts (Linux 6.7). */
  readonly hasXattrWhiteouts: boolean;
  readonly isXattrWhiteout: boolean;
  /** A file whose data is the lower one's. */
  readonly isMetacopy: boolean;
  /** Absolute path ("/a/b") or sibling name that the entry continues; undefined: its own name. */
  readonly redirect: ByteString | undefined;
  /** The chain index inode it was copied up from, as a view recorded it. Meaningless in a layer. */
  readonly origin: number | undefined;
}

const NO_MARKS: OverlayMarks = {
  isOpaque: false,
  hasXattrWhiteouts: false,
  isXattrWhiteout: false,
  isMetacopy: false,
  redirect: undefined,
  origin: undefined,
};

type XattrPairs = readonly (readonly [ByteString, Buffer])[] | undefined;

/** Reads the marks among the attributes of one entry. */
export function overlayMarks(xattrs: XattrPairs, names: OverlayAttributes): OverlayMarks {
  if (xattrs === undefined) return NO_MARKS;
  const find = (name: string) => xattrs.find(([candidate]) => candidate === name)?.[1];
  const opaque = find(names.opaque)?.toString("latin1");
  const redirect = find(names.redirect);
  const origin = find(names.varve);
  return {
    isOpaque: opaque === "y",
    hasXattrWhiteouts: opaque === "x",
    isXattrWhiteout: find(`${names.prefix}whiteout`) !== undefined,
    isMetacopy: find(names.metacopy) !== undefined,
    redirect: redirect === undefined || redirect.length === 0 ? undefined : fromBuffer(redirect),
    origin: origin?.length === 8 ? Number(origin.readBigUInt64LE()) : undefined,
  };
}

/** True when the entry hides its name: a 0:0 device, or a marked file where its directory allows it. */
export function hidesName(
  mode: number,
  rdev: number,
  marks: OverlayMarks,
  directory: OverlayMarks,
): boolean {
  return isWhiteout(mode, rdev) || (directory.hasXattrWhiteouts && marks.isXattrWhiteout);
}

const NONE: readonly Xattr[] = Object.freeze([]);

/** The attributes that users see and layers carry: sorted by name, without the overlay's own. */
export function userXattrs(xattrs: XattrPairs): readonly Xattr[] {
  if (xattrs === undefined) return NONE;
  const visible: Xattr[] = [];
  for (const [name, value] of xattrs) if (!isOverlayAttribute(name)) visible.push({ name, value });
  if (visible.length === 0) return NONE;
  return visible.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * The inode of `index` that an entry continues: at its redirect, else at its own name.
 *
 * @param lowerParent the lower directory that the entry's own directory continues; 0 for none
 * @returns 0 when there is nothing there (of any type: the caller checks that it fits)
 */
export function continuedInode(
  index: ChainIndex,
  lowerParent: number,
  name: ByteString,
  marks: OverlayMarks,
): number {
  const { redirect } = marks;
  if (redirect === undefined) return lowerParent === 0 ? 0 : index.lookup(lowerParent, name);
  if (redirect.startsWith("/")) return index.resolve(redirect.slice(1) as ByteString);
  // The kernel accepts no path in the relative form; a name with a slash finds nothing here either.
  return lowerParent === 0 ? 0 : index.lookup(lowerParent, redirect);
}
