/** What the checks look at; a test gives its own. */

import { readFileSync } from "node:fs";
import type { DaemonConfig } from "../daemon/config.js";

/** The machine, and the varve that is meant. */
export interface Surroundings {
  readonly config: DaemonConfig;
  /** mount(2) and trusted.* attributes work; see `isPrivileged`. */
  readonly privileged: boolean;
  /** Where the system keeps its configuration: /etc. */
  readonly etc: string;
}

/** A file of the machine; undefined when it cannot be read. */
export function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
