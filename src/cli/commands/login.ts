/** `varve login` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { askPerson } from "../prompt.js";
import { type RegistryFlags, registryAccess, registryOptions } from "../registry-access.js";
import { UsageError } from "../usage-error.js";

interface LoginFlags extends RegistryFlags {
  readonly username?: string;
  readonly password?: string;
  readonly passwordStdin?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  registryOptions(command)
    .argument("[registry]", "Host name of the registry, with a port (default: Docker Hub)")
    .option("-u, --username <name>", "User name")
    .option("-p, --password <password>", "Password; others on this machine may see it")
    .option("--password-stdin", "Read the password from standard input")
    .examples(
      [
        ["varve login registry.example", "Asks for name and password"],
        ["varve login -u me --password-stdin registry.example < secret", "For scripts"],
      ],
      "Credentials are tried, then kept where docker and podman look, too: in the file that " +
        "REGISTRY_AUTH_FILE names, else in config.json of DOCKER_CONFIG or ~/.docker, or by the " +
        "credential helper that is configured there.",
    )
    .action((registry: string | undefined, flags: LoginFlags) => login(cli, registry, flags));
}

async function login(
  cli: CliContext,
  registry: string | undefined,
  flags: LoginFlags,
): Promise<void> {
  if (flags.passwordStdin === true && flags.password !== undefined) {
    throw new UsageError("--password and --password-stdin exclude each other");
  }
  if (flags.passwordStdin === true && flags.username === undefined) {
    throw new UsageError("--password-stdin needs --username");
  }
  const username = flags.username ?? (await askPerson(cli, "Username: ", false));
  const password = flags.password ?? (await passwordOf(cli, flags));
  if (username === "" || password === "") {
    throw new UsageError("login needs a user name and a password");
  }
  const access = { ...registryAccess(cli, flags), username, password };
  const client = await cli.connect();
  const { keptIn } = await client.login({ registry: registry ?? "", access });
  cli.print("Login Succeeded");
  cli.warn(`varve: the credentials are kept in ${keptIn}`);
}

async function passwordOf(cli: CliContext, flags: LoginFlags): Promise<string> {
  if (flags.passwordStdin !== true) return askPerson(cli, "Password: ", true);
  const chunks: Uint8Array[] = [];
  for await (const chunk of cli.stdin) chunks.push(chunk);
  // The line end of `echo` is not part of the password.
  return Buffer.concat(chunks)
    .toString("utf8")
    .replace(/\r?\n$/, "");
}
