/** The daemon that is meant: whether it runs, and is of this version. */

import { isListening } from "../client/autostart.js";
import { VarveClient } from "../client/client.js";
import { packageVersion } from "../daemon/machine.js";
import { type Finding, finding, type Verdict } from "./finding.js";
import type { Surroundings } from "./surroundings.js";

const AREA = "Daemon";

/** All of them. Starts no daemon. */
export async function checkDaemon({ config }: Surroundings): Promise<Finding[]> {
  return [finding(AREA, "daemon", await running(config.socket, packageVersion()))];
}

async function running(socket: string, version: string): Promise<Verdict> {
  if (!(await isListening(socket))) {
    return {
      status: "note",
      found: `none at ${socket}; the first command that needs one starts it`,
    };
  }
  const client = VarveClient.connect({ socket });
  try {
    const daemon = await client.version();
    if (daemon.version === version) return { status: "ok", found: `${version} at ${socket}` };
    return {
      status: "limited",
      found: `${daemon.version} at ${socket}; this command is ${version}`,
      cost: "what is new in one may be missing in the other",
      remedy: "varve daemon stop, and start it again",
    };
  } catch (error) {
    return {
      status: "failed",
      found: (error as Error).message,
      cost: "commands that need the daemon fail",
      remedy: "look at its log (daemon.log in the state directory, or journalctl -u varve)",
    };
  } finally {
    client.close();
  }
}
