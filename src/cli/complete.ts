/**
 * `varve __complete WORD…`: what the completion scripts ask. The last word is the one that is being
 * typed. Prints "candidate<TAB>description" lines and, where files are wanted, a line ":files" or
 * ":dirs". Starts no daemon, prints no errors: a shell's prompt is no place for them.
 */

import type { Argument, Option } from "commander";
import type { VarveCommand } from "./command.js";
import { defineCommand } from "./command-table.js";
import type { CliContext, CliIo, GlobalOptions } from "./context.js";
import { familiarName } from "./image-names.js";
import { buildProgram } from "./program.js";

interface Candidate {
  readonly value: string;
  readonly description: string;
}

/** What may stand at a place: candidates, and whether file or directory names. */
interface Completion {
  readonly candidates: readonly Candidate[];
  readonly paths?: "files" | "dirs";
}

const NOTHING: Completion = { candidates: [] };
// A shell that hangs on a key press is worse than one that offers nothing.
const TIMEOUT_MS = 2000;

/** Prints the completions; returns the exit code, which is always 0. */
export async function completeWords(words: readonly string[], io: CliIo): Promise<number> {
  const current = words.at(-1) ?? "";
  const { candidates, paths } = await completionsFor(words.slice(0, -1), current, io).catch(
    () => NOTHING,
  );
  const lines = candidates
    .filter(({ value }) => value.startsWith(current))
    .map(({ value, description }) => `${value}\t${description}\n`);
  if (paths !== undefined) lines.push(`:${paths}\n`);
  io.stdout.write(lines.join(""));
  return 0;
}

async function completionsFor(
  before: readonly string[],
  current: string,
  io: CliIo,
): Promise<Completion> {
  const globals: Record<string, string> = {};
  const cli = completionContext(io, globals);
  const program = buildProgram(cli, () => undefined);
  const place = await findPlace(program, before, cli, globals);
  if (place.pending !== undefined) return optionValues(place.pending, cli);
  const assignment = /^(--[\w-]+)=/.exec(current);
  if (assignment !== null) {
    const option = place.options.find(({ long }) => long === assignment[1]);
    return option === undefined
      ? NOTHING
      : prefixed(await optionValues(option, cli), assignment[0]);
  }
  if (current.startsWith("-")) return { candidates: place.options.flatMap(optionNames) };
  const commands = subcommands(place.command);
  const argument = argumentAt(place.command, place.operands);
  const values = argument === undefined ? NOTHING : await argumentValues(argument, program, cli);
  return { ...values, candidates: [...commands, ...values.candidates] };
}

/** Where the words before the current one lead. */
interface Place {
  readonly command: VarveCommand;
  /** Options that may come here, the global ones last. */
  readonly options: readonly Option[];
  /** How many arguments the command has already. */
  readonly operands: number;
  /** An option that waits for its value. */
  readonly pending?: Option;
}

async function findPlace(
  program: VarveCommand,
  words: readonly string[],
  cli: CliContext,
  globals: Record<string, string>,
): Promise<Place> {
  let command = program;
  let operands = 0;
  let pending: Option | undefined;
  for (const word of words) {
    const options =
      command === program ? program.options : [...command.options, ...program.options];
    if (pending !== undefined) {
      globals[pending.attributeName()] ??= word;
      pending = undefined;
    } else if (word.startsWith("-") && word.length > 1) {
      pending = options.find((option) => takesNext(option, word));
    } else {
      const next = command.commands.find(
        (candidate) => candidate.name() === word || candidate.aliases().includes(word),
      ) as VarveCommand | undefined;
      if (next === undefined || operands > 0) operands += 1;
      else command = await enter(program, command, next, cli);
    }
  }
  const options = command === program ? program.options : [...command.options, ...program.options];
  return { command, options, operands, ...(pending === undefined ? {} : { pending }) };
}

async function enter(
  program: VarveCommand,
  parent: VarveCommand,
  next: VarveCommand,
  cli: CliContext,
): Promise<VarveCommand> {
  if (parent === program) await cli.defineCommand(next.name(), next);
  else if (parent.name() === "image") {
    const { defineNested } = await import("./commands/image.js");
    await defineNested(next, cli);
  }
  return next;
}

function takesNext(option: Option, word: string): boolean {
  return option.required && (option.long === word || option.short === word);
}

