/** `varve lease ls`, `varve lease create` and `varve lease rm` */

import type { Lease } from "../../client/index.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { secondsOfDuration } from "../durations.js";
import { forEachOperand } from "../each.js";
import { formatList, type ListLayout } from "../list-output.js";
import { humanDuration, relativeTime, rfc3339 } from "../times.js";
import { UsageError } from "../usage-error.js";

/** A row of the list. */
interface LeaseRow {
  readonly ID: string;
  readonly CreatedSince: string;
  readonly CreatedAt: string;
  readonly Expires: string;
  readonly ExpiresAt: string;
  readonly Resources: string;
  readonly Labels: string;
  readonly Transient: string;
}

const LAYOUT: ListLayout<LeaseRow> = {
  headers: {
    ID: "LEASE ID",
    CreatedSince: "CREATED",
    CreatedAt: "CREATED AT",
    Expires: "EXPIRES",
    ExpiresAt: "EXPIRES AT",
    Resources: "RESOURCES",
    Labels: "LABELS",
    Transient: "TRANSIENT",
  },
  columns: ["ID", "CreatedSince", "Expires", "Resources", "Labels"],
};

interface ListFlags {
  readonly quiet?: boolean;
  readonly format?: string;
}

interface CreateFlags {
  readonly id?: string;
  readonly expires?: number;
  readonly label?: string[];
}

/** Adds the commands. */
export function define(command: VarveCommand, cli: CliContext): void {
  command.usage("COMMAND").helpCommand(false);
  defineList(command.command("ls") as VarveCommand, cli);
  defineCreate(command.command("create") as VarveCommand, cli);
  defineRemove(command.command("rm") as VarveCommand, cli);
  command.examples(
    [
      ["varve lease create --expires 2h debian:12", "Keep an image for two hours"],
      ["varve lease ls", "What is kept, and for how long"],
    ],
    "A lease keeps content from garbage collection although its last name is removed. Pulls, loads " +
      "and commits hold leases of their own while they run.",
  );
}

function defineList(command: VarveCommand, cli: CliContext): void {
  const summary = "List leases";
  command
    .alias("list")
    .summary(summary)
    .description(`${summary}.`)
    .option("-q, --quiet", "Show only IDs")
    .option("--format <format>", "table, json, or a Go template")
    .examples(
      [
        ["varve lease ls", "All leases, those of running work too"],
        ["varve lease ls --format '{{.ID}} {{.ExpiresAt}}'", "Two columns of your choice"],
      ],
      `Fields of templates: ${Object.keys(LAYOUT.headers).join(", ")}`,
    )
    .action(async (flags: ListFlags) => {
      const client = await cli.connect();
      const { leases } = await client.listLeases({ signal: cli.signal });
      const rows = leases.map(rowOf);
      if (flags.quiet === true && flags.format === undefined) {
        for (const row of rows) cli.print(row.ID);
        return;
      }
      for (const line of await formatList(rows, LAYOUT, flags.format)) cli.print(line);
    });
}

function rowOf(lease: Lease): LeaseRow {
  const labels = Object.entries(lease.labels).map(([key, value]) => `${key}=${value}`);
  const { expires } = lease;
  const leftMs = expires === undefined ? 0 : Number(expires.seconds) * 1000 - Date.now();
  return {
    ID: lease.id,
    CreatedSince: relativeTime(lease.created, Date.now()),
    CreatedAt: rfc3339(lease.created),
    Expires: expires === undefined ? "never" : `in ${humanDuration(leftMs).toLowerCase()}`,
    ExpiresAt: rfc3339(expires),
    Resources: lease.resources.map(({ type, id }) => `${type}/${id}`).join(","),
    Labels: labels.join(","),
    Transient: String(lease.transient),
  };
}

function defineCreate(command: VarveCommand, cli: CliContext): void {
  const summary = "Keep images, blobs or unpacked layers";
  command
    .summary(summary)
    .description(`${summary}.`)
    .argument("<image...>", "Names or IDs of images, digests of blobs, chain IDs of layers")
    .option("--id <id>", "Name of the lease (default: a random one)")
    .option("--expires <duration>", "End it after this time (default: never)", secondsOfDuration)
    .option("--label <key=value>", "Attach a label", collect)
    .examples([
      ["varve lease create --expires 24h debian:12", "Keep an image until tomorrow; prints the ID"],
      ["varve lease create --id nightly --label by=ci app:1 app:2", "Two images, with a name"],
    ])
    .action(async (resources: string[], flags: CreateFlags) => {
      const client = await cli.connect();
      const request = {
        id: flags.id ?? "",
        lifetimeSeconds: BigInt(flags.expires ?? 0),
        labels: labelsOf(flags.label ?? []),
        resources,
      };
      const { lease } = await client.createLease(request, { signal: cli.signal });
      cli.print(lease?.id ?? "");
    });
}

function labelsOf(given: readonly string[]): Record<string, string> {
  const pairs = given.map((text): [string, string] => {
    const equals = text.indexOf("=");
    if (equals === 0) throw new UsageError(`--label ${text}: want KEY=VALUE`);
    return equals < 0 ? [text, ""] : [text.slice(0, equals), text.slice(equals + 1)];
  });
  return Object.fromEntries(pairs);
}

function defineRemove(command: VarveCommand, cli: CliContext): void {
  const summary = "Remove leases; what they kept goes at the next collection";
  command
    .alias("remove")
    .summary(summary)
    .description(`${summary}.`)
    .argument("<lease...>", "IDs of leases")
    .examples([
      ["varve lease rm nightly", "End a lease"],
      ["varve lease rm nightly && varve prune -f", "And remove at once what it kept"],
    ])
    .action(async (ids: string[]) => {
      const client = await cli.connect();
      await forEachOperand(cli, ids, async (id) => {
        await client.removeLease({ id }, { signal: cli.signal });
        cli.print(id);
      });
    });
}
