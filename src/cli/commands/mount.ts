/** `varve mount` */

import path from "node:path";
import { Option } from "commander";
import type { View } from "../../client/index.js";
import { BaseError } from "../../system/errors.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { createProgress, followProgress } from "../progress.js";
import { registryAccess } from "../registry-access.js";
import { alignColumns } from "../tables.js";
import { printableText } from "../terminal-text.js";
import { UsageError } from "../usage-error.js";

interface MountFlags {
  readonly name?: string;
  readonly readOnly?: boolean;
  readonly platform?: string;
  readonly quiet?: boolean;
  readonly pull: string;
  readonly io?: string;
  readonly restart?: string;
  readonly uidmap?: string[];
  readonly gidmap?: string[];
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("[image]", "Name or ID of an image")
    .argument("[target]", "An empty directory to mount at (default: one in the state directory)")
    .option("-n, --name <view>", "Name of the view; without an image: the view to mount again")
    .option("-r, --read-only", "Mount read-only")
    .option("--platform <platform>", "Platform of an index (os/arch[/variant])")
    .option("-q, --quiet", "Show no progress")
    .addOption(
      new Option("--pull <when>", "Ask the image's registry for it")
        .choices(["always", "missing", "never"])
        .default("missing"),
    )
    .addOption(
      new Option(
        "--io <mode>",
        "How file data is read: by the kernel from disk (passthrough), through the page cache " +
          "of the view (cached), or as fits (auto); kept for later mounts",
      ).choices(["cached", "passthrough", "auto"]),
    )
    .addOption(
      new Option(
        "--restart <policy>",
        "Mount it again when the daemon starts, also after the machine did (always), or not (no, " +
          "the default); kept for later mounts",
      ).choices(["no", "always"]),
    )
    .option(
      "--uidmap <map>",
      "Show the image's users as others of the host, CONTAINER:HOST:COUNT; the container's IDs are " +
        "what is written and committed (repeatable; groups too, without --gidmap)",
      collect,
    )
    .option("--gidmap <map>", "As --uidmap, for groups (repeatable)", collect)
    .examples(
      [
        ["varve mount busybox --name box", "Make a view and mount it; prints where"],
        ["varve mount busybox /mnt/box", "Mount at a directory of your choice"],
        ["varve mount --read-only debian /mnt/deb", "A view that nothing can change"],
        [
          "varve mount --io passthrough debian",
          "Large files at the disk's speed, pages shared by all views",
        ],
        ["varve mount --pull always debian", "The image that its name means in the registry now"],
        [
          "varve mount --uidmap 0:100000:65536 debian",
          "For a container whose root is the host's user 100000",
        ],
        ["varve mount --name box", "Mount a view again, with everything in it"],
        [
          "varve mount --name box --restart always",
          "The same, and after each start of the machine",
        ],
        ["varve mount --name box ./there", "The same, elsewhere"],
        ["varve mount", "List what is mounted"],
        ["cd $(varve mount busybox)", "Go there"],
      ],
      "A target begins with / or . (./there, not there), an image never does.",
    )
    .action((image: string | undefined, target: string | undefined, flags: MountFlags) =>
      mount(cli, image, target, flags),
    );
}

async function mount(
  cli: CliContext,
  first: string | undefined,
  second: string | undefined,
  flags: MountFlags,
): Promise<void> {
  if (first === undefined && flags.name === undefined) return listMounts(cli, flags);
  const { image, target } = operandsOf(first, second, flags);
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  const request = {
    image,
    name: flags.name ?? "",
    target: target === "" ? "" : path.resolve(target),
    readOnly: flags.readOnly === true,
    platform: flags.platform ?? "",
    pull: flags.pull,
    io: flags.io ?? "",
    restart: flags.restart ?? "",
    uidMaps: flags.uidmap ?? [],
    gidMaps: flags.gidmap ?? [],
    access: registryAccess(cli, {}),
  };
  let view: View | undefined;
  const stream = client.mountView(request, { signal: cli.signal, quiet: flags.quiet === true });
  await followProgress(stream, display, (message) => {
    view = message.view ?? view;
  });
  if (view === undefined) throw new BaseError("SYSCALL", "mount: the daemon sent no view");
  cli.print(view.target);
  if (flags.io === "passthrough" && view.ioInUse === "cached") {
    cli.warn(
      `varve: warning: view "${view.name}" has no passthrough, but goes through the page cache (cached mode): ` +
        'this needs root and Linux 6.9; "varve doctor" says what is missing',
    );
  }
}

/** Tells an image from a target when only one of them is there. */
function operandsOf(
  first: string | undefined,
  second: string | undefined,
  flags: MountFlags,
): { image: string; target: string } {
  if (first === undefined) return { image: "", target: "" };
  if (second !== undefined || !/^[./]/.test(first)) return { image: first, target: second ?? "" };
  if (flags.name === undefined) {
    throw new UsageError(`mount at ${first}: which image? Give IMAGE before it, or --name VIEW`);
  }
  return { image: "", target: first };
}

/** As podman: name and place of everything that is mounted. */
async function listMounts(cli: CliContext, flags: MountFlags): Promise<void> {
  if (flags.readOnly === true || flags.platform !== undefined) {
    throw new UsageError("mount: which image?");
  }
  const client = await cli.connect();
  const { views } = await client.listViews({ sizes: false }, { signal: cli.signal });
  const mounted = views.filter((view) => view.mounted);
  const rows = mounted.map((view) => [view.name, printableText(view.target)]);
  for (const line of alignColumns(rows)) cli.print(line);
}
