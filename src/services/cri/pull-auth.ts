/** The credentials that come with a CRI pull. */

import { type Credentials, DOCKER_HUB } from "../../registry/access.js";
import { InvalidArgumentError } from "../../system/errors.js";
import type { AuthConfig } from "../gen/runtime/v1/image_pb.js";

const HUB_HOSTS = ["index.docker.io", "registry-1.docker.io"];

/**
 * The credentials for a registry; undefined when none were given, or only some for another registry.
 * Name and password go before an identity token, that before both in one (`auth`), as in containerd.
 *
 * @param domain "docker.io", "registry.example:5000"
 * @throws InvalidArgumentError something was given, but nothing to use; or `auth` is malformed
 */
export function pullCredentials(
  auth: AuthConfig | undefined,
  domain: string,
): Credentials | undefined {
  if (auth === undefined || !isFor(auth.serverAddress, domain)) return undefined;
  const { username, password, identityToken, registryToken } = auth;
  if (username !== "") return { username, password };
  if (identityToken !== "") return { identityToken };
  if (auth.auth !== "") return decodeAuth(auth.auth);
  if (registryToken !== "") return { registryToken };
  // What a kubelet sends for a secret without an entry.
  if (password === "" && auth.serverAddress === "") return undefined;
  throw new InvalidArgumentError(
    `credentials for ${domain}: neither a user name nor a token is given`,
  );
}

function isFor(serverAddress: string, domain: string): boolean {
  if (serverAddress === "") return true;
  const address = serverAddress.includes("://") ? serverAddress : `https://${serverAddress}`;
  if (!URL.canParse(address)) return false;
  // Not `host`: a URL forgets the default port of its scheme.
  const host = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(address)?.[1]?.toLowerCase() ?? "";
  return (HUB_HOSTS.includes(host) ? DOCKER_HUB : host) === domain.toLowerCase();
}

function decodeAuth(auth: string): Credentials {
  const text = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = text.indexOf(":");
  if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  throw new InvalidArgumentError('credentials: "auth" must be base64 of "username:password"');
}
