/** `varve image`: docker's longer names of the image commands. */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";

// Docker's name after "image", the command that it is, and another name for it.
const NAMES: readonly (readonly [name: string, command: string, alias?: string])[] = [
  ["ls", "images", "list"],
  ["pull", "pull"],
  ["push", "push"],
  ["load", "load"],
  ["save", "save"],
  ["inspect", "inspect"],
  ["history", "history"],
  ["tag", "tag"],
  ["rm", "rmi", "remove"],
  ["unpack", "unpack"],
  ["prune", "prune"],
];

/** Adds the commands; each is defined when it runs. */
export function define(command: VarveCommand, cli: CliContext): void {
  command.usage("COMMAND").helpCommand(false);
  for (const [name, target, alias] of NAMES) {
    const summary = `Same as "varve ${target}"`;
    const nested = command.command(name).summary(summary).description(`${summary}.`);
    if (alias !== undefined) nested.alias(alias);
  }
  command.hook("preSubcommand", (_parent, nested) => defineNested(nested as VarveCommand, cli));
  command.examples([
    ["varve image ls", "List images"],
    ["varve image rm mybox:v1", "Remove an image"],
  ]);
}

/** Loads the definition of one of the commands into it. */
export async function defineNested(nested: VarveCommand, cli: CliContext): Promise<void> {
  const target = NAMES.find(([name]) => name === nested.name())?.[1] ?? "";
  await cli.defineCommand(target, nested);
}
