/**
 * podman's way to say how registries are reached: `registries.conf` and the directories beside it.
 *
 * @see containers-registries.conf(5)
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { parse as parseToml } from "smol-toml";
import * as v from "valibot";
import { InvalidArgumentError } from "../system/errors.js";
import type { Environment } from "./access.js";
import { MAX_CONFIG_FILE_BYTES } from "./limits.js";

const mirrorSchema = v.looseObject({
  location: v.string(),
  insecure: v.optional(v.boolean(), false),
  "pull-from-mirror": v.optional(v.picklist(["all", "digest-only", "tag-only", ""]), ""),
});
const registrySchema = v.looseObject({
  prefix: v.optional(v.string(), ""),
  location: v.optional(v.string(), ""),
  insecure: v.optional(v.boolean(), false),
  blocked: v.optional(v.boolean(), false),
  "mirror-by-digest-only": v.optional(v.boolean(), false),
  mirror: v.optional(v.array(mirrorSchema), []),
});
const fileSchema = v.looseObject({
  "unqualified-search-registries": v.optional(v.array(v.string())),
  "short-name-mode": v.optional(v.picklist(["enforcing", "permissive", "disabled", ""])),
  aliases: v.optional(v.record(v.string(), v.string()), {}),
  registry: v.optional(v.array(registrySchema), []),
});
type RegistryTable = v.InferOutput<typeof registrySchema>;

/** What a file says of short names. */
export interface ShortNames {
  /** Full names by short ones. */
  readonly aliases: ReadonlyMap<string, string>;
  /** Registries to try, in order; undefined when no file says so. */
  readonly search: readonly string[] | undefined;
  /** With several registries to try, nobody shall guess which one is meant. */
  readonly isStrict: boolean;
  /** For messages: the file that names the registries. */
  readonly file: string;
}

/** One place that has a repository. */
export interface ImageLocation {
  /** "mirror.example:5000" */
  readonly domain: string;
  /** "team/app" there. */
  readonly path: string;
  readonly insecure: boolean;
  /** What it may be asked: by any name, or only by digests or tags. */
  readonly asks: "all" | "digest-only" | "tag-only";
}

/** What the files say of one repository. */
export interface RepositoryRule {
  /** The registry's own place, which may be another than its name says. */
  readonly own: ImageLocation;
  readonly mirrors: readonly ImageLocation[];
  readonly isBlocked: boolean;
  /** Who says so. */
  readonly file: string;
}

interface Loaded {
  readonly shortNames: ShortNames;
  /** By prefix; a later file's table replaces an earlier one's. */
  readonly tables: ReadonlyMap<string, { readonly table: RegistryTable; readonly file: string }>;
}

/**
 * What the files say of a repository; undefined when nothing.
 *
 * @param name "registry.example/team/app"
 * @throws InvalidArgumentError a malformed file
 */
export function repositoryRule(name: string, environment: Environment): RepositoryRule | undefined {
  const { tables } = load(environment);
  let best: { prefix: string; length: number } | undefined;
  for (const prefix of tables.keys()) {
    const length = matchedLength(name, prefix);
    if (length !== undefined && length > (best?.length ?? -1)) best = { prefix, length };
  }
  if (best === undefined) return undefined;
  const { table, file } = tables.get(best.prefix)!;
  const rest = name.slice(best.length);
  const start = name.slice(0, best.length);
  const byDigest = table["mirror-by-digest-only"] ? "digest-only" : "all";
  return {
    own: locate(table.location || start, rest, table.insecure, "all", file),
    mirrors: table.mirror.map((mirror) =>
      locate(mirror.location, rest, mirror.insecure, mirror["pull-from-mirror"] || byDigest, file),
    ),
    isBlocked: table.blocked,
    file,
  };
}

/** What the files say of short names. @throws InvalidArgumentError a malformed file */
export function shortNames(environment: Environment): ShortNames {
  return load(environment).shortNames;
}

/** How much of the name a prefix stands for; "*.example" stands for the hosts below it. */
function matchedLength(name: string, prefix: string): number | undefined {
  if (prefix.startsWith("*.")) {
    const host = name.split("/", 1)[0]!;
    return host.endsWith(prefix.slice(1)) ? host.length : undefined;
  }
  if (!name.startsWith(prefix)) return undefined;
  const next = name[prefix.length];
  return next === undefined || next === "/" ? prefix.length : undefined;
}

function locate(
  location: string,
  rest: string,
  insecure: boolean,
  asks: ImageLocation["asks"],
  file: string,
): ImageLocation {
  const [domain = "", ...parts] = `${location}${rest}`.split("/");
  if (domain !== "") return { domain, path: parts.join("/"), insecure, asks };
  throw new InvalidArgumentError(`${file}: location ${JSON.stringify(location)} names no registry`);
}

function load(environment: Environment): Loaded {
  const tables = new Map<string, { table: RegistryTable; file: string }>();
  const aliases = new Map<string, string>();
  let search: readonly string[] | undefined;
  let isStrict = true;
  let file = "";
  for (const one of configFiles(environment)) {
    const content = parseFile(one);
    for (const table of content.registry) {
      const prefix = table.prefix || table.location;
      if (prefix === "") throw new InvalidArgumentError(`${one}: a registry has no prefix`);
      tables.set(prefix, { table, file: one });
    }
    for (const [short, full] of Object.entries(content.aliases)) {
      // An empty one takes back what an earlier file said.
      if (full === "") aliases.delete(short);
      else aliases.set(short, full);
    }
    const mode = content["short-name-mode"] ?? "";
    if (mode !== "") isStrict = mode === "enforcing";
    if (content["unqualified-search-registries"] === undefined) continue;
    search = content["unqualified-search-registries"];
    file = one;
  }
  return { tables, shortNames: { aliases, search, isStrict, file } };
}

/** In the order in which they count; who names one file means that file alone. */
function configFiles(environment: Environment): string[] {
  const { CONTAINERS_REGISTRIES_CONF: named = "", HOME = "" } = environment;
  if (named !== "") return [named];
  const system = "/etc/containers/registries.conf";
  const own = HOME === "" ? "" : path.join(HOME, ".config/containers/registries.conf");
  const main = own !== "" && isFile(own) ? own : system;
  const directories = [`${system}.d`, ...(own === "" ? [] : [`${own}.d`])];
  return [...(isFile(main) ? [main] : []), ...directories.flatMap(filesIn)];
}

function filesIn(directory: string): string[] {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) return [];
  const names = readdirSync(directory).filter((name) => name.endsWith(".conf"));
  return names.sort().map((name) => path.join(directory, name));
}

function isFile(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isFile() === true;
}

function parseFile(file: string): v.InferOutput<typeof fileSchema> {
  let table: unknown;
  try {
    if (statSync(file).size > MAX_CONFIG_FILE_BYTES) throw new Error("the file is too large");
    table = parseToml(readFileSync(file, "utf8"));
  } catch (error) {
    const reason = (error as Error).message.split("\n")[0];
    throw new InvalidArgumentError(`${file}: ${reason}`, { cause: error });
  }
  const result = v.safeParse(fileSchema, table);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new InvalidArgumentError(`${file}: ${v.getDotPath(issue) ?? "file"}: ${issue.message}`);
}
