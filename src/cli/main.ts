/**
 * The command line. `runProcess` is what the launcher calls; `main` is the same without the process,
 * and the only place where an error becomes text and an exit code.
 */

import { CommanderError } from "commander";
import type { VarveClient } from "../client/client.js";
import { BaseError } from "../system/errors.js";
import { defineCommand } from "./command-table.js";
import { type CliContext, type CliIo, type GlobalOptions, wantsColor } from "./context.js";
import { ReportedFailure } from "./each.js";
import { buildProgram, spellOutVerbose } from "./program.js";
import { joinRunWords } from "./run-words.js";
import { printableText } from "./terminal-text.js";
import { UsageError } from "./usage-error.js";

/** Exit codes; also in `varve help`. */
export const EXIT = { ok: 0, failure: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

/**
 * Runs one command.
 *
 * @param argv arguments without the interpreter and the script
 * @returns the exit code; never rejects
 */
export async function main(argv: readonly string[], io: CliIo): Promise<number> {
  if (argv[0] === "__complete") {
    const { completeWords } = await import("./complete.js");
    return completeWords(argv.slice(1), io);
  }
  const connections: VarveClient[] = [];
  const running = { command: "", globals: { autostart: true } as GlobalOptions };
  try {
    const program = buildProgram(contextOf(io, running, connections), (command) => {
      running.command = command;
    });
    program.on("option:debug", () => {
      running.globals = { ...running.globals, debug: true };
    });
    program.hook("preSubcommand", (root) => {
      running.globals = root.opts() as GlobalOptions;
    });
    const finished = program.parseAsync(joinRunWords(spellOutVerbose(argv)), { from: "user" });
    await Promise.race([finished, abandoned(io.signal)]);
    return io.signal.aborted ? EXIT.interrupted : EXIT.ok;
  } catch (error) {
    return reportFailure(error, io, running.command, running.globals.debug === true);
  } finally {
    for (const client of connections) client.close();
  }
}

// Calls under way end at once when they are cancelled; waiting for a daemon to start does not.
const ABANDON_MS = 500;

/** Resolves when a command was interrupted and had its time to end by itself. */
function abandoned(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const onAbort = () => setTimeout(resolve, ABANDON_MS).unref();
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

function contextOf(
  io: CliIo,
  running: { readonly globals: GlobalOptions },
  connections: VarveClient[],
): CliContext {
  let connected: Promise<VarveClient> | undefined;
  const connect = async () => {
    const { connectToDaemon } = await import("./connection.js");
    const client = await connectToDaemon(running.globals, io.env);
    connections.push(client);
    return client;
  };
  const cli: CliContext = {
    ...io,
    globals: () => running.globals,
    defineCommand: (name, command) => defineCommand(name, command, cli),
    connect: () => {
      connected ??= connect();
      return connected;
    },
    print: (line) => {
      io.stdout.write(`${line}\n`);
    },
    warn: (line) => {
      io.stderr.write(`${line}\n`);
    },
  };
  return cli;
}

/** Writes what went wrong to standard error and picks the exit code. */
function reportFailure(error: unknown, io: CliIo, command: string, isDebug: boolean): number {
  if (error instanceof CommanderError && isHelp(error)) return EXIT.ok;
  if (io.signal.aborted) return EXIT.interrupted;
  if (error instanceof ReportedFailure) return error.exitCode;
  const isUsage = error instanceof CommanderError || error instanceof UsageError;
  for (const line of failureLines(error)) io.stderr.write(`${line}\n`);
  if (isUsage) {
    const help = command === "" ? "varve --help" : `varve ${command} --help`;
    io.stderr.write(`See "${help}".\n`);
  }
  if (isDebug) io.stderr.write(`${stackOf(error)}\n`);
  return isUsage ? EXIT.usage : EXIT.failure;

  function failureLines(failure: unknown): string[] {
    const [first = "", ...more] = messageOf(failure).split("\n");
    const prefix = wantsColor(io.stderr, io.env) ? "\x1b[31mvarve:\x1b[0m" : "varve:";
    return [`${prefix} ${printableText(first)}`, ...more.map((line) => `  ${printableText(line)}`)];
  }
}

function isHelp(error: CommanderError): boolean {
  return error.exitCode === 0 || error.code === "commander.help";
}

function messageOf(error: unknown): string {
  if (error instanceof CommanderError) {
    // Commander puts its suggestion on a second line: "(Did you mean images?)".
    return error.message.replace(/^error: /, "").replace(/\n\(Did you mean/, " (did you mean");
  }
  if (error instanceof BaseError) return error.message;
  if (error instanceof Error) return `internal error: ${error.message} (--debug shows where)`;
  return `internal error: ${String(error)}`;
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by: ${stackOf(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}

/** Runs the command of this process and ends the process with its exit code. */
export async function runProcess(): Promise<void> {
  const interrupt = new AbortController();
  let exitCode: number | undefined;
  const onSignal = (code: number) => () => {
    // The first asks the daemon to stop what it does for us; the second does not wait for it.
    if (interrupt.signal.aborted) process.exit(code);
    exitCode = code;
    interrupt.abort();
  };
  process.on("SIGINT", onSignal(EXIT.interrupted));
  process.on("SIGTERM", onSignal(EXIT.terminated));
  // "varve images | head -1" is no failure of ours: end as silently as SIGPIPE would have it.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? 141 : EXIT.failure);
  });
  const { stdout, stderr, env } = process;
  const io: CliIo = {
    // Opening it costs time, and only "load" reads it.
    get stdin() {
      return process.stdin;
    },
    stdout,
    stderr,
    env,
    signal: interrupt.signal,
  };
  const code = await main(process.argv.slice(2), io);
  // Standard output and error are synchronous on Linux (files, terminals, pipes): nothing is lost.
  process.exit(exitCode ?? code);
}
