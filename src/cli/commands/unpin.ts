/** `varve unpin` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { setPins } from "./pin.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image...>", "Names of images, or IDs for all names of one")
    .examples([
      ["varve unpin debian:12", "Let the image be cleaned up again"],
      ["varve unpin 4f8d5e1a", "All names of an image"],
    ])
    .action((images: string[]) => setPins(cli, images, true));
}
