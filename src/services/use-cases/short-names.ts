/** What a name without a registry may mean, where podman's configuration says so. */

import { parseReference } from "../../images/reference.js";
import type { RegistryAccess } from "../../registry/access.js";
import { shortNames } from "../../registry/registries-conf.js";
import { InvalidArgumentError } from "../../system/errors.js";

/**
 * The names to try for what a person typed, in order: a short name's alias, else the registries that
 * are to be searched; without such configuration the name itself, which then means Docker Hub.
 *
 * @throws InvalidArgumentError no reference; a malformed file; several registries to search, and
 *   nobody may guess
 * @see containers-registries.conf(5), "unqualified-search-registries" and "short-name-mode"
 */
export function fullNames(reference: string, access: RegistryAccess): string[] {
  const { domain, path } = parseReference(reference);
  const [name] = reference.split("@", 1) as [string];
  const colon = name.lastIndexOf(":");
  const repository = colon > name.lastIndexOf("/") ? name.slice(0, colon) : name;
  // Whoever names the registry means that one.
  if (!`${domain}/${path}`.endsWith(`/${repository}`)) return [reference];
  const { aliases, search, isStrict, file } = shortNames(access.environment);
  const alias = aliases.get(repository);
  if (alias !== undefined) return [alias + reference.slice(repository.length)];
  if (search === undefined || search.length === 0) return [reference];
  if (search.length > 1 && isStrict) {
    const choices = search.map((registry) => `${registry}/${reference}`).join(", ");
    throw new InvalidArgumentError(
      `image reference ${JSON.stringify(reference)}: ${file} lets it mean ${choices}; ` +
        'name one of them, or set short-name-mode = "permissive"',
    );
  }
  return search.map((registry) => `${registry}/${reference}`);
}
