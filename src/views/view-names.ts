/** Names of views: what is allowed, and names for those who give none. */

import { randomInt } from "node:crypto";
import { InvalidArgumentError } from "../system/errors.js";

const PATTERN = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
// They become host names of bundles and columns of tables; docker's longest are about this.
const MAX_LENGTH = 128;

/**
 * Checks a name: a letter or digit, then letters, digits, "_", "." and "-".
 *
 * @throws InvalidArgumentError
 */
export function checkViewName(name: string): void {
  if (PATTERN.test(name) && name.length <= MAX_LENGTH) return;
  throw new InvalidArgumentError(
    `view name ${JSON.stringify(name)}: want a letter or digit, then letters, digits, "_", "." or "-", at most ${MAX_LENGTH} in all`,
  );
}

const ADJECTIVES =
  "agile amber ample bold brave breezy brisk calm candid clever cosy crisp curious dapper deft eager early earnest easy fair fancy fleet fluent fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen kind lively lucid lucky mellow merry mild modest neat nimble noble patient placid plucky polite prime proud quick quiet ready robust rosy serene sharp shiny silent sleek smart snug sober solid spry steady stout sturdy subtle sunny swift tidy tranquil trusty upbeat vivid warm wise witty zesty".split(
    " ",
  );
const NOUNS =
  "acorn alder anchor badger basalt beacon birch bison brook canyon cedar clay cliff clover comet coral cove crane creek delta dune ember falcon fern fjord flint fox gale garnet glacier granite grove harbor hazel heron hill ibex inlet iris island jasper juniper lagoon lake larch lark ledge lichen lynx maple marsh meadow moraine moss oak onyx osprey otter owl pebble pine plain plover pond quartz rapids raven reed reef ridge river robin sable sandbar schist shale shoal slate spruce stone summit tern thicket tide tundra valley varve willow wren".split(
    " ",
  );

/** A random "adjective-noun" that `isTaken` does not know; numbered when many are. */
export function generateViewName(isTaken: (name: string) => boolean): string {
  const pick = (words: readonly string[]) => words[randomInt(words.length)]!;
  for (let attempt = 0; ; attempt++) {
    const base = `${pick(ADJECTIVES)}-${pick(NOUNS)}`;
    const name = attempt < 10 ? base : `${base}-${randomInt(1_000_000)}`;
    if (!isTaken(name)) return name;
  }
}
