/** Logging in: credentials are tried before they are kept. */

import type { Credentials, RegistryAccess } from "./access.js";
import { eraseCredentials, saveCredentials } from "./credentials.js";
import type { Registries } from "./registries.js";
import { withRetries } from "./retry.js";

/**
 * Tries credentials at a registry and keeps them.
 *
 * @returns where they are kept now: a file, or a credential helper
 * @throws PermissionDeniedError the registry refuses them, or they cannot be saved
 * @throws UnavailableError the registry cannot be reached
 */
export async function login(
  registries: Registries,
  domain: string,
  credentials: Credentials,
  access: RegistryAccess,
  signal?: AbortSignal,
): Promise<string> {
  const means = { ...access, credentials };
  const name = { domain, path: "" };
  const repository = registries.repository(name, means, { wantsIdentity: true });
  const connection = repository.connections("pull").at(-1)!;
  await withRetries(repository.retry, signal, async () => {
    const answer = await connection.send({
      method: "GET",
      path: "/",
      scopes: [],
      signal,
      what: `log in to ${domain}`,
      accept: [200],
    });
    await answer.body.dump();
  });
  const identityToken = await connection.identityToken([]);
  registries.forget(domain);
  const kept = identityToken === undefined ? credentials : { identityToken };
  return await saveCredentials(domain, kept, access.environment);
}

/** Forgets the credentials of a registry. @returns the files and helpers that had some */
export async function logout(
  registries: Registries,
  domain: string,
  access: RegistryAccess,
): Promise<string[]> {
  registries.forget(domain);
  return await eraseCredentials(domain, access.environment);
}
