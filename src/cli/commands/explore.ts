/** `varve explore` */

import { once } from "node:events";
import path from "node:path";
import { InvalidArgumentError } from "commander";
import type { VarveClient } from "../../client/client.js";
import type { VarveCommand } from "../command.js";
import { type CliContext, wantsColor } from "../context.js";
import { loadPart } from "../program-files.js";
import { humanSize } from "../sizes.js";
import { printableText } from "../terminal-text.js";
import { UsageError } from "../usage-error.js";

/** What dist/explore/main.js exports. */
interface ExploreModule {
  readSubjects(client: VarveClient, names: readonly string[]): Promise<Subject[]>;
  servePage(client: VarveClient, subjects: readonly Subject[], port: number): Promise<Server>;
  describe(subject: Subject, options: object): string[];
}
interface Subject {
  readonly imageId: string;
  readonly layers: readonly unknown[];
}
interface Server {
  readonly url: string;
  close(): Promise<void>;
}

interface ExploreFlags {
  readonly port: number;
  readonly tree?: boolean;
  readonly depth: number;
  readonly layer?: number;
}

/** Images are kept while they are looked at; for no longer than this, should this process be killed. */
const LEASE_SECONDS = 24 * 3600;
const COLORS: Readonly<Record<string, string>> = { A: "\x1b[32m", C: "\x1b[33m", D: "\x1b[31m" };

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image|view>", "An image, or a view's name, ID or mount path")
    .argument("[other]", "Another one, to compare with")
    .option("-p, --port <number>", "Port of the page (default: any that is free)", numberOf, 0)
    .option("--tree", "Print layers, tree and wasted bytes instead of serving a page")
    .option("--depth <count>", "How deep --tree goes (default: 1)", numberOf, 1)
    .option("--layer <number>", "With --tree: only what this layer did, 1 being the base", numberOf)
    .examples(
      [
        ["varve explore busybox", "Prints an address for your browser; Ctrl-C ends it"],
        ["varve explore app:1 app:2", "Two images, and what is different"],
        ["varve explore box", "A view: what it changes, as it happens"],
        ["varve explore --tree app:1 --depth 3", "In the terminal"],
        ["varve explore --tree app:1 --layer 2", "What one layer added, changed, removed"],
      ],
      "The page is for reading only, on the loopback interface of this machine, and its address has a " +
        "secret: whoever has the address can read the image's files. From elsewhere: " +
        "ssh -L PORT:127.0.0.1:PORT HOST.",
    )
    .action((name: string, other: string | undefined, flags: ExploreFlags) =>
      explore(cli, other === undefined ? [name] : [name, other], flags),
    );
}

/** Images have slashes in their names, too: only what can be nothing but a path is one. */
function operand(given: string): string {
  return /^(\.{0,2}\/|\.\.?$)/.test(given) ? path.resolve(given) : given;
}

function numberOf(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) {
    throw new InvalidArgumentError("want a whole number up to 65535");
  }
  return Number(text);
}

async function explore(
  cli: CliContext,
  names: readonly string[],
  flags: ExploreFlags,
): Promise<void> {
  if (flags.tree === true && names.length > 1) {
    throw new UsageError("explore: --tree shows one image or view");
  }
  const module = await loadPart<ExploreModule>("explore", "main");
  const client = await cli.connect();
  const subjects = await module.readSubjects(client, names.map(operand));
  if (flags.tree === true) return printTree(cli, module, subjects[0]!, flags);
  await serve(cli, client, module, subjects, flags.port);
}

function printTree(
  cli: CliContext,
  module: ExploreModule,
  subject: Subject,
  { depth, layer }: ExploreFlags,
): void {
  if (layer !== undefined && (layer < 1 || layer > subject.layers.length)) {
    throw new UsageError(`explore: --layer ${layer}: there are ${subject.layers.length} layers`);
  }
  const isColored = wantsColor(cli.stdout, cli.env);
  const lines = module.describe(subject, { depth, layer, printable: printableText, humanSize });
  cli.print(lines.map((line) => (isColored ? colored(line) : line)).join("\n"));
}

function colored(line: string): string {
  const color = /^[ACD] /.test(line) ? COLORS[line[0]!] : undefined;
  return color === undefined ? line : `${color}${line}\x1b[0m`;
}

async function serve(
  cli: CliContext,
  client: VarveClient,
  module: ExploreModule,
  subjects: readonly Subject[],
  port: number,
): Promise<void> {
  const { lease } = await client.createLease({
    lifetimeSeconds: BigInt(LEASE_SECONDS),
    labels: { explore: String(process.pid) },
    resources: subjects.map(({ imageId }) => imageId),
  });
  try {
    const server = await module.servePage(client, subjects, port);
    cli.print(server.url);
    if (cli.stdout.isTTY === true) {
      cli.warn("Open it in a browser of this machine. Ctrl-C ends it.");
    }
    if (!cli.signal.aborted) await once(cli.signal, "abort");
    await server.close();
  } finally {
    await client.removeLease({ id: lease?.id ?? "" });
  }
}
