/** Which daemon's socket a command means. */

import { existsSync } from "node:fs";
import path from "node:path";
import {
  defaultConfigPath,
  defaultState,
  type Environment,
  socketIn,
} from "../daemon/default-paths.js";

/** Flags that decide it; undefined ones were not given. */
export interface EndpointFlags {
  readonly socket?: string | undefined;
  readonly state?: string | undefined;
  readonly config?: string | undefined;
}

/**
 * The absolute path of the socket: flags, then VARVE_SOCKET and VARVE_STATE, then the configuration
 * file, then the default. Reads (and loads the parser for) a file only when one is there and could
 * matter.
 *
 * @throws InvalidArgumentError a bad configuration file
 * @throws NotFoundError the named configuration file is missing
 */
export async function resolveSocket(
  flags: EndpointFlags = {},
  environment: Environment = process.env,
): Promise<string> {
  const socket = flags.socket ?? (environment.VARVE_SOCKET || undefined);
  if (socket !== undefined) return path.resolve(socket);
  const named = flags.config ?? (environment.VARVE_CONFIG || undefined);
  if (named !== undefined || existsSync(defaultConfigPath(environment))) {
    const { loadConfig } = await import("../daemon/config.js");
    return loadConfig({ config: flags.config, state: flags.state }, environment).socket;
  }
  const state = flags.state ?? (environment.VARVE_STATE || undefined);
  return socketIn(path.resolve(state ?? defaultState(environment)));
}
