/** Groups of this machine, which Node knows by number only. */

import { readFileSync } from "node:fs";
import { NotFoundError } from "../system/errors.js";

const MAX_GID = 2 ** 32 - 2;

/**
 * The ID of a group, given by name or as a number. Names are those of /etc/group: of directory services only
 * numbers are understood.
 *
 * @param file for tests
 * @throws NotFoundError
 */
export function groupId(group: string, file = "/etc/group"): number {
  if (/^\d+$/.test(group) && Number(group) <= MAX_GID) return Number(group);
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const [name, , id] = line.split(":");
    if (name === group && id !== undefined && /^\d+$/.test(id)) return Number(id);
  }
  throw new NotFoundError(
    `--socket-group ${group}: ${file} has no such group; make it with: groupadd --system ${group}`,
  );
}
