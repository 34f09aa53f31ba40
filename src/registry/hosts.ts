/**
 * How a repository is reached: its server and its mirrors, from containerd's `hosts.toml`, the
 * certificate directories of docker and podman, and podman's `registries.conf`.
 *
 * @see containerd docs/hosts.md; docker "Verify repository client with certificates"
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { parse as parseToml } from "smol-toml";
import * as v from "valibot";
import { FailedPreconditionError, InvalidArgumentError } from "../system/errors.js";
import {
  DOCKER_HUB,
  type Environment,
  isLoopback,
  type RegistryAccess,
  type RepositoryName,
} from "./access.js";
import { MAX_CONFIG_FILE_BYTES } from "./limits.js";
import { type ImageLocation, type RepositoryRule, repositoryRule } from "./registries-conf.js";

/** What a host may be asked for. A mirror that only pulls cannot say what a tag means now. */
export type Capability = "pull" | "resolve" | "push";

/** Certificates, PEM. */
export interface TlsSettings {
  readonly ca: readonly string[];
  readonly clients: readonly { readonly cert: string; readonly key: string }[];
  readonly skipVerify: boolean;
}

/** One way to reach a repository. */
export interface RegistryHost {
  /** "https://mirror.example/v2", without a slash at the end. */
  readonly api: string;
  /** What credentials are looked up by. */
  readonly domain: string;
  /** What the repository is called there. */
  readonly path: string;
  /** Another server than the one that was named: the caller's own credentials are not for it. */
  readonly isMirror: boolean;
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly tls: TlsSettings;
  /** containerd's mirrors are told with `?ns=` which registry is meant. */
  readonly namespace?: string;
  /** How long connecting may take, where it is said. */
  readonly dialTimeoutMs?: number;
  /** Nobody said http or https: https is tried, then http. */
  readonly schemeIsOpen: boolean;
}

const ALL: readonly Capability[] = ["pull", "resolve", "push"];
const READ: ReadonlySet<Capability> = new Set(["pull", "resolve"]);
const PULL: ReadonlySet<Capability> = new Set(["pull"]);
const PUSH: ReadonlySet<Capability> = new Set(["push"]);
const SYSTEM_DIRECTORIES = [
  "/etc/containerd/certs.d",
  "/etc/docker/certs.d",
  "/etc/containers/certs.d",
];

const pathList = v.union([v.string(), v.array(v.string())]);
const hostFields = {
  capabilities: v.optional(v.array(v.picklist(ALL))),
  ca: v.optional(pathList),
  client: v.optional(v.union([v.string(), v.array(v.union([v.string(), v.array(v.string())]))])),
  skip_verify: v.optional(v.boolean()),
  header: v.optional(v.record(v.string(), v.union([v.string(), v.array(v.string())]))),
  override_path: v.optional(v.boolean()),
  dial_timeout: v.optional(v.string()),
};
const hostSchema = v.looseObject(hostFields);
const fileSchema = v.looseObject({
  ...hostFields,
  server: v.optional(v.string()),
  host: v.optional(v.record(v.string(), hostSchema)),
});
type HostTable = v.InferOutput<typeof hostSchema>;

/**
 * The hosts of a repository, mirrors first, in the order in which they are to be tried. A hosts.toml
 * goes before registries.conf.
 *
 * @param name its path is empty when only the registry is meant (a login)
 * @param isByDigest what is wanted of it is named by a digest
 * @throws InvalidArgumentError a malformed file, or a file that it names cannot be read
 * @throws FailedPreconditionError registries.conf blocks it
 */
export function hostsOf(
  name: RepositoryName,
  access: RegistryAccess,
  isByDigest = false,
): RegistryHost[] {
  const file = directoriesOf(name.domain, access.environment)
    .map((directory) => path.join(directory, "hosts.toml"))
    .find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isFile());
  if (file !== undefined) return hostsOfFile(file, name, access);
  const full = name.path === "" ? name.domain : `${name.domain}/${name.path}`;
  const rule = repositoryRule(full, access.environment);
  if (rule === undefined) return [plainHost(name, access)];
  return hostsOfRule(rule, name, access, isByDigest);
}

