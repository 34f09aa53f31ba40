/**
 * Names of images: docker's reference grammar, its normal form, and image IDs.
 *
 * Vocabulary: a *reference* is `domain/path[:tag][@digest]`; the *normal form* spells out what people
 * leave away (`busybox` is `docker.io/library/busybox:latest`); the *familiar form* leaves it away
 * again. An *image ID* is the digest of a config, given in full or as the beginning of its hex.
 *
 * @see distribution/reference, the grammar in its package comment
 */

import { type Digest, isDigest } from "../content/digest.js";
import { InvalidArgumentError, UnsupportedError } from "../system/errors.js";

/** A parsed reference; always with a domain, as `docker.io` and `library/` are filled in. */
export type ImageReference = {
  readonly domain: string;
  readonly path: string;
  readonly tag?: string;
  readonly digest?: Digest;
};

const DEFAULT_DOMAIN = "docker.io";
const LEGACY_DEFAULT_DOMAIN = "index.docker.io";
const OFFICIAL = "library/";
const DEFAULT_TAG = "latest";
const MAX_PATH = 255;
/** Longer input is refused before any pattern runs over it. */
const MAX_INPUT = 1024;

const DOMAIN_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const DOMAIN = new RegExp(
  `^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`,
);
const PATH_PART = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/**
 * Parses a reference and fills in domain and `library/`, but no tag.
 *
 * @throws InvalidArgumentError with what is wrong and, where it is plain, what was meant
 * @throws UnsupportedError a digest of another algorithm than sha256
 */
export function parseReference(text: string): ImageReference {
  if (text === "") throw invalid(text, "it is empty");
  if (text.length > MAX_INPUT) throw invalid(`${text.slice(0, 40)}…`, "it is too long");
  if (/^[0-9a-f]{64}$/.test(text)) {
    throw invalid(text, "64 hexadecimal digits are an image ID and cannot be a name");
  }
  const [named, digest] = splitDigest(text);
  const [name, tag] = splitTag(named);
  const [domain, path] = splitDomain(name);
  checkDomain(text, domain);
  checkPath(text, path);
  if (tag !== undefined && !TAG.test(tag)) {
    throw invalid(
      text,
      `the tag ${JSON.stringify(tag)} must be 1 to 128 letters, digits, "_", "." or "-", ` +
        `and not begin with "." or "-"`,
    );
  }
  return {
    domain,
    path,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

function splitDigest(text: string): [string, Digest | undefined] {
  const at = text.indexOf("@");
  if (at < 0) return [text, undefined];
  const digest = text.slice(at + 1);
  if (isDigest(digest)) return [text.slice(0, at), digest];
  if (/^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/.test(digest)) {
    if (!digest.startsWith("sha256:")) {
      throw new UnsupportedError(
        `image reference ${JSON.stringify(text)}: only sha256 digests are supported`,
      );
    }
  }
  throw invalid(text, `after "@" it needs "sha256:" and 64 lower-case hexadecimal digits`);
}

function splitTag(text: string): [string, string | undefined] {
  const colon = text.lastIndexOf(":");
  // A colon before the last slash belongs to the port.
  if (colon < 0 || colon < text.lastIndexOf("/")) return [text, undefined];
  return [text.slice(0, colon), text.slice(colon + 1)];
}

function splitDomain(name: string): [domain: string, path: string] {
  const slash = name.indexOf("/");
  const head = name.slice(0, Math.max(slash, 0));
  const isDomain =
    slash > 0 && (/[.:]/.test(head) || head === "localhost" || head !== head.toLowerCase());
  const domain = isDomain && head !== LEGACY_DEFAULT_DOMAIN ? head : DEFAULT_DOMAIN;
  const path = isDomain ? name.slice(slash + 1) : name;
  return [domain, domain === DEFAULT_DOMAIN && !path.includes("/") ? OFFICIAL + path : path];
}

function checkDomain(text: string, domain: string): void {
  if (DOMAIN.test(domain)) return;
  throw invalid(text, `${JSON.stringify(domain)} is no host name with an optional port`);
}

function checkPath(text: string, path: string): void {
  if (path.length > MAX_PATH) {
    throw invalid(text, `the repository has ${path.length} characters, at most ${MAX_PATH} fit`);
  }
  if (path !== path.toLowerCase()) {
    const lower = path.replace(OFFICIAL, "").toLowerCase();
    throw invalid(text, `repository names are lower-case; did you mean ${JSON.stringify(lower)}?`);
  }
  for (const part of path.split("/")) {
    if (PATH_PART.test(part)) continue;
    throw invalid(
      text,
      part === ""
        ? "a part of the repository name is empty"
        : `${JSON.stringify(part)} must be lower-case letters and digits, with ".", "_", "__" or ` +
            `"-" only between them`,
    );
  }
}

function invalid(text: string, reason: string): InvalidArgumentError {
  return new InvalidArgumentError(`image reference ${JSON.stringify(text)}: ${reason}`);
}

/** "docker.io/library/busybox": what tags and digests hang on. */
export function repositoryOf(reference: ImageReference): string {
  return `${reference.domain}/${reference.path}`;
}

/** The full text of a reference. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${repositoryOf(reference)}${tag}${digest}`;
}

/**
 * The normal form of what a person typed: `:latest` when neither tag nor digest is given; with both,
 * the digest alone, since it says which image is meant.
 *
 * @throws as `parseReference`
 */
export function normalizeReference(text: string): string {
  const { tag, digest, ...name } = parseReference(text);
  if (digest !== undefined) return formatReference({ ...name, digest });
  return formatReference({ ...name, tag: tag ?? DEFAULT_TAG });
}

/** The repository as people write it: "busybox", "user/app", "registry.example:5000/app". */
export function familiarRepository(reference: ImageReference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return repositoryOf(reference);
  const { path } = reference;
  // A first part that looks like a host would be taken for one without the real host before it.
  if (/^(?:[^/]*[.:][^/]*|localhost)\//.test(path)) return repositoryOf(reference);
  const short = path.startsWith(OFFICIAL) ? path.slice(OFFICIAL.length) : path;
  return short.includes("/") ? path : short;
}

/** A reference as people write it: "busybox:latest". */
export function familiarReference(text: string): string {
  const reference = parseReference(text);
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${familiarRepository(reference)}${tag}${digest}`;
}

/** The hex digits of something that can be an image ID, whole or its beginning; else undefined. */
export function idPrefixOf(text: string): string | undefined {
  return /^(?:sha256:)?([0-9a-f]{1,64})$/.exec(text)?.[1];
}

/** True for an ID that cannot be meant as a name: "sha256:…", or all 64 digits. */
export function isPlainlyId(text: string): boolean {
  return /^sha256:[0-9a-f]{1,64}$/.test(text) || /^[0-9a-f]{64}$/.test(text);
}

const DANGLING = "<none>@";

/** The reference under which an image without a name is kept; no user's reference looks like it. */
export function danglingName(digest: Digest): string {
  return DANGLING + digest;
}

/** True for what `danglingName` makes. */
export function isDanglingName(name: string): boolean {
  return name.startsWith(DANGLING);
}
