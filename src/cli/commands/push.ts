/** `varve push` */

import type { PushedImage } from "../../client/index.js";
import { BaseError } from "../../system/errors.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { splitReference } from "../image-names.js";
import { createProgress, followProgress } from "../progress.js";
import { type RegistryFlags, registryAccess, registryOptions } from "../registry-access.js";
import { UsageError } from "../usage-error.js";

interface PushFlags extends RegistryFlags {
  readonly platform?: string;
  readonly allPlatforms?: boolean;
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  registryOptions(command)
    .argument("<image>", "Name or ID of an image")
    .argument("[destination]", "Push under this name instead of the image's own")
    .option("--platform <platform>", "Push one platform of an index (os/arch[/variant])")
    .option("--all-platforms", "Push the whole index; the registry must have what is not here")
    .option("--creds <user:password>", "Instead of the credentials of varve login")
    .option("-q, --quiet", "Print nothing but the digest")
    .examples(
      [
        ["varve push registry.example:5000/team/app:2", "To the registry that the name says"],
        ["varve push app:2 registry.example/team/app:2", "Under another name"],
      ],
      "What the registry has already is not sent. An index goes whole when all of it is here; else " +
        "the manifest of this machine's platform goes in its stead.",
    )
    .action((image: string, destination: string | undefined, flags: PushFlags) =>
      push(cli, image, destination ?? "", flags),
    );
}

async function push(
  cli: CliContext,
  reference: string,
  destination: string,
  flags: PushFlags,
): Promise<void> {
  if (flags.allPlatforms === true && flags.platform !== undefined) {
    throw new UsageError("--platform and --all-platforms exclude each other");
  }
  const request = {
    reference,
    destination,
    platform: flags.platform ?? "",
    allPlatforms: flags.allPlatforms === true,
    access: registryAccess(cli, flags),
  };
  const client = await cli.connect();
  const display = createProgress(cli.stderr, flags.quiet === true, cli.env);
  let image: PushedImage | undefined;
  await followProgress(
    client.pushImage(request, { signal: cli.signal, quiet: flags.quiet === true }),
    display,
    (message) => {
      image = message.image ?? image;
    },
  );
  if (image === undefined) throw new BaseError("SYSCALL", "push: the daemon sent no image");
  if (image.notice !== "" && flags.quiet !== true) cli.warn(`varve: ${image.notice}`);
  if (flags.quiet === true) return cli.print(image.digest);
  const { tag } = splitReference(image.reference);
  const name = tag === "<none>" ? image.reference : tag;
  cli.print(`${name}: digest: ${image.digest} size: ${image.size}`);
}
