/** `varve diff` */

import { type Change, Change_Kind } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import { type CliContext, wantsColor } from "../context.js";
import { toJsonLine } from "../json.js";
import { printablePath, utf8Text } from "../terminal-text.js";
import { viewOperand } from "../view-operand.js";

const LETTERS: Readonly<Record<number, string>> = {
  [Change_Kind.ADDED]: "A",
  [Change_Kind.CHANGED]: "C",
  [Change_Kind.DELETED]: "D",
};
const COLORS: Readonly<Record<string, string>> = { A: "\x1b[32m", C: "\x1b[33m", D: "\x1b[31m" };

/** One change, as templates and JSON have it. */
interface ChangeRow {
  readonly Kind: string;
  readonly Path: string;
  /** The exact bytes of a path that is not UTF-8. */
  readonly PathBase64?: string;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<view>", "Name, ID or mount path of a view")
    .option("--format <format>", "json (one object per line), or a Go template")
    .examples(
      [
        ["varve diff box", "What was added (A), changed (C) and deleted (D)"],
        ["varve diff box --format json", "One JSON object per line"],
        ["varve diff box --format '{{.Path}}'", "Only paths"],
      ],
      'A path that is not plain UTF-8 text is shown in quotes with escapes: "/tmp/a\\n\\xff".\n' +
        "Fields of templates: Kind, Path",
    )
    .action((view: string, flags: { format?: string }) => diff(cli, view, flags.format));
}

async function diff(cli: CliContext, view: string, format: string | undefined): Promise<void> {
  const render = await rendererOf(cli, format);
  const client = await cli.connect();
  const stream = client.diffView({ name: viewOperand(view) }, { signal: cli.signal });
  for await (const { changes } of stream) {
    // One write per batch: a diff may have a million lines.
    if (changes.length > 0) cli.print(changes.map(render).join("\n"));
  }
}

/** For a person, or a script that reads lines: the path is on one line whatever it holds. */
function textRow(change: Change): ChangeRow {
  return { Kind: LETTERS[change.kind] ?? "?", Path: printablePath(change.path) };
}

/** For JSON, which has escapes of its own: only a path that is not UTF-8 needs ours. */
function jsonRow(change: Change): ChangeRow {
  const path = utf8Text(change.path);
  if (path !== undefined) return { Kind: LETTERS[change.kind] ?? "?", Path: path };
  return { ...textRow(change), PathBase64: Buffer.from(change.path).toString("base64") };
}

async function rendererOf(
  cli: CliContext,
  format: string | undefined,
): Promise<(change: Change) => string> {
  if (format === "json") return (change) => toJsonLine(jsonRow(change));
  if (format !== undefined) {
    const { compileTemplate } = await import("../template.js");
    const template = compileTemplate(format);
    // A misspelt field must not wait for the first change.
    template({ Kind: "A", Path: "/" });
    return (change) => template(textRow(change));
  }
  const isColored = wantsColor(cli.stdout, cli.env);
  return (change) => {
    const { Kind, Path } = textRow(change);
    return isColored ? `${COLORS[Kind] ?? ""}${Kind}\x1b[0m ${Path}` : `${Kind} ${Path}`;
  };
}
