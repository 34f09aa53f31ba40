/** Commander's Command with docker's habits: `--flag=false`, examples in the help, quiet errors. */

import { Command, Help, type Option } from "commander";

/** One example of the help: the command line and what it is for. */
export type Example = readonly [commandLine: string, meaning: string];

/** A command of ours. */
export class VarveCommand extends Command {
  override createCommand(name?: string): VarveCommand {
    return new VarveCommand(name);
  }

  /** Docker takes `--human=false` and `--quiet=true`; commander knows only `--no-human` and `--quiet`. */
  override parseOptions(argv: string[]): { operands: string[]; unknown: string[] } {
    return super.parseOptions(argv.flatMap((argument) => this.#plainFlag(argument)));
  }

  #plainFlag(argument: string): string[] {
    const match = /^(--[a-z][\w-]*)=(true|false|1|0)$/.exec(argument);
    if (match === null) return [argument];
    const [, flag = "", value] = match;
    const option = this.options.find((candidate) => candidate.long === flag);
    if (option === undefined || option.required || option.optional) return [argument];
    if (value === "true" || value === "1") return [flag];
    const opposite = `--no-${flag.slice(2)}`;
    const isNegatable = this.options.some((candidate) => candidate.long === opposite);
    return isNegatable ? [opposite] : [];
  }

  /** Adds the examples that every command's help ends with. */
  examples(examples: readonly Example[], notes = ""): this {
    const width = Math.max(...examples.map(([line]) => line.length));
    const widest = Math.max(...examples.map(([, meaning]) => width + 5 + meaning.length));
    const lines = examples.map(([line, meaning]) =>
      // A meaning beside a long command line would only wrap.
      widest <= 80 ? `  ${line.padEnd(width)}   ${meaning}` : `  # ${meaning}\n  ${line}`,
    );
    const text = `\nExamples:\n${lines.join("\n")}`;
    return this.addHelpText("after", notes === "" ? text : `\n${wrapText(notes)}\n${text}`);
  }
}

const NOTES_COLUMNS = 80;

/** Breaks lines at blanks; line ends in the text stay. */
function wrapText(text: string): string {
  const pattern = new RegExp(`(.{1,${NOTES_COLUMNS}})(?: +|$)\\n?`, "gm");
  return text.replace(pattern, "$1\n").trimEnd();
}

/** Names an option by its long flag, in docker's order "-f, --filter". */
export function optionTerm(option: Option): string {
  return option.short === undefined && option.long !== undefined
    ? `    ${option.flags}`
    : option.flags;
}

/** Commander's text with the options after the commands, where they do not stand in the way. */
function commandsFirst(command: Command, helper: Help): string {
  const sections = Help.prototype.formatHelp.call(helper, command, helper).trimEnd().split("\n\n");
  const isOptions = (section: string) => section.startsWith("Options:");
  const ordered = [
    ...sections.filter((section) => !isOptions(section)),
    ...sections.filter(isOptions),
  ];
  return `${ordered.join("\n\n")}\n`;
}

/** The help layout of all commands. */
export const HELP_CONFIGURATION: Partial<Help> = {
  optionTerm,
  subcommandTerm: (command) => command.name(),
  sortOptions: true,
  formatHelp: commandsFirst,
};

/** An option parser that gathers repeated values: `-c A -c B`. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}
