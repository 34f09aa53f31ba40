/** Finding and keeping the credentials for a repository. */

import { CorruptDataError } from "../system/errors.js";
import {
  type Credentials,
  DOCKER_HUB,
  type Environment,
  type RegistryAccess,
  type RepositoryName,
} from "./access.js";
import {
  type CredentialEntry,
  type CredentialFile,
  credentialFiles,
  loginFile,
  readCredentialFile,
  writeCredentialFile,
} from "./credential-files.js";
import { askHelper, eraseWithHelper, storeWithHelper } from "./credential-helper.js";

/** docker's key for its Hub. */
const HUB_KEY = "https://index.docker.io/v1/";
const HUB_NAMES = [HUB_KEY, "index.docker.io", "registry-1.docker.io"];

/**
 * The credentials for a repository: the caller's own, else those of the first file that has some.
 * In a file the most specific key wins (podman's "registry/team/app" before "registry"), helpers
 * go before plain entries.
 *
 * @throws CorruptDataError, PermissionDeniedError a file cannot be used; UnavailableError a helper
 */
export async function findCredentials(
  repository: RepositoryName,
  access: RegistryAccess,
): Promise<Credentials | undefined> {
  if (access.credentials !== undefined) return access.credentials;
  if (access.isWithoutFiles === true) return undefined;
  for (const file of credentialFiles(access.environment)) {
    const content = readCredentialFile(file);
    if (content === undefined) continue;
    const found = await findIn(content, file, repository, access.environment);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function findIn(
  content: CredentialFile,
  file: string,
  repository: RepositoryName,
  environment: Environment,
): Promise<Credentials | undefined> {
  const { domain } = repository;
  const helper = content.credHelpers?.[domain] ?? content.credsStore ?? "";
  if (helper !== "") {
    const found = await askHelper(helper, serverName(domain), environment);
    if (found !== undefined) return found;
  }
  const entries = new Map(
    Object.entries(content.auths ?? {}).map(([key, entry]) => [plainKey(key), entry]),
  );
  for (const key of keysOf(repository)) {
    const entry = entries.get(key);
    const found = entry && decodeEntry(entry, `${file}: ${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** What helpers and docker's config call a registry. */
function serverName(domain: string): string {
  return domain === DOCKER_HUB ? HUB_KEY : domain;
}

/** "https://registry.example/v1/" is how old versions of docker spelled "registry.example". */
function plainKey(key: string): string {
  return key.replace(/^https?:\/\//, "").replace(/(?:\/v[12])?\/*$/, "");
}

function keysOf({ domain, path }: RepositoryName): string[] {
  const parts = path === "" ? [] : path.split("/");
  const scoped = parts.map((_, count) => [domain, ...parts.slice(0, parts.length - count)]);
  const keys = [...scoped.map((one) => one.join("/")), domain];
  return domain === DOCKER_HUB ? [...keys, ...HUB_NAMES.map(plainKey)] : keys;
}

function decodeEntry(entry: CredentialEntry, where: string): Credentials | undefined {
  if (entry.registrytoken) return { registryToken: entry.registrytoken };
  if (entry.identitytoken) return { identityToken: entry.identitytoken };
  if (entry.auth) {
    const text = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = text.indexOf(":");
    if (colon < 0) throw new CorruptDataError(`credentials in ${where}: "auth" is malformed`);
    return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  if (entry.username) return { username: entry.username, password: entry.password ?? "" };
  return undefined;
}

/**
 * Keeps credentials where docker and podman find them too.
 *
 * @returns the file, or the helper, that has them now
 * @throws PermissionDeniedError, CorruptDataError the file; UnavailableError the helper
 */
export async function saveCredentials(
  domain: string,
  credentials: Credentials,
  environment: Environment,
): Promise<string> {
  const file = loginFile(environment);
  const content = readCredentialFile(file) ?? {};
  const server = serverName(domain);
  const helper = content.credHelpers?.[domain] ?? content.credsStore ?? "";
  if (helper !== "") {
    await storeWithHelper(helper, server, credentials, environment);
    return `docker-credential-${helper}`;
  }
  const auths = { ...withoutEntry(content.auths, domain), [server]: encodeEntry(credentials) };
  writeCredentialFile(file, { ...content, auths });
  return file;
}

function encodeEntry(credentials: Credentials): CredentialEntry {
  if ("identityToken" in credentials) return { identitytoken: credentials.identityToken };
  if ("registryToken" in credentials) return { registrytoken: credentials.registryToken };
  const text = `${credentials.username}:${credentials.password}`;
  return { auth: Buffer.from(text).toString("base64") };
}

function withoutEntry(
  auths: CredentialFile["auths"],
  domain: string,
): Record<string, CredentialEntry> {
  const keys = new Set(keysOf({ domain, path: "" }));
  return Object.fromEntries(
    Object.entries(auths ?? {}).filter(([key]) => !keys.has(plainKey(key))),
  );
}

/** Forgets the credentials of a registry everywhere. @returns the files and helpers that had some */
export async function eraseCredentials(
  domain: string,
  environment: Environment,
): Promise<string[]> {
  const changed: string[] = [];
  for (const file of new Set([...credentialFiles(environment), loginFile(environment)])) {
    const content = readCredentialFile(file);
    if (content === undefined) continue;
    const helper = content.credHelpers?.[domain] ?? content.credsStore ?? "";
    if (helper !== "" && (await askHelper(helper, serverName(domain), environment))) {
      await eraseWithHelper(helper, serverName(domain), environment);
      changed.push(`docker-credential-${helper}`);
    }
    const auths = withoutEntry(content.auths, domain);
    if (Object.keys(auths).length === Object.keys(content.auths ?? {}).length) continue;
    writeCredentialFile(file, { ...content, auths });
    changed.push(file);
  }
  return changed;
}
