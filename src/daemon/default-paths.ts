/**
 * Where things are when nobody says otherwise. Without dependencies: the command line needs the
 * socket's path before it loads anything else.
 */

import os from "node:os";
import path from "node:path";

/** Environment variables, as `process.env` has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

function home(environment: Environment): string {
  return environment.HOME || os.homedir();
}

/**
 * The root directory: /var/lib/varve, or below the user's data directory when not root.
 *
 * @see XDG Base Directory Specification
 */
export function defaultRoot(environment: Environment): string {
  if (isRoot()) return "/var/lib/varve";
  const data = environment.XDG_DATA_HOME || path.join(home(environment), ".local/share");
  return path.join(data, "varve");
}

/** The state directory: /run/varve, or below the user's runtime directory when not root. */
export function defaultState(environment: Environment): string {
  if (isRoot()) return "/run/varve";
  const runtime = environment.XDG_RUNTIME_DIR;
  return runtime ? path.join(runtime, "varve") : path.join(defaultRoot(environment), "run");
}

/** The configuration file that is read when it exists. */
export function defaultConfigPath(environment: Environment): string {
  if (isRoot()) return "/etc/varve/config.toml";
  const config = environment.XDG_CONFIG_HOME || path.join(home(environment), ".config");
  return path.join(config, "varve/config.toml");
}

/** The socket of a daemon with this state directory. */
export function socketIn(state: string): string {
  return path.join(state, "varve.sock");
}
