/** `varve logout` */

import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { registryAccess } from "../registry-access.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("[registry]", "Host name of the registry, with a port (default: Docker Hub)")
    .examples([["varve logout registry.example", "Forget its credentials"]])
    .action((registry: string | undefined) => logout(cli, registry ?? ""));
}

async function logout(cli: CliContext, registry: string): Promise<void> {
  const client = await cli.connect();
  const { removedFrom } = await client.logout({ registry, access: registryAccess(cli, {}) });
  const name = registry === "" ? "Docker Hub" : registry;
  if (removedFrom.length === 0) cli.print(`Not logged in to ${name}`);
  for (const place of removedFrom) cli.print(`Removed the credentials of ${name} from ${place}`);
}
