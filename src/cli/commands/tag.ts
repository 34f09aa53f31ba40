/** `varve tag` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image>", "Name or ID of an image")
    .argument("<new-name>", "The name to add: NAME[:TAG]")
    .examples([
      ["varve tag busybox mybox:v1", "Another name for the same image"],
      ["varve tag 4f8d5e1a registry.example/box:v1", "A name for an image by the start of its ID"],
    ])
    .action(async (source: string, target: string) => {
      const client = await cli.connect();
      await client.tagImage({ source, target }, { signal: cli.signal });
    });
}
