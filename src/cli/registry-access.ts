/** What commands that talk to a registry have in common: their options and the caller's means. */

import type { VarveCommand } from "./command.js";
import type { CliContext } from "./context.js";
import { UsageError } from "./usage-error.js";

/** The shared options, as commander gives them. */
export interface RegistryFlags {
  readonly creds?: string;
  readonly plainHttp?: boolean;
  readonly tlsVerify?: string | boolean;
}

/**
 * What decides where credentials are, how they are read, and by which way a registry is reached. The
 * daemon may have been started by another shell: the caller's count.
 */
const VARIABLES = [
  "HOME",
  "PATH",
  "DOCKER_CONFIG",
  "REGISTRY_AUTH_FILE",
  "XDG_RUNTIME_DIR",
  "VARVE_HOSTS_DIR",
  "CONTAINERS_REGISTRIES_CONF",
  "SSL_CERT_FILE",
  ...["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"].flatMap((name) => [
    name,
    name.toLowerCase(),
  ]),
];

/** Adds the options that every command has which talks to a registry. */
export function registryOptions(command: VarveCommand): VarveCommand {
  return command
    .option("--plain-http", "Speak http instead of https")
    .option("--tls-verify [bool]", "Check certificates; false also accepts plain http");
}

/**
 * The caller's means for a request.
 *
 * @throws UsageError malformed options
 */
export function registryAccess(cli: CliContext, flags: RegistryFlags) {
  const environment = Object.fromEntries(VARIABLES.map((name) => [name, cli.env[name] ?? ""]));
  return {
    ...splitCredentials(flags.creds),
    plainHttp: flags.plainHttp === true,
    skipTlsVerify: isFalse(flags.tlsVerify),
    environment,
  };
}

function isFalse(value: string | boolean | undefined): boolean {
  if (value === undefined || value === true || value === "true" || value === "1") return false;
  if (value === false || value === "false" || value === "0") return true;
  throw new UsageError(`--tls-verify ${value}: want true or false`);
}

function splitCredentials(text: string | undefined): { username: string; password: string } {
  if (text === undefined) return { username: "", password: "" };
  const colon = text.indexOf(":");
  if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  throw new UsageError("--creds: want USER:PASSWORD");
}
