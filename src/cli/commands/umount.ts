/** `varve umount` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { UsageError } from "../usage-error.js";
import { viewOperand } from "../view-operand.js";

interface UmountFlags {
  readonly all?: boolean;
  readonly force?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("[view...]", "Names, IDs or mount paths of views")
    .option("-a, --all", "Unmount all views")
    .option("-f, --force", "Detach although something uses the view, or its disk does not answer")
    .examples([
      ["varve umount box", "Unmount a view by name"],
      ["varve umount /mnt/box", "By its mount path"],
      ["varve umount --all", "Unmount everything"],
      ["varve mount --name box", "Mount it again, with everything still there"],
    ])
    .action((views: string[], flags: UmountFlags) => umount(cli, views, flags));
}

async function umount(cli: CliContext, given: string[], flags: UmountFlags): Promise<void> {
  if (given.length === 0 && flags.all !== true) {
    throw new UsageError("umount: which view? Name one, or use --all");
  }
  if (given.length > 0 && flags.all === true) {
    throw new UsageError("umount: --all and named views exclude each other");
  }
  const client = await cli.connect();
  const options = { signal: cli.signal };
  const names =
    flags.all === true
      ? (await client.listViews({}, options)).views.filter((v) => v.mounted).map((v) => v.name)
      : given.map(viewOperand);
  await forEachOperand(cli, names, async (name) => {
    await client.unmountView({ name, force: flags.force === true }, options);
    cli.print(name);
  });
}
