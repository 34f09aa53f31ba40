/** `varve help` */

import { nearestWord } from "../../system/nearest-word.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { UsageError } from "../usage-error.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("[command...]", "The command, for instance: daemon stop")
    .examples([
      ["varve help", "All commands"],
      ["varve help commit", "One command"],
      ["varve commit --help", "The same"],
    ])
    .action((words: string[]) => showHelp(command, words, cli));
}

async function showHelp(help: VarveCommand, words: string[], cli: CliContext): Promise<void> {
  let command = help.parent as VarveCommand;
  for (const [depth, word] of words.entries()) {
    const next = command.commands.find(
      (candidate) => candidate.name() === word || candidate.aliases().includes(word),
    );
    if (next === undefined) throw unknownCommand(words, word, command);
    command = next as VarveCommand;
    if (depth === 0 && command !== help) await cli.defineCommand(command.name(), command);
    if (depth === 1 && words[0] === "image") {
      const { defineNested } = await import("./image.js");
      await defineNested(command, cli);
    }
  }
  command.outputHelp();
}

function unknownCommand(words: readonly string[], word: string, within: VarveCommand): UsageError {
  const nearest = nearestWord(
    word,
    within.commands.map((candidate) => candidate.name()),
  );
  const hint = nearest === undefined ? "" : ` (did you mean ${nearest}?)`;
  return new UsageError(`help: no command "${words.join(" ")}"${hint}`);
}
