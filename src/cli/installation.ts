/** Where this program is installed, and which version it is. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

// From src/cli and dist/cli, and from the bundle in dist.
const CANDIDATES = ["../../package.json", "../package.json"];

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
