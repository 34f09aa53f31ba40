/** `varve views` */

import type { View } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName, shortDigest } from "../image-names.js";
import { formatList, type ListLayout } from "../list-output.js";
import { humanSize } from "../sizes.js";
import { printableText } from "../terminal-text.js";
import { longTime, relativeTime } from "../times.js";

interface ViewsFlags {
  readonly quiet?: boolean;
  readonly trunc: boolean;
  readonly size?: boolean;
  readonly format?: string;
}

/** A row of the list. */
interface ViewRow {
  readonly ID: string;
  readonly Name: string;
  readonly Image: string;
  readonly ImageID: string;
  readonly Mode: string;
  readonly IO: string;
  readonly Restart: string;
  readonly Status: string;
  readonly CreatedSince: string;
  readonly CreatedAt: string;
  readonly Size: string;
  readonly Files: string;
  readonly Target: string;
}

const HEADERS = {
  ID: "VIEW ID",
  Name: "NAME",
  Image: "IMAGE",
  ImageID: "IMAGE ID",
  Mode: "MODE",
  IO: "IO",
  Restart: "RESTART",
  Status: "STATUS",
  CreatedSince: "CREATED",
  CreatedAt: "CREATED AT",
  Size: "SIZE",
  Files: "FILES",
  Target: "TARGET",
} as const;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-q, --quiet", "Show only names")
    .option("--no-trunc", "Show whole IDs")
    .option("-s, --size", "Show how much was written in each view")
    .option("--format <format>", "table, json, or a Go template")
    .examples(
      [
        ["varve views", "All views, mounted or not"],
        ["varve views --size", "And what was written in them"],
        ["varve views --format '{{.Name}} {{.Target}}'", "Two columns of your choice"],
        ["varve rm -f $(varve views -q)", "Remove all views"],
      ],
      `Fields of templates: ${Object.keys(HEADERS).join(", ")}`,
    )
    .action((flags: ViewsFlags) => listViews(cli, flags));
}

async function listViews(cli: CliContext, flags: ViewsFlags): Promise<void> {
  // Sizes cost a walk through each upper directory: only for who sees them.
  const isSizeNamed = /\.(Size|Files)\b|^json$/.test(flags.format ?? "");
  const sizes = flags.size === true || isSizeNamed;
  const client = await cli.connect();
  const { views } = await client.listViews({ sizes }, { signal: cli.signal });
  const rows = views.toSorted(newestFirst).map((view) => rowOf(view, sizes, flags.trunc));
  if (flags.quiet === true && flags.format === undefined) {
    for (const row of rows) cli.print(row.Name);
    return;
  }
  for (const line of await formatList(rows, layoutOf(flags), flags.format)) cli.print(line);
}

function newestFirst(a: View, b: View): number {
  const seconds = Number((b.created?.seconds ?? 0n) - (a.created?.seconds ?? 0n));
  return seconds !== 0 ? seconds : (b.created?.nanos ?? 0) - (a.created?.nanos ?? 0);
}

function layoutOf(flags: ViewsFlags): ListLayout<ViewRow> {
  const size = flags.size === true ? (["Size"] as const) : [];
  return {
    headers: HEADERS,
    columns: [
      "Name",
      "Image",
      "Mode",
      "IO",
      "Restart",
      "Status",
      "CreatedSince",
      ...size,
      "Target",
    ],
  };
}

function rowOf(view: View, hasSizes: boolean, isTruncated: boolean): ViewRow {
  return {
    ID: isTruncated ? shortDigest(view.id) : view.id,
    Name: view.name,
    Image: view.image === "" ? shortDigest(view.imageId) : familiarName(view.image),
    ImageID: isTruncated ? shortDigest(view.imageId) : view.imageId,
    Mode: view.readOnly ? "ro" : "rw",
    IO: view.ioInUse || view.io || "default",
    Restart: view.restart,
    Status: view.mounted ? "mounted" : "unmounted",
    CreatedSince: relativeTime(view.created, Date.now()),
    CreatedAt: longTime(view.created),
    Size: hasSizes ? humanSize(view.upperBytes) : "N/A",
    Files: hasSizes ? view.upperInodes.toString() : "N/A",
    Target: printableText(view.target),
  };
}
