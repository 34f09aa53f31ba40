/**
 * Entry paths as archives spell them ("./usr//bin/", "/usr/bin") brought into one form: components
 * joined by single slashes, no slash at either end, "" for the root.
 *
 * Guaranteed of a cleaned path: it has no empty, "." or ".." component, and each component fits a
 * directory entry. Not guaranteed: that it leads through no symlink; only who walks it can know.
 */

import { type ByteString, display } from "../system/bytes.js";
import { CorruptDataError } from "../system/errors.js";
import { DEFAULT_LIMITS } from "./limits.js";
import { OPAQUE_MARKER, WHITEOUT_META_PREFIX, WHITEOUT_PREFIX } from "./tar-entry.js";

const NOT_CLEAN = /(?:^|\/)\.{0,2}(?:\/|$)/;

/**
 * Cleans the path of an entry or the target of a hard link.
 *
 * @param subject the archive's name in errors
 * @throws CorruptDataError ".." climbs above the root, a component is too long, or a NUL byte
 */
export function cleanEntryPath(path: ByteString, subject: string): ByteString {
  if (path.includes("\0")) throw bad(path, subject, "NUL byte in the name");
  const clean = NOT_CLEAN.test(path) ? cleanComponents(path, subject) : path;
  const limit = DEFAULT_LIMITS.nameBytes;
  if (clean.length > limit && clean.split("/").some((part) => nameLength(part) > limit)) {
    throw bad(path, subject, `a name longer than ${limit} bytes`);
  }
  return clean;
}

/** The bytes that will stand in a directory: a whiteout's prefix never does. */
function nameLength(component: string): number {
  return component.length - (component.startsWith(WHITEOUT_PREFIX) ? WHITEOUT_PREFIX.length : 0);
}

function cleanComponents(path: ByteString, subject: string): ByteString {
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") kept.push(part);
    else if (kept.pop() === undefined) throw bad(path, subject, '".." leads out of the layer');
  }
  return kept.join("/") as ByteString;
}

function bad(path: ByteString, subject: string, reason: string): CorruptDataError {
  const shown = JSON.stringify(display(path.slice(0, 300) as ByteString));
  return new CorruptDataError(`${subject}: entry ${shown}: ${reason}`);
}

/** Everything before the last slash of a cleaned path; "" for a name in the root. */
export function parentPath(path: ByteString): ByteString {
  const slash = path.lastIndexOf("/");
  return (slash < 0 ? "" : path.slice(0, slash)) as ByteString;
}

/** The last component of a cleaned path. */
export function baseName(path: ByteString): ByteString {
  return path.slice(path.lastIndexOf("/") + 1) as ByteString;
}

/** What a name in a layer archive stands for. */
export type EntryMeaning =
  | { readonly kind: "object" }
  /** Hides `path` in the layers below. */
  | { readonly kind: "whiteout"; readonly path: ByteString }
  /** Hides all that layers below have in directory `path`. */
  | { readonly kind: "opaque"; readonly path: ByteString }
  /** aufs bookkeeping: nothing of the file system. */
  | { readonly kind: "ignored" };

const OBJECT: EntryMeaning = { kind: "object" };
const IGNORED: EntryMeaning = { kind: "ignored" };

/** aufs keeps files with several names here, and the names as hard links to them. */
export const AUFS_LINKS = ".wh..wh.plnk" as ByteString;

/**
 * Interprets the reserved names of the image spec (and of aufs, which they come from).
 *
 * @param path a cleaned path
 * @throws CorruptDataError a whiteout of no name, or a reserved name used as a directory
 * @see OCI image-spec layer.md, "Whiteouts"
 */
export function entryMeaning(path: ByteString, subject: string): EntryMeaning {
  if (!path.includes(WHITEOUT_PREFIX)) return OBJECT;
  // Files in there are extracted for a while, because hard links of this archive lead to them.
  if (path.startsWith(`${AUFS_LINKS}/`)) return OBJECT;
  const parent = parentPath(path);
  const name = baseName(path);
  const parents = parent.split("/");
  if (parents.some((part) => part.startsWith(WHITEOUT_META_PREFIX))) return IGNORED;
  if (parents.some((part) => part.startsWith(WHITEOUT_PREFIX))) {
    throw bad(path, subject, `a directory's name begins with the reserved "${WHITEOUT_PREFIX}"`);
  }
  if (name === OPAQUE_MARKER) return { kind: "opaque", path: parent };
  if (name.startsWith(WHITEOUT_META_PREFIX)) return IGNORED;
  if (!name.startsWith(WHITEOUT_PREFIX)) return OBJECT;
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === "" || hidden === "." || hidden === "..") {
    throw bad(path, subject, "a whiteout of no file");
  }
  return { kind: "whiteout", path: (parent === "" ? hidden : `${parent}/${hidden}`) as ByteString };
}
