/** `varve pin` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { familiarName } from "../image-names.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image...>", "Names of images, or IDs for all names of one")
    .examples(
      [
        ["varve pin debian:12", "Keep an image, whoever cleans up"],
        ["varve images -f pinned=true", "What is pinned"],
      ],
      "A pinned image survives prune and automatic collection, and rmi asks for --force. The pin is " +
        "the name's: it stays when the name moves to another image.",
    )
    .action((images: string[]) => setPins(cli, images, false));
}

/** Pins or unpins; prints the names. */
export async function setPins(cli: CliContext, images: string[], unpin: boolean): Promise<void> {
  const client = await cli.connect();
  await forEachOperand(cli, images, async (reference) => {
    const { references } = await client.pinImage({ reference, unpin }, { signal: cli.signal });
    for (const name of references) cli.print(familiarName(name));
  });
}
