/** `varve check` */

import type { CheckSummary, StoreFault } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { ReportedFailure } from "../each.js";
import { toJsonLine } from "../json.js";
import { createProgress, followProgress } from "../progress.js";
import { humanSize } from "../sizes.js";
import { UsageError } from "../usage-error.js";

interface CheckFlags {
  readonly repair?: boolean;
  readonly verifyContent?: boolean;
  readonly quiet?: boolean;
  readonly format?: string;
}

/** As fsck(8) has it: errors are left. */
const EXIT_FAULTS_LEFT = 4;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option(
      "--repair",
      "Mend what can be: unpack damaged layers again, remove what belongs to nothing",
    )
    .option(
      "--verify-content",
      "Read every blob, and compare every layer with what its blob unpacks to",
    )
    .option("--format <format>", "text or json (a line for each fault, then the summary)", "text")
    .option("-q, --quiet", "Show no progress")
    .examples(
      [
        ["varve check", "Seconds: rows, files, indexes, small documents"],
        ["varve check --verify-content", "Minutes: every byte"],
        ["varve check --repair", "… and mend"],
      ],
      "Exit code 0: nothing is wrong, or all of it is repaired; 4: faults are left; 1: the check itself " +
        "failed. What was damaged of images is there again after varve pull or varve load; what was written " +
        "in views has no second copy.",
    )
    .action((flags: CheckFlags) => check(cli, flags));
}

async function check(cli: CliContext, flags: CheckFlags): Promise<void> {
  const { repair = false, verifyContent = false, format } = flags;
  if (format !== "text" && format !== "json") {
    throw new UsageError(`check: unknown format ${format}; choose text or json`);
  }
  const client = await cli.connect();
  // A line for each of a thousand blobs is of no use in a log.
  const isQuiet = flags.quiet === true || cli.stderr.isTTY !== true;
  const display = createProgress(cli.stderr, isQuiet, cli.env);
  let left = 0;
  let repaired = 0;
  const stream = client.checkStore({ repair, verifyContent }, { signal: cli.signal });
  await followProgress(stream, display, ({ fault, summary }) => {
    display.clear();
    if (fault !== undefined) {
      if (fault.repaired) repaired++;
      else left++;
      cli.print(format === "json" ? toJsonLine(faultData(fault)) : faultLine(fault));
    }
    if (summary === undefined) return;
    if (format === "json") cli.print(toJsonLine(summaryData(summary)));
    else for (const line of summaryLines(summary, left, repaired)) cli.print(line);
  });
  if (left > 0) throw new ReportedFailure(`${left} faults are left`, EXIT_FAULTS_LEFT);
}

function faultLine({ kind, object, problem, repaired, remedy }: StoreFault): string {
  return `${kind} ${object}: ${problem}; ${repaired ? "repaired: " : ""}${remedy}`;
}

function faultData(fault: StoreFault): object {
  const { kind, object, problem, repaired, remedy } = fault;
  return { Kind: kind, Object: object, Problem: problem, Repaired: repaired, Remedy: remedy };
}

function summaryLines(summary: CheckSummary, left: number, repaired: number): string[] {
  const { blobs, snapshots, images, views, verifiedBytes, unverified } = summary;
  const lines = unverified.map((chainId) => `not compared, its blob is not here: ${chainId}`);
  const looked = `${blobs} blobs, ${snapshots} unpacked layers, ${images} names, ${views} views`;
  const verdict = left + repaired === 0 ? "no fault" : `${left} faults left, ${repaired} repaired`;
  return [...lines, `${looked} (${humanSize(verifiedBytes)} read): ${verdict}`];
}

function summaryData(summary: CheckSummary): object {
  return {
    Blobs: summary.blobs,
    Snapshots: summary.snapshots,
    Images: summary.images,
    Views: summary.views,
    VerifiedBytes: summary.verifiedBytes,
    Unverified: summary.unverified,
  };
}
