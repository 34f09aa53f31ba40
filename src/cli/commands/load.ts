/** `varve load` */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import type { LoadedImage } from "../../client/index.js";
import { NotFoundError } from "../../system/errors.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName } from "../image-names.js";
import { createProgress, followProgress } from "../progress.js";
import { UsageError } from "../usage-error.js";

interface LoadFlags {
  readonly input?: string;
  readonly platform?: string[];
  readonly allPlatforms?: boolean;
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-i, --input <file>", 'Archive, OCI layout directory, or "-" for standard input')
    .option(
      "--platform <platform>",
      "Load these platforms of an index (os/arch[/variant])",
      collect,
    )
    .option("--all-platforms", "Load every platform of an index")
    .option("-q, --quiet", "Show no progress")
    .examples(
      [
        ["varve load -i busybox.tar", "An archive of docker save, podman save or skopeo"],
        ["varve load -i ./layout", "An OCI image layout directory"],
        ["docker save busybox | varve load", "From standard input, plain or gzip"],
        ["varve load -i all.tar --platform linux/arm64", "Another platform than this machine's"],
      ],
      "Reads OCI layouts, oci-archive and docker-archive files, with any number of images.",
    )
    .action((flags: LoadFlags) => load(cli, flags));
}

async function load(cli: CliContext, flags: LoadFlags): Promise<void> {
  if (flags.allPlatforms === true && flags.platform !== undefined) {
    throw new UsageError("--platform and --all-platforms exclude each other");
  }
  const source = await sourceOf(cli, flags.input);
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  const options = {
    path: source.path,
    platforms: flags.platform ?? [],
    allPlatforms: flags.allPlatforms === true,
  };
  const stream = client.loadImages(options, source.archive, {
    signal: cli.signal,
    quiet: flags.quiet === true,
  });
  await followProgress(stream, display, ({ loaded }) => {
    if (loaded === undefined) return;
    display.clear();
    cli.print(loadedLine(loaded));
  });
}

function loadedLine(image: LoadedImage): string {
  if (image.reference === "") return `Loaded image ID: ${image.id}`;
  return `Loaded image: ${familiarName(image.reference)}`;
}

interface Source {
  /** What the daemon reads by itself; empty when the bytes come from us. */
  readonly path: string;
  readonly archive?: AsyncIterable<Uint8Array>;
}

async function sourceOf(cli: CliContext, input: string | undefined): Promise<Source> {
  if (input === undefined || input === "-") {
    if (cli.stdin.isTTY === true) {
      throw new UsageError(
        "nothing to load: standard input is a terminal; name a file with -i, or pipe an archive in",
      );
    }
    return { path: "", archive: cli.stdin };
  }
  const file = path.resolve(input);
  const status = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT")
      throw new NotFoundError(`load ${input}: no such file or directory`);
    throw error;
  });
  // A pipe or a device (bash's <(…)) exists for this process only: the daemon gets its bytes.
  if (status.isFile() || status.isDirectory()) return { path: file };
  return { path: "", archive: createReadStream(file, { highWaterMark: 1024 * 1024 }) };
}
