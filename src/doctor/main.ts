/** All that `varve doctor` looks at. The command line loads this file by its path: no bundle holds it. */

import { type ConfigFlags, loadConfig } from "../daemon/config.js";
import type { Environment } from "../daemon/default-paths.js";
import { isPrivileged } from "../daemon/machine.js";
import { checkContainerd } from "./containerd-checks.js";
import { checkDaemon } from "./daemon-checks.js";
import type { Finding } from "./finding.js";
import { checkMounting } from "./mount-checks.js";
import { checkPrograms } from "./program-checks.js";
import { checkStore } from "./store-checks.js";

/**
 * Looks at this machine. Leaves nothing behind; makes one mount and removes it.
 *
 * @throws InvalidArgumentError, NotFoundError the configuration is wrong
 */
export async function examine(flags: ConfigFlags, environment: Environment): Promise<Finding[]> {
  const config = loadConfig(flags, environment);
  const surroundings = { config, privileged: isPrivileged(), etc: "/etc" };
  return [
    ...(await checkMounting(surroundings)),
    ...checkPrograms(),
    ...(await checkStore(surroundings)),
    ...(await checkDaemon(surroundings)),
    ...(await checkContainerd(surroundings)),
  ];
}
