/** The root command: global options, the list of commands, and the loading of the one that runs. */

import { CommanderError } from "commander";
import { HELP_CONFIGURATION, VarveCommand } from "./command.js";
import { COMMANDS } from "./command-table.js";
import type { CliContext } from "./context.js";
import { packageVersion } from "./installation.js";
import { screenSize } from "./terminal-text.js";

const DESCRIPTION =
  "varve mounts OCI images as writable root file systems and commits what changed into new images.";

const AFTER_HELP = `
These options may stand before or after the command.

Environment:
  VARVE_ROOT, VARVE_STATE, VARVE_SOCKET, VARVE_CONFIG
                         as --root, --state, --socket, --config
  VARVE_NO_AUTOSTART=1   as --no-autostart
  NO_COLOR=1             no colours

Exit codes:
  0    success
  1    the command failed
  2    the command line is wrong
  4    faults are left (varve check)
  130  interrupted by Ctrl-C

Examples:
  varve load -i busybox.tar        Load an image from an archive
  varve mount busybox --name box   Mount it; prints where
  varve diff box                   See what changed in it
  varve commit box mybox:v2        Make an image of it
  varve help commit                More about a command`;

/**
 * The root command, ready to parse.
 *
 * @param onCommand told the full name ("daemon stop") of the command that is about to run
 */
export function buildProgram(cli: CliContext, onCommand: (name: string) => void): VarveCommand {
  const program = new VarveCommand("varve");
  program
    .description(DESCRIPTION)
    .usage("[options] COMMAND")
    .configureHelp({ ...HELP_CONFIGURATION, ...helpWidth(cli) })
    .configureOutput({
      writeOut: (text) => void cli.stdout.write(text),
      // Only the help that a bare "varve" prints comes here.
      writeErr: (text) => void cli.stdout.write(text),
      // main() reports errors.
      outputError: () => undefined,
    })
    .exitOverride()
    .showSuggestionAfterError()
    .helpOption("-h, --help", "Show help")
    .helpCommand(false);
  addGlobalOptions(program);
  for (const entry of COMMANDS) {
    const command = program.command(entry.name).summary(entry.summary);
    command
      .description(`${entry.summary}.`)
      .helpGroup(entry.group)
      .aliases(entry.aliases ?? []);
  }
  program.on("option:version", () => {
    cli.print(`varve ${packageVersion()}`);
    throw new CommanderError(0, "commander.version", "");
  });
  program.addHelpText("after", AFTER_HELP);
  program.hook("preSubcommand", async (_root, command) => {
    onCommand(command.name());
    await cli.defineCommand(command.name(), command as VarveCommand);
    command.hook("preSubcommand", (_parent, nested) =>
      onCommand(`${command.name()} ${nested.name()}`),
    );
  });
  return program;
}

function addGlobalOptions(program: VarveCommand): void {
  program
    .option("--root <dir>", "Where images and what was written in views are kept")
    .option("--state <dir>", "Where the socket and the default mount targets are")
    .option("--socket <path>", "The daemon's socket (default: varve.sock in the state directory)")
    .option("--config <file>", "Configuration file (TOML)")
    .option("--no-autostart", "Fail when no daemon runs instead of starting one")
    .option("--debug", "Show where an error came from")
    .option("-v, --version", "Show the version of this command");
}

function helpWidth(cli: CliContext): { helpWidth: number } {
  // 80 where there is no terminal, so that help in a pipe or a document is always the same.
  return { helpWidth: Math.min(screenSize(cli.stdout).columns, 100) };
}

/** Commands whose -v is docker's --verbose, while it asks for the version everywhere else. */
const VERBOSE_COMMANDS = ["df"];

/** The arguments with such a -v spelt out, since global options are found behind commands, too. */
export function spellOutVerbose(argv: readonly string[]): string[] {
  const command = argv.findIndex((word) => VERBOSE_COMMANDS.includes(word));
  if (command < 0) return [...argv];
  return argv.map((word, position) => (position > command && word === "-v" ? "--verbose" : word));
}
