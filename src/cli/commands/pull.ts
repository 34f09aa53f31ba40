/** `varve pull` */

import { Option } from "commander";
import type { PulledImage, VarveClient } from "../../client/index.js";
import { BaseError } from "../../system/errors.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName } from "../image-names.js";
import { createProgress, followProgress, type ProgressStep } from "../progress.js";
import { type RegistryFlags, registryAccess, registryOptions } from "../registry-access.js";
import { UsageError } from "../usage-error.js";

interface PullFlags extends RegistryFlags {
  readonly platform?: string[];
  readonly allPlatforms?: boolean;
  readonly policy: string;
  readonly unpack: boolean;
  readonly quiet?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  registryOptions(command)
    .argument("<reference>", "Name of an image, with a tag or a digest")
    .option("--platform <platform>", "Pull these platforms (os/arch[/variant])", collect)
    .option("--all-platforms", "Pull every platform")
    .addOption(
      new Option("--policy <when>", "Ask the registry")
        .choices(["always", "missing", "never"])
        .default("always"),
    )
    .option("--creds <user:password>", "Instead of the credentials of varve login")
    .option("--no-unpack", "Only fetch; the first mount unpacks")
    .option("-q, --quiet", "Print nothing but the digest")
    .examples(
      [
        ["varve pull debian", "From Docker Hub"],
        ["varve pull registry.example:5000/team/app:2", "From another registry"],
        ["varve pull --platform linux/arm64 debian", "Another platform than this machine's"],
        ["varve pull --policy missing debian", "Only when it is not here"],
      ],
      "An interrupted pull keeps what it has and goes on from there the next time. Mirrors and " +
        "certificates are configured as for containerd, in /etc/containerd/certs.d/HOST/hosts.toml " +
        "(VARVE_HOSTS_DIR names another directory); the certificate directories of docker and " +
        "podman are read, too, and podman's registries.conf.",
    )
    .action((reference: string, flags: PullFlags) => pull(cli, reference, flags));
}

/** The daemon's messages; what is not about a blob goes under the name that was typed. */
async function* pullMessages(
  cli: CliContext,
  request: { readonly reference: string } & Parameters<VarveClient["pullImage"]>[0],
  quiet: boolean,
): AsyncGenerator<{ progress?: ProgressStep | undefined; image?: PulledImage | undefined }> {
  const client = await cli.connect();
  for await (const { progress, image } of client.pullImage(request, {
    signal: cli.signal,
    quiet,
  })) {
    const isBlob = progress?.id.startsWith("sha256:") !== false;
    yield { image, progress: isBlob ? progress : { ...progress, id: request.reference } };
  }
}

async function pull(cli: CliContext, reference: string, flags: PullFlags): Promise<void> {
  if (flags.allPlatforms === true && flags.platform !== undefined) {
    throw new UsageError("--platform and --all-platforms exclude each other");
  }
  const request = {
    reference,
    platforms: flags.platform ?? [],
    allPlatforms: flags.allPlatforms === true,
    policy: flags.policy,
    noUnpack: !flags.unpack,
    access: registryAccess(cli, flags),
  };
  const isQuiet = flags.quiet === true;
  const display = createProgress(cli.stderr, isQuiet, cli.env);
  // At once: connecting, and a registry's first answer, may take a while.
  display.update({ id: reference, action: "resolving", current: 0n, total: 0n });
  let image: PulledImage | undefined;
  await followProgress(pullMessages(cli, request, isQuiet), display, (message) => {
    image = message.image ?? image;
  });
  if (image === undefined) throw new BaseError("SYSCALL", "pull: the daemon sent no image");
  if (isQuiet) return cli.print(image.digest);
  const name = familiarName(image.reference);
  cli.print(`Digest: ${image.digest}`);
  cli.print(
    image.upToDate
      ? `Status: Image is up to date for ${name}`
      : `Status: Downloaded newer image for ${name}`,
  );
  cli.print(image.reference);
}