function directoriesOf(domain: string, environment: Environment): string[] {
  return configDirectories(environment).flatMap((base) => {
    const found = directoryNames(domain)
      .map((name) => path.join(base, name))
      .find((directory) => statSync(directory, { throwIfNoEntry: false })?.isDirectory());
    return found === undefined ? [] : [found];
  });
}

/** What the directories' bare files and the caller say. */
function bareTls(domain: string, access: RegistryAccess): TlsSettings {
  const bare = directoriesOf(domain, access.environment).map(readCertificates);
  return {
    ca: bare.flatMap((one) => one.ca),
    clients: bare.flatMap((one) => one.clients),
    skipVerify: access.skipTlsVerify === true,
  };
}

function hostsOfRule(
  rule: RepositoryRule,
  name: RepositoryName,
  access: RegistryAccess,
  isByDigest: boolean,
): RegistryHost[] {
  if (rule.isBlocked) {
    throw new FailedPreconditionError(
      `registry ${name.domain}: ${rule.file} blocks ${name.path === "" ? "it" : name.path}`,
    );
  }
  const placed = (place: ImageLocation, isMirror: boolean): RegistryHost => {
    const insecure = place.insecure ? { skipTlsVerify: true } : {};
    const host = plainHost(place, { ...access, ...insecure });
    return isMirror ? { ...host, isMirror, capabilities: READ } : host;
  };
  const own = placed({ ...rule.own, ...name }, false);
  const isElsewhere = rule.own.domain !== name.domain || rule.own.path !== name.path;
  if (name.path === "") return [own];
  const mirrors = rule.mirrors.flatMap((mirror): RegistryHost[] => {
    if (mirror.asks === "tag-only" && isByDigest) return [];
    const host = placed(mirror, true);
    // By a digest it has what the registry has, whoever said what the tag means.
    return [mirror.asks === "digest-only" ? { ...host, capabilities: PULL } : host];
  });
  if (!isElsewhere) return [...mirrors, own];
  // As podman does, what is pushed goes where its name says.
  return [...mirrors, placed(rule.own, true), { ...own, capabilities: PUSH }];
}

function configDirectories(environment: Environment): string[] {
  const given = (environment.VARVE_HOSTS_DIR ?? "").split(":").filter((one) => one !== "");
  if (given.length > 0) return given;
  const home = environment.HOME ?? "";
  const own = home === "" ? [] : [path.join(home, ".config/containers/certs.d")];
  return [...SYSTEM_DIRECTORIES, ...own];
}

/** "registry:5000", containerd's spelling for file systems without colons, and the one for all. */
function directoryNames(domain: string): string[] {
  return [domain, domain.replace(/:(\d+)$/, "_$1_"), "_default"];
}

/** docker's layout: x.crt is a CA, x.cert with x.key a client's. */
function readCertificates(directory: string): Pick<TlsSettings, "ca" | "clients"> {
  const names = readdirSync(directory).sort();
  const read = (name: string) => readSetting(path.join(directory, name), directory);
  const ca = names.filter((name) => name.endsWith(".crt")).map(read);
  const clients = names
    .filter((name) => name.endsWith(".cert"))
    .map((name) => ({ cert: read(name), key: read(name.replace(/\.cert$/, ".key")) }));
  return { ca, clients };
}

