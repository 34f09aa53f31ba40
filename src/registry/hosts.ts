/**
 * How a registry is reached: its server and its mirrors, from containerd's `hosts.toml` and the
 * certificate directories of docker and podman.
 *
 * @see containerd docs/hosts.md; docker "Verify repository client with certificates"
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { parse as parseToml } from "smol-toml";
import * as v from "valibot";
import { InvalidArgumentError } from "../system/errors.js";
import { DOCKER_HUB, type Environment, isLoopback, type RegistryAccess } from "./access.js";
import { MAX_CONFIG_FILE_BYTES } from "./limits.js";

/** What a host may be asked for. A mirror that only pulls cannot say what a tag means now. */
export type Capability = "pull" | "resolve" | "push";

/** Certificates, PEM. */
export interface TlsSettings {
  readonly ca: readonly string[];
  readonly clients: readonly { readonly cert: string; readonly key: string }[];
  readonly skipVerify: boolean;
}

/** One way to reach a registry. */
export interface RegistryHost {
  /** "https://mirror.example/v2", without a slash at the end. */
  readonly api: string;
  /** What credentials are looked up by. */
  readonly domain: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly tls: TlsSettings;
  /** A mirror is told with `?ns=` which registry is meant. */
  readonly namespace?: string;
  /** Nobody said http or https: https is tried, then http. */
  readonly schemeIsOpen: boolean;
}

const ALL: readonly Capability[] = ["pull", "resolve", "push"];
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
};
const hostSchema = v.looseObject(hostFields);
const fileSchema = v.looseObject({
  ...hostFields,
  server: v.optional(v.string()),
  host: v.optional(v.record(v.string(), hostSchema)),
});
type HostTable = v.InferOutput<typeof hostSchema>;

/**
 * The hosts of a registry, mirrors first, in the order in which they are to be tried.
 *
 * @throws InvalidArgumentError a malformed hosts.toml, or a file that it names cannot be read
 */
export function hostsOf(domain: string, access: RegistryAccess): RegistryHost[] {
  const directories = configDirectories(access.environment).flatMap((base) => {
    const found = directoryNames(domain)
      .map((name) => path.join(base, name))
      .find((directory) => statSync(directory, { throwIfNoEntry: false })?.isDirectory());
    return found === undefined ? [] : [found];
  });
  const bare = directories.map(readCertificates);
  const tls: TlsSettings = {
    ca: bare.flatMap((one) => one.ca),
    clients: bare.flatMap((one) => one.clients),
    skipVerify: access.skipTlsVerify === true,
  };
  const file = directories
    .map((directory) => path.join(directory, "hosts.toml"))
    .find((candidate) => statSync(candidate, { throwIfNoEntry: false })?.isFile());
  if (file === undefined) return [defaultHost(domain, access, tls)];
  return hostsOfFile(file, domain, access, tls);
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

function defaultHost(domain: string, access: RegistryAccess, tls: TlsSettings): RegistryHost {
  const server = domain === DOCKER_HUB ? "registry-1.docker.io" : domain;
  const hasCertificates = tls.ca.length + tls.clients.length > 0;
  const isOpen = (isLoopback(domain) && !hasCertificates) || access.skipTlsVerify === true;
  return {
    api: `${access.plainHttp === true ? "http" : "https"}://${server}/v2`,
    domain,
    capabilities: new Set(ALL),
    headers: {},
    tls,
    schemeIsOpen: isOpen && access.plainHttp !== true,
  };
}

function hostsOfFile(
  file: string,
  domain: string,
  access: RegistryAccess,
  tls: TlsSettings,
): RegistryHost[] {
  const settings = parseFile(file);
  const mirrors = Object.entries(settings.host ?? {}).map(([url, table]) =>
    hostOfTable(file, url, table, domain, access, tls),
  );
  if (settings.server === undefined) {
    const plain = defaultHost(domain, access, tls);
    const own = hostOfTable(file, plain.api.replace(/\/v2$/, ""), settings, domain, access, tls);
    return [...mirrors, { ...own, schemeIsOpen: plain.schemeIsOpen }];
  }
  return [...mirrors, hostOfTable(file, settings.server, settings, domain, access, tls)];
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

function hostOfTable(
  file: string,
  address: string,
  table: HostTable,
  domain: string,
  access: RegistryAccess,
  bare: TlsSettings,
): RegistryHost {
  const url = parseAddress(file, address, access.plainHttp === true);
  const below = url.pathname.replace(/\/+$/, "");
  const hasVersion = table.override_path === true || below.endsWith("/v2");
  const isOwn = url.host === domain || (domain === DOCKER_HUB && url.host.endsWith(".docker.io"));
  const read = (name: string) => readSetting(path.resolve(path.dirname(file), name), file);
  return {
    api: `${url.origin}${below}${hasVersion ? "" : "/v2"}`,
    domain: isOwn ? domain : url.host,
    capabilities: new Set(table.capabilities ?? ALL),
    headers: table.header ?? {},
    tls: {
      ca: [...bare.ca, ...[table.ca ?? []].flat().map(read)],
      clients: [...bare.clients, ...clientsOf(table.client, read)],
      skipVerify: bare.skipVerify || table.skip_verify === true,
    },
    ...(isOwn ? {} : { namespace: domain }),
    schemeIsOpen: false,
  };
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
