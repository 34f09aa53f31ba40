/** `varve history` */

import type { HistoryEntry } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { shortDigest } from "../image-names.js";
import { formatList, type ListLayout } from "../list-output.js";
import { humanSize } from "../sizes.js";
import { printableText, truncateText } from "../terminal-text.js";
import { longTime, relativeTime, rfc3339 } from "../times.js";

interface HistoryFlags {
  readonly trunc: boolean;
  readonly quiet?: boolean;
  readonly human: boolean;
  readonly format?: string;
}

/** One step of an image's making. */
interface HistoryRow {
  readonly ID: string;
  readonly CreatedSince: string;
  readonly CreatedAt: string;
  readonly CreatedBy: string;
  readonly Size: string;
  readonly Comment: string;
  readonly Author: string;
  readonly Layer: string;
}

const LAYOUT: ListLayout<HistoryRow> = {
  headers: {
    ID: "IMAGE",
    CreatedSince: "CREATED",
    CreatedAt: "CREATED AT",
    CreatedBy: "CREATED BY",
    Size: "SIZE",
    Comment: "COMMENT",
    Author: "AUTHOR",
    Layer: "LAYER",
  },
  columns: ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};

// Docker's widths.
const CREATED_BY_COLUMNS = 45;
const COMMENT_COLUMNS = 45;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image>", "Name or ID of an image")
    .option("--no-trunc", "Cut nothing short")
    .option("-q, --quiet", "Show only IDs")
    .option("-H, --human", "Sizes and times for a person (the default)", true)
    .option("--no-human", "Sizes in bytes and times in RFC 3339")
    .option("--format <format>", "table, json, or a Go template")
    .examples(
      [
        ["varve history busybox", "How an image came to be, newest step first"],
        ["varve history --no-trunc mybox:v2", "With whole commands"],
        ["varve history --human=false mybox:v2", "Bytes and exact times"],
      ],
      `Fields of templates: ${Object.keys(LAYOUT.headers).join(", ")}`,
    )
    .action((image: string, flags: HistoryFlags) => history(cli, image, flags));
}

async function history(cli: CliContext, reference: string, flags: HistoryFlags): Promise<void> {
  const client = await cli.connect();
  const { entries, id } = await client.imageHistory({ reference }, { signal: cli.signal });
  const rows = entries.map((entry, position) => rowOf(entry, position === 0 ? id : "", flags));
  if (flags.quiet === true && flags.format === undefined) {
    for (const row of rows) cli.print(row.ID);
    return;
  }
  for (const line of await formatList(rows, LAYOUT, flags.format)) cli.print(line);
}

function rowOf(entry: HistoryEntry, id: string, flags: HistoryFlags): HistoryRow {
  const cut = (text: string, columns: number) =>
    flags.trunc ? truncateText(printableText(text), columns) : printableText(text);
  const digest = (text: string) => (flags.trunc ? shortDigest(text) : text);
  return {
    // Only the newest step has an image of its own; docker says "<missing>" for the others.
    ID: id === "" ? "<missing>" : digest(id),
    CreatedSince: flags.human
      ? relativeTime(entry.created, Date.now())
      : rfc3339(entry.created) || "N/A",
    CreatedAt: flags.human ? longTime(entry.created) : rfc3339(entry.created) || "N/A",
    CreatedBy: cut(entry.createdBy, CREATED_BY_COLUMNS),
    Size: flags.human ? humanSize(entry.size) : entry.size.toString(),
    Comment: cut(entry.comment, COMMENT_COLUMNS),
    Author: printableText(entry.author),
    Layer: entry.layerDigest === "" ? "<none>" : digest(entry.layerDigest),
  };
}
