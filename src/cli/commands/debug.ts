/** `varve debug bundle` */

import { closeSync, fstatSync, openSync, readFileSync, readSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import type { VarveClient } from "../../client/index.js";
import { AlreadyExistsError } from "../../system/errors.js";
import type { VarveCommand } from "../command.js";
import { connectIfRunning } from "../connection.js";
import type { CliContext } from "../context.js";
import { packageVersion } from "../installation.js";
import { toJsonLine } from "../json.js";
import { withoutSecrets } from "../secrets.js";

/** What a report needs of a log that may be huge. */
const LOG_BYTES = 512 * 1024;
const CALL_TIMEOUT_MS = 20_000;

/** Adds the command. */
export function define(command: VarveCommand, cli: CliContext): void {
  command.usage("COMMAND").helpCommand(false);
  const bundle = command.command("bundle") as VarveCommand;
  bundle
    .summary("Gather what a report of a fault needs")
    .description("Gather what a report of a fault needs, in one compressed text file.")
    .option("-o, --output <file>", "Where to (default: varve-debug-TIME.txt.gz here)")
    .examples(
      [
        ["varve debug bundle", "Then look at it with zless, and attach it"],
        ["varve debug bundle -o /tmp/report.gz", "Another file"],
      ],
      "Versions, the kernel, the daemon's information, metrics, views and their mounts, a check of the " +
        "store, and the end of the log; credentials in addresses, headers and variables are blackened. " +
        "Names of images and paths are in it. Starts no daemon.",
    )
    .action((flags: { output?: string }) => writeBundle(cli, flags.output));
  command.examples([["varve debug bundle", "Gather what a report of a fault needs"]]);
}

async function writeBundle(cli: CliContext, output: string | undefined): Promise<void> {
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const file = path.resolve(output ?? `varve-debug-${time}.txt.gz`);
  const { socket, client } = await connectIfRunning(cli.globals(), cli.env);
  const sections: string[] = [];
  const add = async (title: string, content: () => Promise<string> | string) => {
    const text = await Promise.resolve()
      .then(content)
      .catch((error: unknown) => `not to be had: ${(error as Error).message}`);
    sections.push(`==== ${title}\n${withoutSecrets(text.trimEnd())}\n`);
  };
  try {
    await addMachine(add);
    if (client === undefined) await add("daemon", () => `none runs at ${socket}`);
    else await addDaemon(add, client);
    await add("log, its end", () => readEnd(path.join(path.dirname(socket), "daemon.log")));
  } finally {
    client?.close();
  }
  try {
    writeFileSync(file, gzipSync(sections.join("\n")), { flag: "wx", mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new AlreadyExistsError(`debug bundle: ${file} is there already; choose another --output`);
  }
  cli.print(file);
}

type Add = (title: string, content: () => Promise<string> | string) => Promise<void>;

async function addMachine(add: Add): Promise<void> {
  await add("command", () => `varve ${packageVersion()}, Node.js ${process.versions.node}`);
  await add("machine", () => {
    const memory = `${os.freemem()} of ${os.totalmem()} bytes free`;
    const cpus = `${os.availableParallelism()} CPUs, load ${os.loadavg().join(" ")}`;
    return [os.version(), os.release(), os.arch(), memory, cpus].join("\n");
  });
  await add("distribution", () => readFileSync("/etc/os-release", "utf8"));
  await add("kernel's modules that matter", () => {
    const wanted = /^(nodev)?\s+(fuse|overlay|ext4|xfs|btrfs|zfs|tmpfs)$/gm;
    return (readFileSync("/proc/filesystems", "utf8").match(wanted) ?? []).join("\n");
  });
  await add("mounts", () =>
    readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .filter((line) => /varve|fuse/.test(line))
      .join("\n"),
  );
}

async function addDaemon(add: Add, client: VarveClient): Promise<void> {
  const options = { timeoutMs: CALL_TIMEOUT_MS };
  await add("daemon", async () => toJsonLine(await client.info(options)));
  await add("views", async () => {
    const { views } = await client.listViews({}, options);
    return views.map((view) => toJsonLine(view)).join("\n");
  });
  await add("images", async () => {
    const { images } = await client.listImages({}, options);
    return images.map(({ id, repoTags }) => `${id} ${repoTags.join(" ")}`).join("\n");
  });
  await add("metrics", async () => (await client.metrics(options)).text);
  await add("check", async () => {
    const lines: string[] = [];
    for await (const { fault, summary } of client.checkStore({}, options)) {
      if (fault !== undefined) lines.push(toJsonLine(fault));
      if (summary !== undefined) lines.push(toJsonLine(summary));
    }
    return lines.join("\n");
  });
}

function readEnd(file: string): string {
  const fd = openSync(file, "r");
  try {
    const { size } = fstatSync(fd);
    const end = Buffer.alloc(Math.min(size, LOG_BYTES));
    const length = readSync(fd, end, 0, end.length, size - end.length);
    return end.toString("utf8", 0, length);
  } finally {
    closeSync(fd);
  }
}
