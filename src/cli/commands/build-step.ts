/** `varve build-step` */

import path from "node:path";
import { InvalidArgumentError, Option } from "commander";
import type { CommitStepResponse, CommittedImage } from "../../client/index.js";
import { BaseError } from "../../system/errors.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { shortDigest } from "../image-names.js";
import { createProgress, followProgress } from "../progress.js";
import { registryAccess } from "../registry-access.js";
import { printableText } from "../terminal-text.js";
import { UsageError } from "../usage-error.js";

interface BuildFlags {
  readonly commit?: string;
  readonly cache: boolean;
  readonly network: string;
  readonly platform?: string;
  readonly pull: string;
  readonly compression: string;
  readonly timestamp?: bigint;
  readonly author?: string;
  readonly quiet?: boolean;
}

/** A step of the request. */
interface Step {
  readonly kind: "run" | "copy" | "change";
  readonly args?: string[];
  readonly shell?: boolean;
  readonly destination?: string;
  readonly owner?: string;
  readonly change?: string;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  const steps: Step[] = [];
  let owner = "";
  /** An option that is a step: they count in the order of the command line. */
  const stepOption = (flags: string, description: string, read: (text: string) => Step) =>
    command.option(flags, description, (text: string, before: string[] | undefined) => {
      steps.push(read(text));
      return collect(text, before);
    });
  command
    .usage("[options] IMAGE [-- COMMAND...]")
    .argument("<image>", "Name or ID of the image to begin with")
    .argument("[command...]", "A command that is run as the last step, without a shell");
  stepOption("--run <command>", "Run a command in the image's shell", runStep);
  stepOption("--copy <source:destination>", "Copy a file, or what is in a directory", (text) =>
    copyStep(text, owner),
  );
  stepOption("-e, --env <key=value>", "Set a variable", (text) => pairStep("ENV", text));
  stepOption("-l, --label <key=value>", "Set a label", (text) => pairStep("LABEL", text));
  stepOption("-w, --workdir <path>", "Set, and make, the working directory", (text) =>
    changeStep(`WORKDIR ${quoted(text)}`),
  );
  stepOption("-u, --user <user>", "Set the user", (text) => changeStep(`USER ${text}`));
  stepOption("-c, --change <instruction>", "Any other instruction of commit --change", changeStep);
  command
    .option("--chown <user:group>", "Owner of what the copies after it copy", (text: string) => {
      owner = text;
      return text;
    })
    .option("-t, --commit <new-name>", "Name of the new image (default: none)")
    .option("--no-cache", "Run every step, though its image was made before")
    .addOption(
      new Option("--network <network>", "Of the commands")
        .choices(["host", "none"])
        .default("host"),
    )
    .option("--platform <platform>", "Platform of an index (os/arch[/variant])")
    .addOption(
      new Option("--pull <when>", "Ask the image's registry for it")
        .choices(["always", "missing", "never"])
        .default("missing"),
    )
    .addOption(
      new Option("--compression <method>", "How to compress layers")
        .choices(["gzip", "zstd", "none"])
        .default("gzip"),
    )
    .option("--timestamp <seconds>", "Date of images and of newer files, since 1970", secondsOf)
    .option("-a, --author <author>", "Author, for instance 'Ada <ada@example.org>'")
    .option("-q, --quiet", "Show neither progress nor what commands print")
    .examples(
      [
        [
          "varve build-step debian --run 'apt-get update' --commit deb:1",
          "One step; prints the ID",
        ],
        ["varve build-step deb:1 --copy ./src:/src --run 'make -C /src' -t app", "Two steps"],
        ["varve build-step app -e A=1 -w /srv -u www -c 'CMD [\"./run\"]' -t app:2", "No command"],
        ["varve build-step debian --commit deb:2 -- touch '/a b'", "A command without a shell"],
      ],
      "Each --run, --copy, --env, --label, --workdir, --user and --change is a step, in the order of " +
        "the command line, with an image of its own. A step that was made before from the same " +
        "image (and, for copies, from the same content) is taken from the build cache. Commands run " +
        "with runc, in a view of their own; --run takes the words up to the next one that begins " +
        "with --. Your views are not touched.",
    )
    .action((image: string, words: string[], flags: BuildFlags) => {
      const last: Step[] = words.length === 0 ? [] : [{ kind: "run", args: words }];
      return build(cli, image, [...steps, ...last], flags);
    });
}

