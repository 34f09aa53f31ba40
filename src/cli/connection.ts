/** Reaching the daemon that the global options mean. */

import path from "node:path";
import { ensureDaemon, isListening } from "../client/autostart.js";
import { VarveClient } from "../client/client.js";
import { resolveSocket } from "../client/endpoint.js";
import { UnavailableError } from "../system/errors.js";
import type { CliIo, GlobalOptions } from "./context.js";

/** The socket that the options mean; see `resolveSocket`. */
export function socketOf(globals: GlobalOptions, env: CliIo["env"]): Promise<string> {
  return resolveSocket(
    { socket: globals.socket, state: globals.state, config: globals.config },
    env,
  );
}

/** False when `--no-autostart` or VARVE_NO_AUTOSTART forbids to start a daemon. */
export function mayAutostart(globals: GlobalOptions, env: CliIo["env"]): boolean {
  const forbidden = env.VARVE_NO_AUTOSTART ?? "";
  return globals.autostart && /^(|0|false|no|off)$/i.test(forbidden);
}

/**
 * A client of the running daemon, which is started first when none runs and that is allowed.
 *
 * @throws UnavailableError no daemon
 */
export async function connectToDaemon(
  globals: GlobalOptions,
  env: CliIo["env"],
): Promise<VarveClient> {
  const socket = await socketOf(globals, env);
  if (mayAutostart(globals, env)) {
    await ensureDaemon({
      socket,
      root: absolute(globals.root),
      state: absolute(globals.state),
      config: absolute(globals.config),
    });
  } else if (!(await isListening(socket))) {
    throw notRunning(socket, "start it with `varve daemon`, or drop --no-autostart");
  }
  return VarveClient.connect({ socket });
}

/** The client of a running daemon, or undefined when none runs; never starts one. */
export async function connectIfRunning(
  globals: GlobalOptions,
  env: CliIo["env"],
): Promise<{ socket: string; client: VarveClient | undefined }> {
  const socket = await socketOf(globals, env);
  const client = (await isListening(socket)) ? VarveClient.connect({ socket }) : undefined;
  return { socket, client };
}

/** The error of a command that needs a daemon where none runs. */
export function notRunning(socket: string, remedy: string): UnavailableError {
  return new UnavailableError(`daemon not running at ${socket}: ${remedy}`);
}

// The daemon runs in another directory: what it gets must not depend on ours.
function absolute(given: string | undefined): string | undefined {
  return given === undefined ? undefined : path.resolve(given);
}
