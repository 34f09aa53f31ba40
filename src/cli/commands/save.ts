/** `varve save` */

import { createWriteStream } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import type { Writable } from "node:stream";
import { Option } from "commander";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { createProgress, followProgress } from "../progress.js";
import { UsageError } from "../usage-error.js";

interface SaveFlags {
  readonly output?: string;
  readonly format: string;
  readonly platform?: string[];
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image...>", "Names or IDs of images")
    .option("-o, --output <file>", 'File or directory to write, or "-" for standard output')
    .addOption(
      new Option("--format <format>", "What to write")
        .choices(["oci-archive", "docker-archive", "oci-dir"])
        .default("oci-archive"),
    )
    .option("--platform <platform>", "Save only these platforms of an index", collect)
    .option("-q, --quiet", "Show no progress")
    .examples([
      ["varve save mybox:v2 -o mybox.tar", "An OCI archive, for podman, skopeo, ctr and docker"],
      ["varve save mybox:v2 -o box.tar --format docker-archive", "What docker load wants"],
      ["varve save mybox:v2 -o ./layout --format oci-dir", "An OCI image layout directory"],
      ["varve save mybox:v2 | gzip > mybox.tar.gz", "To standard output"],
    ])
    .action((images: string[], flags: SaveFlags) => save(cli, images, flags));
}

async function save(cli: CliContext, references: string[], flags: SaveFlags): Promise<void> {
  const target = await targetOf(cli, flags);
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  const request = {
    references,
    format: flags.format,
    path: target.path,
    platforms: flags.platform ?? [],
  };
  const stream = client.saveImages(request, { signal: cli.signal, quiet: flags.quiet === true });
  await followProgress(stream, display, async ({ chunk }) => {
    if (chunk.length > 0 && target.stream !== undefined) await write(target.stream, chunk);
  });
  if (target.stream !== undefined && target.stream !== cli.stdout) await close(target.stream);
}

interface Target {
  /** What the daemon writes by itself; empty when the bytes come to us. */
  readonly path: string;
  readonly stream?: Writable;
}

async function targetOf(cli: CliContext, flags: SaveFlags): Promise<Target> {
  if (flags.output === undefined || flags.output === "-") {
    if (flags.format === "oci-dir") {
      throw new UsageError("--format oci-dir needs a directory to write: -o DIR");
    }
    if (cli.stdout.isTTY === true) {
      throw new UsageError("refusing to write an archive to a terminal; use -o FILE or redirect");
    }
    return { path: "", stream: cli.stdout };
  }
  const file = path.resolve(flags.output);
  const status = await stat(file).catch(() => undefined);
  // A pipe or a device (bash's >(…)) exists for this process only: the daemon sends its bytes.
  const isSpecial = status !== undefined && !status.isFile() && !status.isDirectory();
  return isSpecial ? { path: "", stream: createWriteStream(file) } : { path: file };
}

function write(stream: Writable, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

function close(stream: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.once("error", reject);
    stream.end(resolve);
  });
}
