/** `varve top` */

import { setTimeout as sleep } from "node:timers/promises";
import type { View } from "../../client/index.js";
import { type MetricSample, parseMetrics } from "../../client/metric-samples.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName } from "../image-names.js";
import { humanSize } from "../sizes.js";
import { alignColumns } from "../tables.js";
import { printableText } from "../terminal-text.js";
import { UsageError } from "../usage-error.js";

interface TopFlags {
  readonly interval: string;
  readonly once?: boolean;
}

const HOME_AND_CLEAR = "\x1b[H\x1b[2J";
const HEADERS = ["VIEW", "IMAGE", "I/O", "OPS/S", "BUSIEST", "COPY-UPS", "READ/S", "WRITTEN/S"];
/** Operations are shown by their share; more names than these tell nothing. */
const SHOWN_OPERATIONS = 2;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-i, --interval <seconds>", "Between two looks", "2")
    .option("--once", "One look, then end")
    .examples(
      [
        ["varve top", "Mounted views, the busiest first, until Ctrl-C"],
        ["varve top --once -i 10", "What they did within ten seconds"],
      ],
      "What the kernel answers from its caches, or by passthrough, never reaches the daemon and does " +
        "not count. COPY-UPS are since the mount.",
    )
    .action((flags: TopFlags) => top(cli, flags));
}

async function top(cli: CliContext, { interval, once }: TopFlags): Promise<void> {
  const seconds = Number(interval);
  if (!(seconds >= 0.1 && seconds <= 3600)) {
    throw new UsageError(`top: an interval of ${interval}: want seconds, 0.1 to 3600`);
  }
  let before = await look(cli);
  for (;;) {
    await sleep(seconds * 1000, undefined, { signal: cli.signal });
    const now = await look(cli);
    const lines = table(before, now);
    if (once !== true && cli.stdout.isTTY === true) cli.stdout.write(HOME_AND_CLEAR);
    for (const line of lines) cli.print(line);
    if (once === true) return;
    before = now;
  }
}

interface Look {
  readonly atMs: number;
  readonly views: readonly View[];
  /** By view, then by metric and operation. */
  readonly counts: ReadonlyMap<string, ReadonlyMap<string, number>>;
}

async function look(cli: CliContext): Promise<Look> {
  const client = await cli.connect();
  const { text } = await client.metrics({ signal: cli.signal });
  const { views } = await client.listViews({}, { signal: cli.signal });
  return { atMs: performance.now(), views, counts: countsByView(parseMetrics(text)) };
}

function countsByView(samples: readonly MetricSample[]): Map<string, Map<string, number>> {
  const counts = new Map<string, Map<string, number>>();
  for (const { name, labels, value } of samples) {
    const { view, operation } = labels;
    if (view === undefined || !name.endsWith("_total")) continue;
    const own = counts.get(view) ?? new Map<string, number>();
    counts.set(view, own.set(operation === undefined ? name : `${name} ${operation}`, value));
  }
  return counts;
}

function table(before: Look, now: Look): string[] {
  const seconds = (now.atMs - before.atMs) / 1000;
  const known = new Map(now.views.map((view) => [view.name, view]));
  const rows = [...now.counts].map(([name, counts]) => {
    const old = before.counts.get(name);
    const perSecond = (key: string) => ((counts.get(key) ?? 0) - (old?.get(key) ?? 0)) / seconds;
    const operations = [...counts.keys()]
      .filter((key) => key.startsWith("varve_view_requests_total "))
      .map((key) => ({ name: key.split(" ")[1] ?? "", rate: perSecond(key) }))
      .sort((a, b) => b.rate - a.rate);
    const total = operations.reduce((sum, { rate }) => sum + rate, 0);
    const busiest = operations.filter(({ rate }) => rate > 0).slice(0, SHOWN_OPERATIONS);
    const view = known.get(name);
    const cells = [
      printableText(name),
      view === undefined ? "" : familiarName(view.image),
      view?.ioInUse ?? "",
      total.toFixed(0),
      busiest.map(({ name: operation }) => operation).join(" "),
      String(counts.get("varve_view_copy_ups_total") ?? 0),
      bytesText(perSecond("varve_view_read_bytes_total")),
      bytesText(perSecond("varve_view_written_bytes_total")),
    ];
    return { total, cells };
  });
  rows.sort((a, b) => b.total - a.total);
  return alignColumns([HEADERS, ...rows.map((row) => row.cells)]);
}

function bytesText(perSecond: number): string {
  return humanSize(BigInt(Math.max(0, Math.round(perSecond))));
}
