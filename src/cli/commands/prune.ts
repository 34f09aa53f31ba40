/** `varve prune` */

import type { PruneResponse } from "../../client/index.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName } from "../image-names.js";
import { askPerson } from "../prompt.js";
import { humanSize } from "../sizes.js";

interface PruneFlags {
  readonly all?: boolean;
  readonly force?: boolean;
  readonly filter?: string[];
  readonly dryRun?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-a, --all", "Also images that have a name, and the build cache")
    .option("-f, --force", "Do not ask")
    .option("--filter <prune-filter>", "until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]", collect)
    .option("-n, --dry-run", "Change nothing; only tell what would go")
    .examples(
      [
        ["varve prune", "Remove images without a name"],
        ["varve prune --all --dry-run", "What is not used by anything?"],
        ["varve prune -af --filter until=168h", "Unused images that came a week ago or earlier"],
        ["varve prune -af --filter 'label!=keep'", "… all but those with a label"],
      ],
      "Images of views, pinned and leased ones stay. TIME is a duration back from now, a date, or " +
        "seconds since 1970, and meant for when the image came here.",
    )
    .action((flags: PruneFlags) => prune(cli, flags));
}

async function prune(cli: CliContext, flags: PruneFlags): Promise<void> {
  const { all = false, dryRun = false, filter: filters = [] } = flags;
  if (flags.force !== true && !dryRun && !(await isConfirmed(cli, all))) {
    return cli.print("Nothing was removed.");
  }
  const client = await cli.connect();
  const report = await client.prune({ all, filters, dryRun }, { signal: cli.signal });
  for (const line of reportLines(report, dryRun)) cli.print(line);
}

async function isConfirmed(cli: CliContext, all: boolean): Promise<boolean> {
  const what = all
    ? "all images that no view, lease or pin keeps, and the build cache"
    : "all images without a name";
  const question = `This removes ${what}. Continue? [y/N] `;
  const answer = await askPerson(cli, question, false, "use --force (or --dry-run)");
  return /^y(es)?$/i.test(answer.trim());
}

function reportLines(report: PruneResponse, dryRun: boolean): string[] {
  const { images, blobs, snapshots, buildSteps, reclaimedBytes } = report;
  const lines: string[] = [];
  for (const { id, references } of images) {
    for (const name of references) lines.push(`Untagged: ${familiarName(name)}`);
    lines.push(`Deleted: ${id}`);
  }
  // An image's ID is the digest of its config, which is one of the blobs.
  const ids = new Set(images.map((image) => image.id));
  for (const digest of [...snapshots, ...blobs]) {
    if (!ids.has(digest)) lines.push(`Deleted: ${digest}`);
  }
  if (buildSteps > 0n) lines.push(`Build steps: ${buildSteps}`);
  if (lines.length > 0) lines.push("");
  const verb = dryRun ? "Space to be reclaimed" : "Total reclaimed space";
  return [...lines, `${verb}: ${humanSize(reclaimedBytes)}`];
}
