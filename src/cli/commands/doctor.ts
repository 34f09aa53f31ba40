/** `varve doctor` */

import type { VarveCommand } from "../command.js";
import { type CliContext, type GlobalOptions, wantsColor } from "../context.js";
import { ReportedFailure } from "../each.js";
import { formatObject } from "../list-output.js";
import { loadPart } from "../program-files.js";
import { screenSize, wrapLines } from "../terminal-text.js";

/** As src/doctor/finding.ts has it. */
interface Finding {
  readonly area: string;
  readonly name: string;
  readonly status: "ok" | "note" | "limited" | "failed";
  readonly found: string;
  readonly cost: string;
  readonly remedy: string;
}

/** What dist/doctor/main.js exports. */
interface DoctorModule {
  examine(flags: Partial<GlobalOptions>, environment: CliContext["env"]): Promise<Finding[]>;
}

const COLORS = { ok: 32, note: 2, limited: 33, failed: 31 } as const;
const NAME_COLUMNS = 23;
const STATUS_COLUMNS = 9;
const INDENT = 2 + STATUS_COLUMNS + NAME_COLUMNS;
const MAX_COLUMNS = 110;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-f, --format <format>", "json, or a Go template")
    .examples(
      [
        ["varve doctor", "What this machine lacks, what that costs, how to get it"],
        ["varve doctor --format json", "The same for programs"],
        ["varve --root /data/varve doctor", "With the store elsewhere"],
      ],
      "Exit code 0: varve works here, perhaps with less (limited). 1: something has to be mended " +
        "first (failed). Starts no daemon; makes a mount of its own for a moment, to ask the kernel " +
        "what it offers.",
    )
    .action((flags: { format?: string }) => runDoctor(cli, flags.format));
}

async function runDoctor(cli: CliContext, format: string | undefined): Promise<void> {
  const { root, state, socket, config } = cli.globals();
  const doctor = await loadPart<DoctorModule>("doctor", "main");
  const findings = await doctor.examine(
    {
      ...(root === undefined ? {} : { root }),
      ...(state === undefined ? {} : { state }),
      ...(socket === undefined ? {} : { socket }),
      ...(config === undefined ? {} : { config }),
    },
    cli.env,
  );
  const failures = findings.filter(({ status }) => status === "failed").length;
  if (format !== undefined) {
    cli.print(await formatObject({ Healthy: failures === 0, Checks: findings.map(row) }, format));
  } else {
    for (const line of reportLines(findings, cli)) cli.print(line);
  }
  if (failures > 0) throw new ReportedFailure(`${failures} checks failed`);
}

function row({ area, name, status, found, cost, remedy }: Finding): object {
  return { Area: area, Name: name, Status: status, Found: found, Cost: cost, Remedy: remedy };
}

function reportLines(findings: readonly Finding[], cli: CliContext): string[] {
  const columns = Math.min(screenSize(cli.stdout).columns, MAX_COLUMNS);
  const isColored = wantsColor(cli.stdout, cli.env);
  const areas = [...new Set(findings.map(({ area }) => area))];
  const lines = areas.flatMap((area) => [
    area,
    ...findings
      .filter((one) => one.area === area)
      .flatMap((one) => findingLines(one, columns, isColored)),
    "",
  ]);
  return [...lines, summary(findings)];
}

function findingLines(one: Finding, columns: number, isColored: boolean): string[] {
  const text = [one.found];
  if (one.cost !== "") text.push(`costs: ${one.cost}`);
  if (one.remedy !== "") text.push(`remedy: ${one.remedy}`);
  const [first = "", ...more] = text.flatMap((part) => wrapLines(part, columns - INDENT));
  const status = one.status.padEnd(STATUS_COLUMNS);
  const shown = isColored ? `\x1b[${COLORS[one.status]}m${status}\x1b[0m` : status;
  return [
    `  ${shown}${one.name.padEnd(NAME_COLUMNS)}${first}`,
    ...more.map((line) => " ".repeat(INDENT) + line),
  ];
}

function summary(findings: readonly Finding[]): string {
  const count = (status: Finding["status"]) =>
    findings.filter((one) => one.status === status).length;
  const failed = count("failed");
  const limited = count("limited");
  const things = (number: number) => `${number} ${number === 1 ? "thing" : "things"}`;
  if (failed > 0) return `varve does not work here: ${things(failed)} to mend first.`;
  if (limited > 0) return `varve works here; ${things(limited)} could be better.`;
  return "varve works here, with all it can use.";
}
