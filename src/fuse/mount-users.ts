/**
 * Who uses a mounted file system, in whichever mount namespace. A namespace that is made while the
 * mount is there (unshare(1), a container, a service with a private /tmp) has a copy of it, and the
 * connection lives until the last copy is gone; that nobody uses most copies is not for the kernel to know.
 *
 * Reads /proc only and sends no request to the file system, so it works where its server is gone, or
 * is the thread that asks. Best effort: processes that may not be looked at are not seen.
 */

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import fs from "node:fs/promises";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { O_PATH } from "../system/constants.js";
import { FailedPreconditionError } from "../system/errors.js";

/** A process that uses a mount. */
export interface MountUser {
  readonly pid: number;
  readonly command: string;
}

/** A mount namespace that has a file system mounted. */
export interface MountPlace {
  /** Processes in it. */
  readonly pids: readonly string[];
  /** Of the mounts, as fdinfo has them. */
  readonly mountIds: ReadonlySet<string>;
}

// Enough to act on; a busy build has hundreds.
const MAX_USERS = 5;

/**
 * The namespaces in which the file system with this device number ("major:minor") is mounted.
 *
 * @param where "elsewhere" leaves out the namespace of this process
 */
export function findMountPlaces(device: string, where: "anywhere" | "elsewhere"): MountPlace[] {
  const places: MountPlace[] = [];
  for (const pids of namespaces(where).values()) {
    const mountIds = mountIdsOf(pids, device);
    if (mountIds.size > 0) places.push({ pids, mountIds });
  }
  return places;
}

/** The processes of each mount namespace. */
function namespaces(where: "anywhere" | "elsewhere"): Map<string, string[]> {
  const own = namespaceOf("self");
  const found = new Map<string, string[]>();
  for (const pid of readdirSync("/proc")) {
    if (!/^[0-9]+$/.test(pid)) continue;
    const namespace = namespaceOf(pid);
    if (namespace === undefined || (where === "elsewhere" && namespace === own)) continue;
    const pids = found.get(namespace);
    if (pids === undefined) found.set(namespace, [pid]);
    else pids.push(pid);
  }
  return found;
}

function namespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined;
  }
}

/** The mounts of a device that these processes, all of one namespace, see. @see proc_pid_mountinfo(5) */
function mountIdsOf(pids: readonly string[], device: string): Set<string> {
  for (const pid of pids) {
    try {
      const lines = readFileSync(`/proc/${pid}/mountinfo`, "latin1").split("\n");
      const ours = lines.map((line) => line.split(" ")).filter((fields) => fields[2] === device);
      return new Set(ours.map(([mountId = ""]) => mountId));
    } catch {
      // It has ended; the next one is in the same namespace.
    }
  }
  return new Set();
}

/** Up to five processes with a working directory, root, executable or open file on one of these mounts. */
export async function findMountUsers(places: readonly MountPlace[]): Promise<MountUser[]> {
  const users: MountUser[] = [];
  for (const { pids, mountIds } of places) {
    for (const pid of pids) {
      if (!(await uses(pid, mountIds))) continue;
      const command = await fs.readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
      users.push({ pid: Number(pid), command: command.trim() });
      if (users.length === MAX_USERS) return users;
    }
  }
  return users;
}

async function uses(pid: string, mountIds: ReadonlySet<string>): Promise<boolean> {
  if (["cwd", "root", "exe"].some((name) => mountIds.has(mountIdOf(`/proc/${pid}/${name}`)))) {
    return true;
  }
  const directory = `/proc/${pid}/fdinfo`;
  for (const descriptor of await fs.readdir(directory).catch(() => [])) {
    const text = await fs.readFile(`${directory}/${descriptor}`, "latin1").catch(() => "");
    if (mountIds.has(mountIdIn(text))) return true;
  }
  return false;
}

/** The ID of the mount on which a path is; "" when it is gone. */
function mountIdOf(path: string): string {
  // Opened in no more than name: neither a look-up nor the attributes are asked for.
  const fd = sys.open(toBytes(path), O_PATH, 0);
  if (fd < 0) return "";
  try {
    return mountIdIn(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
  } finally {
    sys.close(fd);
  }
}

function mountIdIn(fdinfo: string): string {
  return /^mnt_id:\s*([0-9]+)$/m.exec(fdinfo)?.[1] ?? "";
}

/** That a mount cannot be taken away, since it is in use; `details.users` says by whom, as far as it can be seen. */
export function mountInUse(target: string, users: readonly MountUser[]): FailedPreconditionError {
  const who =
    users.length === 0
      ? `end the processes and remove the mounts inside it (fuser -vm ${target} lists them)`
      : `stop ${listUsers(users)}`;
  return new FailedPreconditionError(
    `unmount ${target}: it is in use; ${who}, or unmount with force`,
    { details: { users } },
  );
}

/** "sh (process 12), cat (process 13)" */
export function listUsers(users: readonly MountUser[]): string {
  return users.map(({ pid, command }) => `${command} (process ${pid})`).join(", ");
}
