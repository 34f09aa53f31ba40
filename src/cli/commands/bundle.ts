/** `varve bundle` */

import path from "node:path";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { viewOperand } from "../view-operand.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<view>", "Name, ID or mount path of a mounted view")
    .argument("<dir>", "Directory of the bundle; made when it is missing")
    .examples(
      [
        ["varve bundle box ./box", "Write ./box/config.json for the view"],
        ["runc run --bundle ./box box1", "Run its command in a container"],
      ],
      "Prints the path of config.json, which has the image's command, environment, user and " +
        "working directory.",
    )
    .action(async (view: string, directory: string) => {
      const client = await cli.connect();
      const request = { name: viewOperand(view), directory: path.resolve(directory) };
      const { configPath } = await client.createBundle(request, { signal: cli.signal });
      cli.print(configPath);
    });
}
