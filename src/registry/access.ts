/**
 * Who asks a registry, and how it may be reached.
 *
 * Vocabulary of this room: a *registry* is named by a *domain* (`registry.example:5000`); it is
 * reached through *hosts*: its own server, and mirrors before it. A *repository* is a path on a
 * registry. A *scope* is what a token allows (`repository:app:pull`). Invariants: nothing enters the
 * content store unverified; credentials go to the origin they were given for, and nowhere else.
 */

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The caller's means. */
export interface RegistryAccess {
  /** Go before everything in files. */
  readonly credentials?: Credentials | undefined;
  /** Speak http, whatever the configuration says. */
  readonly plainHttp?: boolean | undefined;
  /** Accept any certificate, and plain http where there is none. */
  readonly skipTlsVerify?: boolean | undefined;
  /** No credentials but these: nothing is looked up in files. */
  readonly isWithoutFiles?: boolean | undefined;
  /** HOME, DOCKER_CONFIG, HTTPS_PROXY and the like. */
  readonly environment: Environment;
}

/** One way to prove who one is. */
export type Credentials =
  | { readonly username: string; readonly password: string }
  | { readonly identityToken: string }
  | { readonly registryToken: string };

/** A repository: "docker.io" and "library/busybox". */
export interface RepositoryName {
  readonly domain: string;
  readonly path: string;
}

/** Docker Hub's name in references. */
export const DOCKER_HUB = "docker.io";

/** True for a domain that means this machine. */
export function isLoopback(domain: string): boolean {
  const host = domain.replace(/:\d+$/, "").toLowerCase();
  return host === "localhost" || host === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(host);
}
