/** `varve unpack` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { createProgress, followProgress } from "../progress.js";

interface UnpackFlags {
  readonly platform?: string;
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<image>", "Name or ID of an image")
    .option("--platform <platform>", "Platform of an index (os/arch[/variant])")
    .option("-q, --quiet", "Show no progress")
    .examples(
      [
        ["varve unpack debian", "Unpack now, so that the first mount is quick"],
        ["varve unpack --platform linux/arm64 debian", "Another platform than this machine's"],
      ],
      "Prints the chain ID of the unpacked layers. Mounting unpacks by itself what is missing.",
    )
    .action((image: string, flags: UnpackFlags) => unpack(cli, image, flags));
}

async function unpack(cli: CliContext, reference: string, flags: UnpackFlags): Promise<void> {
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  const request = { reference, platform: flags.platform ?? "" };
  let chainId = "";
  const stream = client.unpackImage(request, { signal: cli.signal, quiet: flags.quiet === true });
  await followProgress(stream, display, (message) => {
    if (message.chainId !== "") chainId = message.chainId;
  });
  cli.print(chainId);
}
