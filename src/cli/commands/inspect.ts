/** `varve inspect` */

import { Option } from "commander";
import type { VarveClient } from "../../client/client.js";
import { BaseError, NotFoundError } from "../../system/errors.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { describeImage, describeSnapshot, describeView } from "../inspect-data.js";
import { toJsonLine, toJsonText } from "../json.js";
import { formatObject } from "../list-output.js";
import { registryAccess } from "../registry-access.js";

interface InspectFlags {
  readonly format?: string;
  readonly type?: "image" | "view" | "snapshot";
  readonly platform?: string;
  readonly pull: string;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<name...>", "Views (name, ID or mount path) and images (name or ID)")
    .option("-f, --format <format>", "json, or a Go template")
    .addOption(
      new Option("--type <type>", "Look only for images, views, or unpacked layers").choices([
        "image",
        "view",
        "snapshot",
      ]),
    )
    .option("--platform <platform>", "Platform of an index (os/arch[/variant])")
    .addOption(
      new Option("--pull <when>", "Ask an image's registry, for manifest and config only")
        .choices(["always", "missing", "never"])
        .default("never"),
    )
    .examples(
      [
        ["varve inspect busybox", "Everything about an image, as a JSON array"],
        ["varve inspect -f '{{.Config.Cmd}}' busybox", "One field"],
        ["varve inspect -f '{{json .Config}}' busybox", "A part as JSON"],
        ["varve inspect --type view box", "A view, though an image has the same name"],
        [
          "varve inspect -f '{{.ConfigDescriptor.digest}}' --platform linux/arm64 busybox",
          "Another platform",
        ],
        ["varve inspect --pull missing quay.io/team/app:1", "What an image is, without its layers"],
        ["varve inspect -f '{{.Blob}}' sha256:…", "The blob of an unpacked layer, by its chain ID"],
      ],
      "A name is looked up among the views first, then among the images; a whole digest also among " +
        "the chain IDs of unpacked layers. GraphDriver.Data.LowerDir is ready for mount -t overlay.",
    )
    .action((names: string[], flags: InspectFlags) => inspect(cli, names, flags));
}

async function inspect(cli: CliContext, names: string[], flags: InspectFlags): Promise<void> {
  const client = await cli.connect();
  const found: object[] = [];
  try {
    await forEachOperand(cli, names, async (name) => {
      const data = await lookUp(cli, client, name, flags);
      // Formatted at once, so that a bad template fails before the next look-up.
      if (flags.format === undefined) found.push(data);
      else cli.print(await formatObject(data, flags.format));
    });
  } finally {
    if (flags.format === undefined) {
      cli.print(found.length === 0 ? toJsonLine(found) : toJsonText(found));
    }
  }
}

async function lookUp(
  cli: CliContext,
  client: VarveClient,
  name: string,
  { type, platform = "", pull }: InspectFlags,
): Promise<object> {
  const options = { signal: cli.signal };
  const view = async () => describeView((await client.inspectView({ name }, options)).view);
  const request = { reference: name, platform, pull, access: registryAccess(cli, {}) };
  const image = async () => describeImage(await client.inspectImage(request, options));
  const snapshot = async () =>
    describeSnapshot((await client.inspectSnapshot({ chainId: name }, options)).snapshot);
  if (type === "snapshot") return snapshot();
  if (type === "view") return view();
  if (type === "image") return image();
  const asView = await unlessMissing(view());
  if (asView !== undefined) return asView;
  // With a registry to ask, its answer is the one that counts.
  const asImage = pull === "never" ? await unlessMissing(image()) : await image();
  if (asImage !== undefined) return asImage;
  const asSnapshot = /^sha256:/.test(name) ? await unlessMissing(snapshot()) : undefined;
  if (asSnapshot !== undefined) return asSnapshot;
  throw new NotFoundError(`inspect ${name}: no such image or view`);
}

/** The result, or undefined when the name means nothing (or cannot mean anything) there. */
async function unlessMissing<T>(lookup: Promise<T>): Promise<T | undefined> {
  try {
    return await lookup;
  } catch (error) {
    // An image reference may be no valid view name, and a path is no reference.
    const isMissing = error instanceof BaseError && MISSING.has(error.code);
    if (isMissing) return undefined;
    throw error;
  }
}

const MISSING = new Set<string>(["NOT_FOUND", "INVALID_ARGUMENT"]);
