/** From what a person typed to an image, and to the names that a removal takes away. */

import type { ReferenceRow } from "../metadata/reference-table.js";
import { FailedPreconditionError, InvalidArgumentError, NotFoundError } from "../system/errors.js";
import type { ImageRecord } from "./image-record.js";
import {
  type ImageReference,
  idPrefixOf,
  isDanglingName,
  isPlainlyId,
  normalizeReference,
  parseReference,
  repositoryOf,
} from "./reference.js";

/** An image, and the reference when it was a reference that found it. */
export type FoundImage = { readonly image: ImageRecord; readonly reference?: string };

/** At most this many candidates of an ambiguous prefix are listed. */
const MAX_LISTED = 8;

/**
 * Finds an image by reference in any spelling, by ID, or by a unique prefix of the ID. A name goes
 * before an ID prefix of the same spelling, as in docker.
 *
 * @throws NotFoundError nothing has this name or ID
 * @throws InvalidArgumentError the prefix fits several IDs; or no name and no ID at all
 */
export function findImage(images: readonly ImageRecord[], text: string): FoundImage {
  let malformed: unknown;
  if (!isPlainlyId(text)) {
    try {
      const reference = normalizeReference(text);
      const image = images.find(
        ({ repoTags, repoDigests }) =>
          repoTags.includes(reference) || repoDigests.includes(reference),
      );
      if (image !== undefined) return { image, reference };
    } catch (error) {
      malformed = error;
    }
  }
  const prefix = idPrefixOf(text);
  if (prefix !== undefined) {
    const image = findByPrefix(images, `sha256:${prefix}`, text);
    if (image !== undefined) return { image };
  }
  throw malformed ?? notFound(text);
}

function findByPrefix(
  images: readonly ImageRecord[],
  prefix: string,
  text: string,
): ImageRecord | undefined {
  const byId = images.filter((image) => image.id.startsWith(prefix));
  // The manifest's digest, which other tools call the ID, finds the image as well.
  const matches = byId.length > 0 ? byId : images.filter((one) => one.digest.startsWith(prefix));
  if (matches.length <= 1) return matches[0];
  const listed = matches.slice(0, MAX_LISTED).map((image) => {
    const [name] = image.repoTags;
    return name === undefined ? image.id : `${image.id} (${name})`;
  });
  const more = matches.length > MAX_LISTED ? ` and ${matches.length - MAX_LISTED} more` : "";
  throw new InvalidArgumentError(
    `image ID ${JSON.stringify(text)} is ambiguous: ${listed.join(", ")}${more}; give more digits`,
    { details: { candidates: matches.map((image) => image.id) } },
  );
}

function notFound(text: string): NotFoundError {
  if (isPlainlyId(text)) return new NotFoundError(`image ${text}: no image has this ID`);
  const reference = normalizeReference(text);
  const expanded = reference === text ? "" : ` (looked for ${reference})`;
  return new NotFoundError(`image ${text}: not found${expanded}`, { details: { reference } });
}

/**
 * The references that a removal takes away.
 *
 * @param rows all references of the image
 * @param reference the normalised name that was given; undefined when an ID was
 * @throws FailedPreconditionError an ID has several names and there is no `force`
 */
export function leavingReferences(
  rows: readonly ReferenceRow[],
  reference: string | undefined,
  force: boolean,
): ReferenceRow[] {
  if (reference === undefined) return leavingById(rows, force);
  const given = parseReference(reference);
  const exact = rows.find((row) => row.name === reference);
  if (exact === undefined) {
    // A digest that no reference was made with stands for the tags that point to it.
    const same = rows.filter((row) => row.target.digest === given.digest && inSameRepo(row, given));
    return leavingById(same, force);
  }
  const others = rows.filter((row) => row !== exact && inSameRepo(row, given));
  const isLastTag = given.tag !== undefined && others.every((row) => tagOf(row) === undefined);
  // The digests of a repository go with its last tag: nobody typed them.
  return isLastTag ? [exact, ...others] : [exact];
}

function leavingById(rows: readonly ReferenceRow[], force: boolean): ReferenceRow[] {
  const named = rows.filter((row) => !isDanglingName(row.name));
  const tags = named.filter((row) => tagOf(row) !== undefined);
  const repositories = new Set(named.map((row) => repositoryOf(parseReference(row.name))));
  if (!force && (tags.length > 1 || repositories.size > 1)) {
    throw new FailedPreconditionError(
      `remove image by its ID: it has several names (${named.map((row) => row.name).join(", ")}); ` +
        "remove them one by one, or force to remove all",
    );
  }
  return [...rows];
}

function tagOf(row: ReferenceRow): string | undefined {
  return isDanglingName(row.name) ? undefined : parseReference(row.name).tag;
}

function inSameRepo(row: ReferenceRow, reference: ImageReference): boolean {
  if (isDanglingName(row.name)) return false;
  return repositoryOf(parseReference(row.name)) === repositoryOf(reference);
}
