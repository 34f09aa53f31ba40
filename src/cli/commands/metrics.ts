/** `varve metrics` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .examples(
      [
        ["varve metrics", "Everything that is counted"],
        ["varve metrics | grep varve_view_copy_ups", "Copy-ups of each view"],
        ["varve daemon --metrics-address 127.0.0.1:7879", "Let Prometheus fetch it"],
      ],
      "Prometheus' text format. Counts begin with the daemon, those of a view with its mount.",
    )
    .action(async () => {
      const client = await cli.connect();
      const { text } = await client.metrics({ signal: cli.signal });
      cli.stdout.write(text);
    });
}
