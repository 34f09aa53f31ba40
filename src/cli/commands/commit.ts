/** `varve commit` */

import { InvalidArgumentError, Option } from "commander";
import type { CommittedImage } from "../../client/index.js";
import { BaseError } from "../../system/errors.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { createProgress, followProgress } from "../progress.js";
import { printableText } from "../terminal-text.js";
import { UsageError } from "../usage-error.js";
import { viewOperand } from "../view-operand.js";

interface CommitFlags {
  readonly author?: string;
  readonly message?: string;
  readonly change?: string[];
  readonly compression: string;
  readonly compressionLevel?: number;
  readonly squashAll?: boolean;
  readonly omitHistory?: boolean;
  readonly pause: boolean;
  readonly timestamp?: bigint;
  readonly format?: string;
  readonly annotation?: string[];
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<view>", "Name, ID or mount path of a view")
    .argument("[new-name]", "Name of the new image: NAME[:TAG]")
    .option("-a, --author <author>", "Author, for instance 'Ada <ada@example.org>'")
    .option("-m, --message <message>", "Comment in the image's history")
    .option("-c, --change <instruction>", "Change the configuration, as in a Dockerfile", collect)
    .addOption(
      new Option("--compression <method>", "How to compress the layer")
        .choices(["gzip", "zstd", "none"])
        .default("gzip"),
    )
    .option("--compression-level <level>", "Small and fast (1) to thorough (9; zstd: 19)", levelOf)
    .option("--squash", "One layer over the image, however often it changed (always so)")
    .option("--squash-all", "One layer in all: the image's layers and the changes together")
    .addOption(
      new Option("--format <format>", "Manifest format (default: the image's)").choices([
        "oci",
        "docker",
      ]),
    )
    .option("--annotation <key=value>", "Annotate the manifest (oci only)", collect)
    .option("--omit-history", "Leave the history out of the new image")
    .option("--timestamp <seconds>", "Date of the image and of newer files, since 1970", secondsOf)
    .addOption(
      new Option("--pause [bool]", "Programs in the view wait to write until it has been read")
        .argParser(booleanOf)
        .preset(true)
        .default(true),
    )
    .option("-q, --quiet", "Show no progress")
    .examples(
      [
        ["varve commit box mybox:v2", "Make an image of a view; prints its ID"],
        ["varve commit box -m 'add curl' -a Ada mybox:v3", "With a comment and an author"],
        [`varve commit box -c 'CMD ["sh"]' -c 'ENV A=1' mybox:v4`, "With another configuration"],
        ["SOURCE_DATE_EPOCH=0 varve commit box mybox:v5", "With the same ID every time"],
      ],
      "Instructions: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, " +
        "VOLUME, WORKDIR. The view stays as it is. SOURCE_DATE_EPOCH serves as --timestamp.",
    )
    .action((view: string, name: string | undefined, flags: CommitFlags) =>
      commit(cli, view, name, flags),
    );
}

function secondsOf(text: string): bigint {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("want seconds since 1970");
  return BigInt(text);
}

function booleanOf(text: string | boolean): boolean {
  if (typeof text === "boolean") return text;
  if (text === "true" || text === "false") return text === "true";
  throw new InvalidArgumentError("want true or false");
}

function levelOf(text: string): number {
  if (!/^\d{1,2}$/.test(text) || Number(text) > 19) throw new InvalidArgumentError("want 0 to 19");
  return Number(text);
}

async function commit(
  cli: CliContext,
  view: string,
  reference: string | undefined,
  flags: CommitFlags,
): Promise<void> {
  const epoch = flags.timestamp ?? sourceDateEpoch(cli.env.SOURCE_DATE_EPOCH);
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  const request = {
    name: viewOperand(view),
    reference: reference ?? "",
    author: flags.author ?? "",
    message: flags.message ?? "",
    changes: flags.change ?? [],
    compression: flags.compression,
    compressionLevel: flags.compressionLevel ?? 0,
    squashAll: flags.squashAll ?? false,
    omitHistory: flags.omitHistory ?? false,
    noPause: !flags.pause,
    format: flags.format ?? "",
    annotations: flags.annotation ?? [],
    ...(epoch === undefined ? {} : { sourceDateEpoch: epoch }),
  };
  let image: CommittedImage | undefined;
  const stream = client.commitView(request, { signal: cli.signal, quiet: flags.quiet === true });
  await followProgress(stream, display, (message) => {
    image = message.image ?? image;
  });
  if (image === undefined) throw new BaseError("SYSCALL", "commit: the daemon sent no image");
  for (const warning of image.warnings)
    cli.stderr.write(`varve: warning: ${printableText(warning)}\n`);
  cli.print(image.id);
}

/** The daemon may have been started long ago by somebody else: the caller's variable counts. */
function sourceDateEpoch(text: string | undefined): bigint | undefined {
  if (text === undefined || text === "") return undefined;
  if (/^\d{1,15}$/.test(text)) return BigInt(text);
  throw new UsageError(`SOURCE_DATE_EPOCH=${text}: want seconds since 1970, a whole number`);
}