function readSetting(file: string, where: string): string {
  try {
    if (statSync(file).size > MAX_CONFIG_FILE_BYTES) throw new Error("the file is too large");
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new InvalidArgumentError(`${where}: cannot read ${file}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** The host of which no configuration file says anything. */
function plainHost(name: RepositoryName, access: RegistryAccess): RegistryHost {
  const { domain } = name;
  const tls = bareTls(domain, access);
  const server = domain === DOCKER_HUB ? "registry-1.docker.io" : domain;
  const hasCertificates = tls.ca.length + tls.clients.length > 0;
  const isOpen = (isLoopback(domain) && !hasCertificates) || access.skipTlsVerify === true;
  return {
    api: `${access.plainHttp === true ? "http" : "https"}://${server}/v2`,
    domain,
    path: name.path,
    isMirror: false,
    capabilities: new Set(ALL),
    headers: {},
    tls,
    schemeIsOpen: isOpen && access.plainHttp !== true,
  };
}

function hostsOfFile(file: string, name: RepositoryName, access: RegistryAccess): RegistryHost[] {
  const settings = parseFile(file);
  const plain = plainHost(name, access);
  const make = (address: string, table: HostTable) =>
    hostOfTable({ file, address, table, plain, plainHttp: access.plainHttp === true });
  const mirrors = Object.entries(settings.host ?? {}).map(([url, table]) => make(url, table));
  if (settings.server !== undefined) return [...mirrors, make(settings.server, settings)];
  const own = make(plain.api.replace(/\/v2$/, ""), settings);
  return [...mirrors, { ...own, schemeIsOpen: plain.schemeIsOpen }];
}

function parseFile(file: string): v.InferOutput<typeof fileSchema> {
  const text = readSetting(file, file);
  let table: unknown;
  try {
    table = parseToml(text);
  } catch (error) {
    throw new InvalidArgumentError(`${file}: ${(error as Error).message.split("\n")[0]}`, {
      cause: error,
    });
  }
  const result = v.safeParse(fileSchema, table);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new InvalidArgumentError(`${file}: ${v.getDotPath(issue) ?? "file"}: ${issue.message}`);
}

/** @param o.plain the registry itself, without the file */
function hostOfTable(o: {
  readonly file: string;
  readonly address: string;
  readonly table: HostTable;
  readonly plain: RegistryHost;
  readonly plainHttp: boolean;
}): RegistryHost {
  const { file, table, plain } = o;
  const { domain, tls: bare } = plain;
  const url = parseAddress(file, o.address, o.plainHttp);
  const below = url.pathname.replace(/\/+$/, "");
  const hasVersion = table.override_path === true || below.endsWith("/v2");
  const isOwn = url.host === domain || (domain === DOCKER_HUB && url.host.endsWith(".docker.io"));
  const read = (name: string) => readSetting(path.resolve(path.dirname(file), name), file);
  return {
    api: `${url.origin}${below}${hasVersion ? "" : "/v2"}`,
    domain: isOwn ? domain : url.host,
    path: plain.path,
    isMirror: !isOwn,
    capabilities: new Set(table.capabilities ?? ALL),
    headers: table.header ?? {},
    tls: {
      ca: [...bare.ca, ...[table.ca ?? []].flat().map(read)],
      clients: [...bare.clients, ...clientsOf(table.client, read)],
      skipVerify: bare.skipVerify || table.skip_verify === true,
    },
    ...(isOwn ? {} : { namespace: domain }),
    ...(table.dial_timeout === undefined
      ? {}
      : { dialTimeoutMs: parseDuration(file, table.dial_timeout) }),
    schemeIsOpen: false,
  };
}

const UNIT_MS = new Map(Object.entries({ ms: 1, s: 1000, m: 60_000, h: 3_600_000 }));

/** Milliseconds of a duration as Go spells it: "1m30s", "500ms". */
function parseDuration(file: string, text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  const isWhole = parts.length > 0 && parts.map(([part]) => part).join("") === text;
  const total = parts.reduce(
    (sum, [, value, unit]) => sum + Number(value) * UNIT_MS.get(unit!)!,
    0,
  );
  if (isWhole && total >= 1) return total;
  throw new InvalidArgumentError(
    `${file}: dial_timeout: ${JSON.stringify(text)} is no duration, such as "10s" or "500ms"`,
  );
}

function parseAddress(file: string, address: string, plainHttp: boolean): URL {
  const full = address.includes("://") ? address : `${plainHttp ? "http" : "https"}://${address}`;
  if (!URL.canParse(full) || !/^https?:/.test(full)) {
    throw new InvalidArgumentError(`${file}: ${JSON.stringify(address)} is no http(s) address`);
  }
  return new URL(full);
}

/** One PEM file with both, a list of those, or a list of [certificate, key]. */
function clientsOf(
  client: HostTable["client"],
  read: (name: string) => string,
): { cert: string; key: string }[] {
  const entries = typeof client === "string" ? [client] : (client ?? []);
  return entries.map((entry) => {
    const [cert, key] = typeof entry === "string" ? [entry, entry] : [entry[0], entry[1]];
    const certificate = read(cert ?? "");
    return { cert: certificate, key: key === undefined || key === "" ? certificate : read(key) };
  });
}
