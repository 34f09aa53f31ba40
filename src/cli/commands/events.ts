/** `varve events` */

import type { Event } from "../../client/index.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { toJsonLine } from "../json.js";
import { rfc3339 } from "../times.js";

interface EventsFlags {
  readonly filter?: string[];
  readonly since?: string;
  readonly until?: string;
  readonly format?: string;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option(
      "-f, --filter <event-filter>",
      "type=TYPE, event=ACTION, image=IMAGE, view=VIEW, lease=ID, label=KEY[=VALUE]",
      collect,
    )
    .option("--since <time>", "Begin with events of the past, as far as they are remembered")
    .option("--until <time>", "End then")
    .option("--format <format>", "json (the default), or a Go template")
    .examples(
      [
        ["varve events", "What happens from now on, one JSON object on a line; Ctrl-C ends it"],
        ["varve events --since 1h --until 0s", "The last hour, and end"],
        ["varve events -f type=image -f event=tag -f event=untag", "What becomes of names"],
        ["varve events --format '{{.Action}} {{.Actor.ID}}'", "Two fields of your choice"],
      ],
      "Types: image (create, tag, untag, delete, pin, unpin, pull, load, save, push, unpack), view " +
        "(create, mount, unmount, commit, destroy), lease (create, delete), store (prune, collect). " +
        "TIME is seconds since 1970, a date, or a duration back from now. The daemon remembers the " +
        "latest 1024 events.",
    )
    .action((flags: EventsFlags) => followEvents(cli, flags));
}

async function followEvents(cli: CliContext, flags: EventsFlags): Promise<void> {
  const { filter: filters = [], since = "", until = "", format = "json" } = flags;
  const render = format === "json" ? toJsonLine : await compile(format);
  const client = await cli.connect();
  const stream = client.events({ filters, since, until }, { signal: cli.signal });
  for await (const event of stream) cli.print(render(describe(event)));
}

async function compile(format: string): Promise<(data: object) => string> {
  const { compileTemplate } = await import("../template.js");
  return compileTemplate(format);
}

/** Docker's fields of an event. */
function describe(event: Event): object {
  const { seconds = 0n, nanos = 0 } = event.time ?? {};
  return {
    Type: event.type,
    Action: event.action,
    Actor: { ID: event.id, Attributes: new Map(Object.entries(event.attributes)) },
    scope: "local",
    time: seconds,
    timeNano: (seconds * 1_000_000_000n + BigInt(nanos)).toString(),
    Time: rfc3339(event.time),
  };
}
