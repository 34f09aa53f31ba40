/** `varve inspect` */

import { Option } from "commander";
import type { VarveClient } from "../../client/client.js";
import { BaseError, NotFoundError } from "../../system/errors.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { forEachOperand } from "../each.js";
import { describeImage, describeView } from "../inspect-data.js";
import { toJsonLine, toJsonText } from "../json.js";
import { formatObject } from "../list-output.js";

interface InspectFlags {
  readonly format?: string;
  readonly type?: "image" | "view";
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<name...>", "Views (name, ID or mount path) and images (name or ID)")
    .option("-f, --format <format>", "json, or a Go template")
    .addOption(
      new Option("--type <type>", "Look only for images, or only for views").choices([
        "image",
        "view",
      ]),
    )
    .examples(
      [
        ["varve inspect busybox", "Everything about an image, as a JSON array"],
        ["varve inspect -f '{{.Config.Cmd}}' busybox", "One field"],
        ["varve inspect -f '{{json .Config}}' busybox", "A part as JSON"],
        ["varve inspect --type view box", "A view, though an image has the same name"],
      ],
      "A name is looked up among the views first.",
    )
    .action((names: string[], flags: InspectFlags) => inspect(cli, names, flags));
}

async function inspect(cli: CliContext, names: string[], flags: InspectFlags): Promise<void> {
  const client = await cli.connect();
  const found: object[] = [];
  try {
    await forEachOperand(cli, names, async (name) => {
      const data = await lookUp(cli, client, name, flags.type);
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
  type: InspectFlags["type"],
): Promise<object> {
  const options = { signal: cli.signal };
  const view = async () => describeView((await client.inspectView({ name }, options)).view);
  const image = async () => describeImage(await client.inspectImage({ reference: name }, options));
  if (type === "view") return view();
  if (type === "image") return image();
  const asView = await unlessMissing(view());
  if (asView !== undefined) return asView;
  const asImage = await unlessMissing(image());
  if (asImage !== undefined) return asImage;
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
