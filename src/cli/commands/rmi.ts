/** `varve rmi` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { familiarName } from "../image-names.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image...>", "Names or IDs of images")
    .option(
      "-f, --force",
      "Remove all names of an ID, and images that views use or that are pinned",
    )
    .examples([
      ["varve rmi mybox:v1", "Remove a name, and the image when it was the last one"],
      ["varve rmi -f 4f8d5e1a", "Remove an image with all its names"],
      ["varve rmi $(varve images -q -f dangling=true)", "Remove images without a name"],
    ])
    .action((images: string[], flags: { force?: boolean }) =>
      removeImages(cli, images, flags.force === true),
    );
}

async function removeImages(cli: CliContext, images: string[], force: boolean): Promise<void> {
  const client = await cli.connect();
  await forEachOperand(cli, images, async (reference) => {
    const removed = await client.removeImage({ reference, force }, { signal: cli.signal });
    for (const name of removed.untagged) cli.print(`Untagged: ${familiarName(name)}`);
    for (const id of removed.deleted) cli.print(`Deleted: ${id}`);
  });
}
