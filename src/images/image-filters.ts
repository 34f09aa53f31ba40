/** docker's image filters (reference, dangling, label, before, since), and pinned. */

import { InvalidArgumentError } from "../system/errors.js";
import type { ImageRecord } from "./image-record.js";
import { familiarRepository, formatReference, parseReference } from "./reference.js";

/** How filters look up the image named by "before" and "since". */
export type FilterLookup = (refOrId: string) => ImageRecord;

const KEYS = ["reference", "dangling", "label", "before", "since", "pinned"] as const;
type Key = (typeof KEYS)[number];

/**
 * Applies filters of the form "key=value": different keys must all match; of one key, any value,
 * except that every label must match. With "reference", only the matching tags stay visible.
 *
 * @throws InvalidArgumentError an unknown key or a malformed value
 */
export function filterImages(
  images: readonly ImageRecord[],
  filters: readonly string[],
  lookup: FilterLookup,
): ImageRecord[] {
  const values = parseFilters(filters);
  let result = [...images];
  const patterns = values.get("reference");
  if (patterns !== undefined) result = narrowReferences(result, patterns);
  const pinned = values.get("pinned")?.map((text) => parseBoolean("pinned", text));
  if (pinned !== undefined) result = result.filter((image) => pinned.includes(image.pinned));
  const dangling = values.get("dangling")?.map((text) => parseBoolean("dangling", text));
  if (dangling !== undefined) {
    result = result.filter((image) => dangling.includes(isDangling(image)));
  }
  for (const label of values.get("label") ?? []) {
    result = result.filter((image) => hasLabel(image, label));
  }
  const before = values.get("before")?.map((text) => createdMs(lookup(text)));
  if (before !== undefined) {
    result = result.filter((image) => before.some((limit) => createdMs(image) < limit));
  }
  const since = values.get("since")?.map((text) => createdMs(lookup(text)));
  if (since !== undefined) {
    result = result.filter((image) => since.some((limit) => createdMs(image) > limit));
  }
  return result;
}

/** When the image was made, in milliseconds since 1970; 0 when it does not say. */
export function createdMs(image: ImageRecord): number {
  const time = Date.parse(image.created ?? "");
  return Number.isNaN(time) ? 0 : time;
}

function parseFilters(filters: readonly string[]): Map<Key, string[]> {
  const values = new Map<Key, string[]>();
  for (const filter of filters) {
    const equals = filter.indexOf("=");
    const key = filter.slice(0, Math.max(equals, 0)) as Key;
    if (!KEYS.includes(key)) {
      throw new InvalidArgumentError(
        `filter ${JSON.stringify(filter)}: want KEY=VALUE with one of the keys ${KEYS.join(", ")}`,
      );
    }
    values.set(key, [...(values.get(key) ?? []), filter.slice(equals + 1)]);
  }
  return values;
}

function parseBoolean(key: Key, text: string): boolean {
  if (text === "true" || text === "1") return true;
  if (text === "false" || text === "0") return false;
  throw new InvalidArgumentError(`filter "${key}=${text}": want true or false`);
}

function isDangling(image: ImageRecord): boolean {
  return image.repoTags.length === 0;
}

/** True when the image has the label "KEY", or "KEY=VALUE" with that value. */
export function hasLabel(image: Pick<ImageRecord, "labels">, label: string): boolean {
  const [key, ...rest] = label.split("=") as [string, ...string[]];
  const value = Object.hasOwn(image.labels, key) ? image.labels[key] : undefined;
  return value !== undefined && (rest.length === 0 || value === rest.join("="));
}

function narrowReferences(images: ImageRecord[], patterns: readonly string[]): ImageRecord[] {
  const globs = patterns.map(globToRegExp);
  return images.flatMap((image) => {
    const repoTags = image.repoTags.filter((name) => matchesReference(name, globs));
    const repoDigests = image.repoDigests.filter((name) => matchesReference(name, globs));
    return repoTags.length + repoDigests.length === 0 ? [] : [{ ...image, repoTags, repoDigests }];
  });
}

/** A pattern may mean the name with or without tag, in its short or its full form. */
function matchesReference(name: string, globs: readonly RegExp[]): boolean {
  const reference = parseReference(name);
  const { tag, digest, ...bare } = reference;
  const suffix = tag === undefined ? `@${digest}` : `:${tag}`;
  const familiar = familiarRepository(reference);
  const spellings = [familiar, familiar + suffix, formatReference(bare), name];
  return globs.some((glob) => spellings.some((spelling) => glob.test(spelling)));
}

/**
 * Go's path.Match as a regular expression: "*" and "?" stop at slashes, "[a-z]" and "[^a]" are
 * classes, a backslash takes the next character literally.
 */
function globToRegExp(pattern: string): RegExp {
  let source = "";
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at]!;
    if (character === "*") source += "[^/]*";
    else if (character === "?") source += "[^/]";
    else if (character === "\\" && at + 1 < pattern.length) source += quote(pattern[++at]!);
    else if (character === "[") {
      const end = pattern.indexOf("]", at + 2);
      if (end < 0) throw new InvalidArgumentError(`filter "reference=${pattern}": "[" without "]"`);
      const body = pattern.slice(at + 1, end).replace(/[\\[\]]/g, "\\$&");
      source += `(?!/)[${body}]`;
      at = end;
    } else source += quote(character);
  }
  try {
    return new RegExp(`^${source}$`);
  } catch (cause) {
    throw new InvalidArgumentError(`filter "reference=${pattern}": malformed pattern`, { cause });
  }
}

function quote(character: string): string {
  return character.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}
