/** `varve rm` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { viewOperand } from "../view-operand.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<view...>", "Names, IDs or mount paths of views")
    .option("-f, --force", "Unmount first")
    .examples([
      ["varve rm box", "Remove an unmounted view and what was written in it"],
      ["varve rm -f box other", "Remove views that are still mounted"],
    ])
    .action(async (views: string[], flags: { force?: boolean }) => {
      const client = await cli.connect();
      await forEachOperand(cli, views, async (view) => {
        const request = { name: viewOperand(view), force: flags.force === true };
        await client.removeView(request, { signal: cli.signal });
        cli.print(view);
      });
    });
}
