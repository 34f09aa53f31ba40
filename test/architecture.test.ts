/** The structure as a test: rooms, the direction of imports, sizes, and who may use which package. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");
const source = join(root, "src");

/** Top to bottom; a room imports itself and rooms below it. */
const ROOMS = [
  "cli",
  "explore",
  "doctor",
  "client",
  "daemon",
  "services",
  "images",
  "registry",
  "views",
  "snapshots",
  "layers",
  "overlay",
  "fuse",
  "content",
  "metadata",
  "system",
] as const;

/** Packages that belong to certain rooms, so that the others stay free of them. */
const PACKAGE_ROOMS: Readonly<Record<string, readonly string[]>> = {
  commander: ["cli"],
  pino: ["daemon"],
  "better-sqlite3": ["metadata"],
  "tar-stream": ["images"],
  undici: ["registry"],
  "@grpc/grpc-js": ["services"],
  "@bufbuild/protobuf": ["services", "client"],
};

const LINE_LIMIT = 400;
const FORBIDDEN_NAMES = ["helpers.ts", "common.ts", "manager.ts", "utils.ts", "util.ts"];

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const isGenerated = (file: string) => file.includes(`${join("services", "gen")}/`);
const files = filesBelow(source).filter((file) => file.endsWith(".ts"));
const name = (file: string) => relative(root, file);
const roomOf = (file: string) => relative(source, file).split("/")[0] ?? "";

interface Import {
  readonly from: string;
  readonly specifier: string;
  /** Type-only imports vanish at run time: they count for direction, not for packages or cycles. */
  readonly typeOnly: boolean;
}

const STATEMENT =
  /^\s*(?:import|export)\s+(type\s+)?(?:[\w*{}\s,$]+?\s+from\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

function importsOf(file: string): Import[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(STATEMENT)].map((match) => ({
    from: file,
    specifier: match[2] ?? match[3] ?? "",
    typeOnly: match[1] !== undefined,
  }));
}

const imports = files.filter((file) => !isGenerated(file)).flatMap(importsOf);
const isRelative = (one: Import) => one.specifier.startsWith(".");
const targetOf = (one: Import) => resolve(dirname(one.from), one.specifier).replace(/\.js$/, ".ts");

const describeImport = (one: Import) => `${name(one.from)} imports ${one.specifier}`;

describe("the rooms of src/", () => {
  it("are the known ones, and every file lies in one", () => {
    for (const file of files) expect(ROOMS, name(file)).toContain(roomOf(file));
  });

  it("import downward only", () => {
    const upward = imports.filter((one) => {
      if (!isRelative(one)) return false;
      const from = ROOMS.indexOf(roomOf(one.from) as (typeof ROOMS)[number]);
      const to = ROOMS.indexOf(roomOf(targetOf(one)) as (typeof ROOMS)[number]);
      return to < from;
    });
    expect(upward.map(describeImport)).toEqual([]);
  });

  it("import no file that is not there", () => {
    const known = new Set(files);
    const missing = imports.filter((one) => isRelative(one) && !known.has(targetOf(one)));
    expect(missing.map(describeImport)).toEqual([]);
  });

  it("have no cycle of files", () => {
    const edges = new Map<string, string[]>();
    for (const one of imports) {
      if (!isRelative(one) || one.typeOnly) continue;
      edges.set(one.from, [...(edges.get(one.from) ?? []), targetOf(one)]);
    }
    const done = new Set<string>();
    const cycles: string[] = [];
    const visit = (file: string, trail: string[]) => {
      if (trail.includes(file)) {
        cycles.push([...trail.slice(trail.indexOf(file)), file].map(name).join(" -> "));
        return;
      }
      if (done.has(file)) return;
      for (const next of edges.get(file) ?? []) visit(next, [...trail, file]);
      done.add(file);
    };
    for (const file of edges.keys()) visit(file, []);
    expect(cycles).toEqual([]);
  });

  it("let cli reach the rest through client and the lowest room only", () => {
    const allowed = ["cli", "client", "system"];
    // The protobuf messages that client's methods take are part of its surface.
    const direct = imports.filter(
      (one) =>
        roomOf(one.from) === "cli" &&
        isRelative(one) &&
        !allowed.includes(roomOf(targetOf(one))) &&
        !(isGenerated(targetOf(one)) && one.typeOnly),
    );
    expect(direct.map(describeImport)).toEqual([]);
  });
});

describe("outside packages", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
    optionalDependencies?: Record<string, string>;
  };
  const packageOf = (specifier: string) =>
    specifier
      .split("/")
      .slice(0, specifier.startsWith("@") ? 2 : 1)
      .join("/");
  const outside = imports.filter((one) => !isRelative(one) && !one.specifier.startsWith("node:"));

  it("are declared dependencies with exact versions", () => {
    const declared = { ...manifest.dependencies, ...manifest.optionalDependencies };
    const undeclared = outside.filter((one) => !(packageOf(one.specifier) in declared));
    expect(undeclared.map(describeImport)).toEqual([]);
    for (const [dependency, version] of Object.entries(declared))
      expect(version, dependency).toMatch(/^\d+\.\d+\.\d+$/);
  });

  it("are used, each of them", () => {
    const used = new Set(outside.map((one) => packageOf(one.specifier)));
    // Headers for native/, and the tool that compiles it on the user's machine.
    for (const build of ["node-addon-api", "node-gyp"]) used.add(build);
    expect(Object.keys(manifest.dependencies).filter((one) => !used.has(one))).toEqual([]);
  });

  it("stay in the rooms that own them", () => {
    const strays = outside.filter((one) => {
      const rooms = PACKAGE_ROOMS[packageOf(one.specifier)];
      return rooms !== undefined && !rooms.includes(roomOf(one.from));
    });
    expect(strays.map(describeImport)).toEqual([]);
  });

  it("are not confused with Node's own modules, which carry the node: prefix", () => {
    const bare = outside.filter((one) => builtinModules.includes(one.specifier));
    expect(bare.map(describeImport)).toEqual([]);
  });
});

describe("single files", () => {
  const written = files.filter((file) => !isGenerated(file));

  it(`stay within ${LINE_LIMIT} lines`, () => {
    const native = filesBelow(join(root, "native", "src"));
    const long = [...written, ...native]
      .map((file) => ({
        file: name(file),
        lines: readFileSync(file, "utf8").split("\n").length - 1,
      }))
      .filter((one) => one.lines > LINE_LIMIT);
    expect(long).toEqual([]);
  });

  it("have names that say what is in them", () => {
    const vague = written.filter((file) => FORBIDDEN_NAMES.some((bad) => file.endsWith(`/${bad}`)));
    expect(vague.map(name)).toEqual([]);
    const badlySpelled = written.filter((file) => !/\/[a-z0-9]+(-[a-z0-9]+)*\.ts$/.test(file));
    expect(badlySpelled.map(name)).toEqual([]);
  });

  it("load the addon in src/system only", () => {
    const loaders = written.filter(
      (file) => roomOf(file) !== "system" && /\w\.node["']/.test(readFileSync(file, "utf8")),
    );
    expect(loaders.map(name)).toEqual([]);
  });

  it("use generated protobuf code in services and client only", () => {
    const users = imports.filter(
      (one) =>
        isRelative(one) &&
        isGenerated(targetOf(one)) &&
        !["services", "client"].includes(roomOf(one.from)) &&
        !(roomOf(one.from) === "cli" && one.typeOnly),
    );
    expect(users.map(describeImport)).toEqual([]);
  });

  it("are regular files, not links out of the tree", () => {
    for (const file of files) expect(statSync(file).isFile(), name(file)).toBe(true);
  });
});
