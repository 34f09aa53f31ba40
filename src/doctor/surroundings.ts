/** What the checks look at; a test gives its own. */

import type { DaemonConfig } from "../daemon/config.js";

/** The machine, and the varve that is meant. */
export interface Surroundings {
  readonly config: DaemonConfig;
  /** mount(2) and trusted.* attributes work; see `isPrivileged`. */
  readonly privileged: boolean;
  /** Where the system keeps its configuration: /etc. */
  readonly etc: string;
}
