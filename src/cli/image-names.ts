/** Image references as docker shows them: without what it would add by itself. */

/** A reference taken apart for a table; what is missing is "<none>". */
export interface RepositoryTag {
  readonly repository: string;
  readonly tag: string;
}

const DEFAULT_DOMAIN = "docker.io/";
const OFFICIAL = "library/";

/** "docker.io/library/busybox:latest" → "busybox:latest"; other registries keep their name. */
export function familiarName(reference: string): string {
  if (!reference.startsWith(DEFAULT_DOMAIN)) return reference;
  const path = reference.slice(DEFAULT_DOMAIN.length);
  const short = path.startsWith(OFFICIAL) ? path.slice(OFFICIAL.length) : path;
  // "library/a/b" without "library" would mean "a/b" of another user.
  return short.includes("/") ? path : short;
}

/** Repository and tag of a normalised reference. */
export function splitReference(reference: string): RepositoryTag {
  const name = familiarName(reference);
  const at = name.indexOf("@");
  if (at >= 0) return { repository: name.slice(0, at), tag: "<none>" };
  // A colon before the last slash belongs to a registry's port.
  const colon = name.indexOf(":", name.lastIndexOf("/") + 1);
  if (colon < 0) return { repository: name, tag: "<none>" };
  return { repository: name.slice(0, colon), tag: name.slice(colon + 1) };
}

/** The first twelve digits of a digest or an identifier. */
export function shortDigest(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}