/** A JSON list is a command without a shell, as in a Dockerfile. */
function runStep(text: string): Step {
  const list = jsonList(text);
  return list === undefined
    ? { kind: "run", args: [text], shell: true }
    : { kind: "run", args: list };
}

function jsonList(text: string): string[] | undefined {
  if (!text.startsWith("[")) return undefined;
  try {
    const value = JSON.parse(text) as unknown;
    const isList = Array.isArray(value) && value.every((word) => typeof word === "string");
    return isList && value.length > 0 ? value : undefined;
  } catch {
    return undefined;
  }
}

function copyStep(text: string, owner: string): Step {
  const colon = text.lastIndexOf(":");
  const [source, destination] = [text.slice(0, Math.max(colon, 0)), text.slice(colon + 1)];
  if (source === "" || !destination.startsWith("/")) {
    throw new InvalidArgumentError("want SOURCE:DESTINATION with an absolute destination");
  }
  return { kind: "copy", args: [path.resolve(source)], destination, owner };
}

function pairStep(instruction: string, text: string): Step {
  const equals = text.indexOf("=");
  if (equals < 1) throw new InvalidArgumentError("want KEY=VALUE");
  const [key, value] = [text.slice(0, equals), text.slice(equals + 1)];
  return changeStep(`${instruction} ${key}=${quoted(value)}`);
}

function changeStep(change: string): Step {
  return { kind: "change", change };
}

/** As a word of an instruction that stands for itself. */
function quoted(text: string): string {
  return /^[\w./:@%+,-]+$/.test(text) ? text : `"${text.replace(/[\\"$]/g, "\\$&")}"`;
}

function secondsOf(text: string): bigint {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("want seconds since 1970");
  return BigInt(text);
}

async function build(
  cli: CliContext,
  parent: string,
  steps: readonly Step[],
  flags: BuildFlags,
): Promise<void> {
  if (steps.length === 0) {
    throw new UsageError("build-step: name a step: --run, --copy, --env, --workdir, --user …");
  }
  const isQuiet = flags.quiet === true;
  const client = await cli.connect();
  const display = createProgress(cli.stderr, isQuiet, cli.env);
  const request = {
    parent,
    steps: [...steps],
    reference: flags.commit ?? "",
    noCache: !flags.cache,
    network: flags.network,
    platform: flags.platform ?? "",
    pull: flags.pull,
    access: registryAccess(cli, {}),
    compression: flags.compression,
    author: flags.author ?? "",
    ...(flags.timestamp === undefined ? {} : { sourceDateEpoch: flags.timestamp }),
  };
  let image: CommittedImage | undefined;
  const stream = client.commitStep(request, { signal: cli.signal, quiet: isQuiet });
  await followProgress(stream, display, async (message) => {
    image = message.image ?? image;
    if (isQuiet || message.progress !== undefined) return;
    display.clear();
    await showStep(cli, message, steps.length);
  });
  if (image === undefined) throw new BaseError("SYSCALL", "build-step: the daemon sent no image");
  for (const warning of image.warnings) cli.warn(`varve: warning: ${printableText(warning)}`);
  cli.print(image.id);
}

/** What commands print comes as it is; as fast as the terminal takes it. */
async function showStep(
  cli: CliContext,
  message: CommitStepResponse,
  count: number,
): Promise<void> {
  const { started, finished, output } = message;
  if (started !== undefined) {
    cli.warn(`STEP ${started.number}/${count}: ${printableText(started.instruction)}`);
  }
  if (finished !== undefined) {
    cli.warn(`--> ${finished.cached ? "using cache " : ""}${shortDigest(finished.id)}`);
  }
  if (output.length > 0 && !cli.stderr.write(output)) {
    await new Promise<void>((resolve) => cli.stderr.once("drain", resolve));
  }
}
