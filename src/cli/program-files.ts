/**
 * The parts of varve that the command line runs in its own process, and that its bundle must not hold:
 * they are found by their paths.
 */

import { existsSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { UnavailableError } from "../system/errors.js";

/**
 * Loads `dist/ROOM/FILE.js`, wherever this code was compiled to.
 *
 * @throws UnavailableError varve is not built
 */
export async function loadPart<T>(room: string, file: string): Promise<T> {
  // From src/cli, from dist/cli, and from the bundle in dist.
  const candidates = [`../../dist/${room}/${file}.js`, `./${room}/${file}.js`];
  const paths = candidates.map((url) => fileURLToPath(new URL(url, import.meta.url)));
  const found = paths.find((candidate) => existsSync(candidate));
  if (found === undefined) {
    throw new UnavailableError(`dist/${room}/${file}.js is missing; run "npm run build"`);
  }
  return (await import(pathToFileURL(found).href)) as T;
}
