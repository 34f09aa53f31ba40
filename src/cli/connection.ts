/** Reaching the daemon that the global options mean. */

import { connect } from "node:net";
import path from "node:path";
import type { VarveClient } from "../client/client.js";
import { resolveSocket } from "../client/endpoint.js";
import { PermissionDeniedError, UnavailableError } from "../system/errors.js";
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
 * @throws PermissionDeniedError one that belongs to somebody else
 */
export async function connectToDaemon(
  globals: GlobalOptions,
  env: CliIo["env"],
): Promise<VarveClient> {
  const { socket, client } = await connectIfRunning(globals, env);
  if (client !== undefined) return client;
  if (!mayAutostart(globals, env)) {
    throw notRunning(socket, "start it with `varve daemon`, or drop --no-autostart");
  }
  const { ensureDaemon } = await import("../client/autostart.js");
  await ensureDaemon({
    socket,
    root: absolute(globals.root),
    state: absolute(globals.state),
    config: absolute(globals.config),
  });
  return openClient(socket);
}

/**
 * The client of a running daemon, or undefined when none runs; never starts one.
 *
 * @throws PermissionDeniedError the daemon belongs to somebody else
 */
export async function connectIfRunning(
  globals: GlobalOptions,
  env: CliIo["env"],
): Promise<{ socket: string; client: VarveClient | undefined }> {
  const socket = await socketOf(globals, env);
  const client = (await isAnswering(socket)) ? await openClient(socket) : undefined;
  return { socket, client };
}

// Loaded when there is somebody to talk to: HTTP/2 and the messages are most of the start-up time.
async function openClient(socket: string): Promise<VarveClient> {
  const { VarveClient } = await import("../client/client.js");
  return VarveClient.connect({ socket });
}

/** True when a daemon accepts connections; false when there is none. */
function isAnswering(socket: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect({ path: socket });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      const isForbidden = error.code === "EACCES" || error.code === "EPERM";
      if (!isForbidden) resolve(false);
      else {
        reject(
          new PermissionDeniedError(
            `connect to ${socket}: permission denied; only the user who runs the daemon may use it`,
            { cause: error },
          ),
        );
      }
    });
  });
}

/** The error of a command that needs a daemon where none runs. */
export function notRunning(socket: string, remedy: string): UnavailableError {
  return new UnavailableError(`daemon not running at ${socket}: ${remedy}`);
}

// The daemon runs in another directory: what it gets must not depend on ours.
function absolute(given: string | undefined): string | undefined {
  return given === undefined ? undefined : path.resolve(given);
}
