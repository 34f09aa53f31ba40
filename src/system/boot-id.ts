/** Which run of the machine this is. */

import { readFileSync } from "node:fs";

/** Another one each time the machine starts. @see random(4) */
export const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
