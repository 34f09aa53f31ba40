/** Who keeps a mount busy. */

import fs from "node:fs/promises";

/** A process that uses a mount. */
export interface MountUser {
  readonly pid: number;
  readonly command: string;
}

// Enough to act on; a busy build has hundreds.
const MAX_USERS = 5;

/**
 * Up to five processes with a working directory, root, executable or open file below `target`.
 * Reads only links in /proc, so it works on a mount whose server is gone. Best effort.
 */
export async function findMountUsers(target: string): Promise<MountUser[]> {
  const users: MountUser[] = [];
  for (const entry of await fs.readdir("/proc")) {
    if (!/^[0-9]+$/.test(entry)) continue;
    if (!(await uses(entry, target))) continue;
    const command = await fs.readFile(`/proc/${entry}/comm`, "utf8").catch(() => "?");
    users.push({ pid: Number(entry), command: command.trim() });
    if (users.length === MAX_USERS) break;
  }
  return users;
}

async function uses(pid: string, target: string): Promise<boolean> {
  const isInside = (path: string) => path === target || path.startsWith(`${target}/`);
  for (const name of ["cwd", "root", "exe"]) {
    if (isInside(await readLink(`/proc/${pid}/${name}`))) return true;
  }
  const descriptors = await fs.readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const descriptor of descriptors) {
    if (isInside(await readLink(`/proc/${pid}/fd/${descriptor}`))) return true;
  }
  return false;
}

function readLink(path: string): Promise<string> {
  return fs.readlink(path).catch(() => "");
}
