/** Where this program is installed, and which version it is. */

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

// From src/cli and dist/cli, and from the bundle in dist.
const CANDIDATES = ["../../package.json", "../package.json"];

/** The path of a file of this package ("bin/varve"), wherever this code was compiled to. */
export function installedFile(name: string): string {
  const paths = CANDIDATES.map((candidate) =>
    fileURLToPath(new URL(`${candidate.replace("package.json", "")}${name}`, import.meta.url)),
  );
  return paths.find((path) => existsSync(path)) ?? paths[0]!;
}

/** The version in our package.json, "unknown" when it cannot be read. */
export function packageVersion(): string {
  for (const candidate of CANDIDATES) {
    try {
      const text = readFileSync(fileURLToPath(new URL(candidate, import.meta.url)), "utf8");
      const { name, version } = JSON.parse(text) as { name?: unknown; version?: unknown };
      if (name === "varve" && typeof version === "string") return version;
    } catch {
      // Not there: the next candidate.
    }
  }
  return "unknown";
}
