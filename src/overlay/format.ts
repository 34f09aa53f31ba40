/**
 * The on-disk format of layer trees and upper directories: the kernel overlayfs' own, so that
 * kernel overlayfs can mount the same directories, plus one private attribute of ours.
 *
 * A *whiteout* is a character device 0:0; it hides the name in every lower layer. An *opaque*
 * directory (attribute `opaque` = "y") hides all that lower layers have below it. A *redirect*
 * (attribute `redirect`) on a directory names the lower directory that it continues: an absolute
 * path from the root, or a bare name of a sibling. A *metacopy* file (attribute `metacopy`) has its own metadata while its
 * data is still the lower file's (of the same path, or at `redirect`).
 * Our own attribute `varve` records, on an upper file or directory, the chain index inode it was
 * copied up from (8 bytes, little-endian), so that its inode number survives remounts.
 *
 * @see Documentation/filesystems/overlayfs.rst of the Linux kernel
 */

import type { ByteString } from "../system/bytes.js";

/** Attribute names in one of the two namespaces. */
export interface OverlayAttributes {
  /** "trusted.overlay." or "user.overlay."; names with it are never shown to users or packed. */
  readonly prefix: ByteString;
  readonly opaque: ByteString;
  readonly redirect: ByteString;
  readonly metacopy: ByteString;
  /** "U+n" / "U-n": the union's link count relative to the upper inode's, as the kernel's index feature keeps it. */
  readonly nlink: ByteString;
  readonly varve: ByteString;
}

function attributes(prefix: string): OverlayAttributes {
  const name = (suffix: string) => `${prefix}${suffix}` as ByteString;
  return {
    prefix: prefix as ByteString,
    opaque: name("opaque"),
    redirect: name("redirect"),
    metacopy: name("metacopy"),
    nlink: name("nlink"),
    varve: name("varve"),
  };
}

const TRUSTED = attributes("trusted.overlay.");
const USER = attributes("user.overlay.");

/** The namespace for this process: trusted.* needs CAP_SYS_ADMIN in the initial user namespace. */
export function overlayAttributes(privileged: boolean): OverlayAttributes {
  return privileged ? TRUSTED : USER;
}

/** What fuse-overlayfs keeps for itself where it may use neither namespace. */
const FOREIGN_PREFIX = "user.fuseoverlayfs.";

/** True for the attributes of fuse-overlayfs, which nobody can set in a view. */
export function isForeignAttribute(name: ByteString): boolean {
  return name.startsWith(FOREIGN_PREFIX);
}

/** True for attributes that belong to an overlay's own bookkeeping, in any namespace. */
export function isOverlayAttribute(name: ByteString): boolean {
  return (
    name.startsWith(TRUSTED.prefix) ||
    name.startsWith(USER.prefix) ||
    name.startsWith(FOREIGN_PREFIX)
  );
}

/** Between prefix and name of an attribute that is not ours: of an overlay whose upper lies in the view. */
const NESTED = "overlay.";

/**
 * The name on disk of an attribute that users give. Marks of an overlay inside the view must not count
 * for the view itself, and are kept as Linux 6.7 keeps them.
 *
 * @see "Nesting overlayfs mounts" of the kernel's documentation
 */
export function storedName(name: ByteString): ByteString {
  for (const { prefix } of [TRUSTED, USER]) {
    if (name.startsWith(prefix))
      return `${prefix}${NESTED}${name.slice(prefix.length)}` as ByteString;
  }
  return name;
}

/** The name that users see of an attribute on disk; undefined for the view's own. */
export function shownName(name: ByteString): ByteString | undefined {
  if (!isOverlayAttribute(name)) return name;
  for (const { prefix } of [TRUSTED, USER]) {
    if (name.startsWith(prefix + NESTED))
      return (prefix + name.slice(prefix.length + NESTED.length)) as ByteString;
  }
  return undefined;
}

const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;

/** True for a whiteout: a character device with number 0:0. */
export function isWhiteout(mode: number, rdev: number): boolean {
  return (mode & S_IFMT) === S_IFCHR && rdev === 0;
}

/** Names inside a view's work directory. */
export const WORK_TEMPORARY = "tmp" as ByteString;
/** Hard links of copied-up inodes that have several lower names, named by chain index inode (decimal). */
export const WORK_INDEX = "index" as ByteString;
/** Unlinked files that the kernel still references, named by node ID (decimal). */
export const WORK_ORPHANS = "orphans" as ByteString;