function subcommands(command: VarveCommand): Candidate[] {
  return command.commands.map((nested) => ({
    value: nested.name(),
    description: nested.summary(),
  }));
}

function optionNames(option: Option): Candidate[] {
  if (option.hidden || option.long === undefined) return [];
  return [{ value: option.long, description: option.description }];
}

function argumentAt(command: VarveCommand, position: number): Argument | undefined {
  const known = command.registeredArguments;
  const last = known.at(-1);
  return known[position] ?? (last?.variadic === true ? last : undefined);
}

function words(...values: string[]): Completion {
  return { candidates: values.map((value) => ({ value, description: "" })) };
}

function prefixed(completion: Completion, prefix: string): Completion {
  return {
    candidates: completion.candidates.map(({ value, description }) => ({
      value: prefix + value,
      description,
    })),
  };
}

/** An option's values, by its choices or by the name of its value: <file>, <image>, … */
async function optionValues(option: Option, cli: CliContext): Promise<Completion> {
  if (option.argChoices !== undefined) return words(...option.argChoices);
  const name = /<([\w-]+)>/.exec(option.flags)?.[1] ?? "";
  return valuesOf(name, cli);
}

async function argumentValues(
  argument: Argument,
  program: VarveCommand,
  cli: CliContext,
): Promise<Completion> {
  if (argument.argChoices !== undefined) return words(...argument.argChoices);
  if (argument.name() === "command") return { candidates: subcommands(program) };
  return valuesOf(argument.name(), cli);
}

async function valuesOf(name: string, cli: CliContext): Promise<Completion> {
  switch (name) {
    case "file":
    case "path":
      return { candidates: [], paths: "files" };
    case "dir":
    case "target":
      return { candidates: [], paths: "dirs" };
    case "image":
    case "repository":
    case "new-name":
      return { candidates: await images(cli) };
    case "lease":
      return { candidates: await leases(cli) };
    case "view":
      return { candidates: await views(cli) };
    case "name":
      return { candidates: [...(await views(cli)), ...(await images(cli))] };
    case "format":
      return words("json", "table");
    case "prune-filter":
      return words("until=", "label=", "label!=");
    case "event-filter":
      return words("type=", "event=", "image=", "view=", "lease=", "label=");
    case "filter":
      return words(
        "reference=",
        "dangling=true",
        "dangling=false",
        "label=",
        "before=",
        "since=",
        "pinned=true",
      );
    case "platform":
      return words("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/riscv64");
    default:
      return NOTHING;
  }
}

async function images(cli: CliContext): Promise<Candidate[]> {
  const client = await cli.connect();
  try {
    const answer = await client.listImages({}, { timeoutMs: TIMEOUT_MS });
    return answer.images.flatMap((image) =>
      image.repoTags.map((tag) => ({ value: familiarName(tag), description: "image" })),
    );
  } finally {
    client.close();
  }
}

async function leases(cli: CliContext): Promise<Candidate[]> {
  const client = await cli.connect();
  try {
    const answer = await client.listLeases({ timeoutMs: TIMEOUT_MS });
    return answer.leases
      .filter((lease) => !lease.transient)
      .map((lease) => ({ value: lease.id, description: "lease" }));
  } finally {
    client.close();
  }
}

async function views(cli: CliContext): Promise<Candidate[]> {
  const client = await cli.connect();
  try {
    const answer = await client.listViews({}, { timeoutMs: TIMEOUT_MS });
    return answer.views.map((view) => ({
      value: view.name,
      description: `view of ${familiarName(view.image)}`,
    }));
  } finally {
    client.close();
  }
}

/** A context whose connections never start a daemon and that prints nothing. */
function completionContext(io: CliIo, given: Readonly<Record<string, string>>): CliContext {
  const globals = (): GlobalOptions => ({ ...given, autostart: false });
  const cli: CliContext = {
    ...io,
    // The getter of standard input would open it.
    stdin: io.stdout as never,
    globals,
    defineCommand: (name, command) => defineCommand(name, command, cli),
    connect: async () => {
      const { connectIfRunning, notRunning } = await import("./connection.js");
      const { client, socket } = await connectIfRunning(globals(), io.env);
      if (client === undefined) throw notRunning(socket, "nothing to complete");
      return client;
    },
    print: () => undefined,
    warn: () => undefined,
  };
  return cli;
}
