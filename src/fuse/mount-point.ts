/** Making and removing the mount behind a session, with errors that say what to do about them. */

import { execFile } from "node:child_process";
import { existsSync, lstatSync, readFileSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fuse, sys } from "../system/addon.js";
import { type ByteString, toBytes } from "../system/bytes.js";
import {
  MNT_DETACH,
  MNT_FORCE,
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_RDONLY,
  MS_SYNCHRONOUS,
  UMOUNT_NOFOLLOW,
} from "../system/constants.js";
import {
  EACCES,
  EBUSY,
  EINVAL,
  ENODEV,
  ENOENT,
  ENXIO,
  EPERM,
  syscallError,
} from "../system/errno.js";
import {
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  UnsupportedError,
} from "../system/errors.js";
import type { FuseChannel } from "../system/native.js";
import { findMountPlaces, findMountUsers, type MountUser, mountInUse } from "./mount-users.js";

/** What to mount where. */
export interface MountRequest {
  /** An existing directory, absolute. */
  target: string;
  /** First column of /proc/mounts. */
  source: string;
  /** The part after "fuse." in the type column: letters, digits, ".", "_", "-". */
  subtype: string;
  readOnly: boolean;
  /** mount(2) as root; otherwise fusermount3. */
  privileged: boolean;
  /** MS_NOSUID, MS_NODEV and the like. */
  flags?: number;
  /** More options for mount(2), such as SELinux contexts. */
  kernelOptions?: readonly string[];
}

/** One line of mountinfo, as far as it matters here. */
export interface MountRecord {
  /** "major:minor" of the mounted file system. */
  readonly device: string;
  readonly type: string;
  /** First column of /proc/mounts; what the mounter said. */
  readonly source: string;
}

/**
 * The topmost mount on exactly `target`, without touching the mount itself: a path lookup in it could
 * wait for the very thread that asks.
 *
 * @see proc_pid_mountinfo(5)
 */
export function findMount(target: string): MountRecord | undefined {
  return searchMounts(readFileSync("/proc/self/mountinfo", "latin1"), toBytes(target));
}

/** `findMount` over the text of a mountinfo file. */
export function searchMounts(mountinfo: string, target: ByteString): MountRecord | undefined {
  let found: MountRecord | undefined;
  for (const line of mountinfo.split("\n")) {
    const fields = line.split(" ");
    const [, , device, , mountPoint] = fields;
    if (device === undefined || mountPoint === undefined) continue;
    if (unescapeOctal(mountPoint) !== target) continue;
    const [type = "", source = ""] = fields.slice(fields.indexOf("-", 6) + 1);
    found = { device, type, source };
  }
  return found;
}

/** mountinfo writes space, tab, newline and backslash as \040 and so on. */
function unescapeOctal(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/**
 * Mounts and returns the connection, on which INIT waits.
 *
 * @throws NotFoundError no such target
 * @throws InvalidArgumentError the target is no directory, or the subtype malformed
 * @throws FailedPreconditionError a dead or living FUSE mount is on the target, or fusermount3 fails
 * @throws PermissionDeniedError mount(2) or fusermount3 refuses
 * @throws UnsupportedError no FUSE in the kernel, or no fusermount3
 * @throws SyscallError anything else
 */
export function mountFuse(request: MountRequest): FuseChannel {
  if (!isAbsolute(request.target)) {
    throw new InvalidArgumentError(`mount ${request.target}: the target must be an absolute path`);
  }
  if (!/^[\w.-]+$/.test(request.subtype)) {
    throw new InvalidArgumentError(
      `mount ${request.target}: bad FUSE subtype "${request.subtype}"`,
    );
  }
  checkTarget(request.target, request.subtype);
  return request.privileged ? mountAsRoot(request) : mountAsUser(request);
}

function checkTarget(target: string, subtype: string): void {
  if (findMount(target)?.type === `fuse.${subtype}`) {
    throw new FailedPreconditionError(
      `mount ${target}: a ${subtype} mount is there already, perhaps of a daemon that died; ` +
        `remove it with: umount -l ${target}`,
    );
  }
  try {
    if (!lstatSync(target).isDirectory()) {
      throw new InvalidArgumentError(`mount ${target}: not a directory`);
    }
  } catch (error) {
    throw targetError(target, error);
  }
}

function targetError(target: string, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return new NotFoundError(`mount ${target}: no such directory`);
  if (code === "ENOTCONN") {
    return new FailedPreconditionError(
      `mount ${target}: a FUSE mount whose daemon died is there; remove it with: umount -l ${target}`,
      { cause: error },
    );
  }
  if (code === "EACCES") {
    return new PermissionDeniedError(`mount ${target}: permission denied`, { cause: error });
  }
  return error;
}

function mountAsRoot(request: MountRequest): FuseChannel {
  const { target } = request;
  const options = ["default_permissions", "allow_other", `subtype=${request.subtype}`];
  const result = fuse.mountDirect(
    toBytes(target),
    toBytes(request.source),
    (request.flags ?? 0) | (request.readOnly ? MS_RDONLY : 0),
    toBytes([...options, ...(request.kernelOptions ?? [])].join(",")),
  );
  if (typeof result !== "number") return result;
  const cause = syscallError(result, "mount", target);
  switch (-result) {
    case EPERM:
    case EACCES:
      throw new PermissionDeniedError(
        `mount ${target}: not permitted to use mount(2); run as root, or unprivileged with fuse3 installed`,
        { cause },
      );
    case ENODEV:
    case ENXIO:
      throw noFuse(target, cause);
    case ENOENT:
      if (!existsSync("/dev/fuse")) throw noFuse(target, cause);
      throw cause;
    default:
      throw cause;
  }
}

function noFuse(target: string, cause: Error): UnsupportedError {
  return new UnsupportedError(
    `mount ${target}: no usable /dev/fuse; load the kernel module with: modprobe fuse ` +
      "(in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
    { cause },
  );
}

/** What fusermount3 calls the flags that it lets users set. */
const HELPER_FLAGS: readonly (readonly [number, string])[] = [
  [MS_NOEXEC, "noexec"],
  [MS_NOATIME, "noatime"],
  [MS_NODIRATIME, "nodiratime"],
  [MS_SYNCHRONOUS, "sync"],
  [MS_DIRSYNC, "dirsync"],
];

function mountAsUser(request: MountRequest): FuseChannel {
  const { target } = request;
  const options = [
    request.readOnly ? "ro" : "rw",
    `subtype=${request.subtype}`,
    `fsname=${request.source.replace(/[\\,]/g, "\\$&")}`,
    "default_permissions",
    ...HELPER_FLAGS.filter(([flag]) => ((request.flags ?? 0) & flag) !== 0).map(([, name]) => name),
    ...(request.kernelOptions ?? []),
  ];
  // Refused unless the administrator allows it; without it only the mounting user sees the mount.
  if (isAllowOtherPermitted()) options.push("allow_other");
  const result = fuse.mountThroughHelper(toBytes(target), toBytes(options.join(",")));
  if (typeof result === "object") return result;
  if (typeof result === "string") throw helperError(target, result.trim());
  const cause = syscallError(result, "fusermount3", target);
  if (result === -ENOENT) {
    throw new UnsupportedError(
      `mount ${target}: mounting without root needs fusermount3; install it with: apt-get install fuse3`,
      { cause },
    );
  }
  throw cause;
}

function isAllowOtherPermitted(): boolean {
  try {
    return /^\s*user_allow_other\s*$/m.test(readFileSync("/etc/fuse.conf", "utf8"));
  } catch {
    return false;
  }
}

function helperError(target: string, text: string): Error {
  const message = `mount ${target}: ${text}`;
  if (/open \/dev\/fuse: Permission denied/.test(text)) {
    return new PermissionDeniedError(`${message}; let users open it with: chmod 666 /dev/fuse`);
  }
  if (/not permitted|[Pp]ermission denied|no write access/.test(text)) {
    return new PermissionDeniedError(message);
  }
  if (/device not found/.test(text)) return noFuse(target, new Error(text));
  return new FailedPreconditionError(message);
}

/**
 * Takes the mount off `target`, without blocking this thread: what is dirty is written back first,
 * through the session that serves it. Resolves also when nothing is mounted there any more.
 *
 * @param force detaches it even while it is in use, and aborts the connection
 * @throws FailedPreconditionError in use; `details.users` names the processes
 * @throws PermissionDeniedError not allowed to
 */
export async function unmountFuse(
  target: string,
  force: boolean,
  privileged: boolean,
): Promise<void> {
  if (!privileged) return unmountAsUser(target, force);
  // MNT_FORCE aborts the connection first, so that nothing can wait for a reply any more.
  const flags = UMOUNT_NOFOLLOW | (force ? MNT_DETACH | MNT_FORCE : 0);
  const result = await unmountOnceIdle(target, flags);
  if (result >= 0 || result === -EINVAL || result === -ENOENT) return;
  const cause = syscallError(result, "umount", target);
  if (result === -EPERM) {
    throw new PermissionDeniedError(`unmount ${target}: not permitted`, { cause });
  }
  throw cause;
}

/** How often, and after which pauses, an unmount is tried again that fails though nobody is seen to use the mount. */
const BUSY_RETRIES = 3;
const BUSY_PAUSE_MS = 50;

/** umount2(2), for which everybody who looks up a path in the mount at this moment (df, a file manager) is a user. */
async function unmountOnceIdle(target: string, flags: number): Promise<number> {
  for (let retries = 0; ; retries++) {
    const result = await fuse.umountAsync(toBytes(target), flags);
    if (result !== -EBUSY) return result;
    const users = await findUsers(target);
    if (users.length > 0 || retries === BUSY_RETRIES) throw mountInUse(target, users);
    await delay(BUSY_PAUSE_MS);
  }
}

/** How long `flushMount` waits: a file system that no longer answers must not stop a forced unmount. */
const FLUSH_GRACE_MS = 5000;

/**
 * Has the kernel write back what is dirty in shared mappings of the mount on `target`. Never blocks
 * this thread, which may be the one that serves the mount; gives up after FLUSH_GRACE_MS.
 */
export async function flushMount(target: string): Promise<void> {
  const flushed = open(target, "r").then(async (directory) => {
    try {
      await sys.syncAsync("syncfs", directory.fd);
    } finally {
      await directory.close();
    }
  });
  await Promise.race([flushed, delay(FLUSH_GRACE_MS, undefined, { ref: false })]);
}

async function findUsers(target: string): Promise<readonly MountUser[]> {
  const device = findMount(target)?.device;
  return device === undefined ? [] : findMountUsers(findMountPlaces(device, "anywhere"));
}

async function unmountAsUser(target: string, force: boolean): Promise<void> {
  const device = findMount(target)?.device;
  await runHelper(target, force ? ["-u", "-z"] : ["-u"]);
  if (force && device !== undefined) abortConnection(device);
}

/** Ends a connection as the user who mounted it: who waits for a reply gets ECONNABORTED. Needs fusectl, which systemd mounts. */
function abortConnection(device: string): void {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${device.split(":")[1]}/abort`, "1");
  } catch {
    // Then it ends when its descriptor is closed.
  }
}

function runHelper(target: string, options: readonly string[]): Promise<void> {
  const env = { ...process.env, LC_ALL: "C" };
  return new Promise((resolve, reject) => {
    execFile("fusermount3", [...options, "--", target], { env }, (error, _stdout, stderr) => {
      if (error === null || /not found in|not mounted|Invalid argument/.test(stderr)) resolve();
      else if (/busy/.test(stderr))
        findUsers(target).then((users) => reject(mountInUse(target, users)), reject);
      else
        reject(new PermissionDeniedError(`unmount ${target}: ${stderr.trim() || error.message}`));
    });
  });
}

/**
 * Lets the kernel read ahead `kib` KiB of the file system with this device number, where its default
 * is 128. Root only; false when it cannot be set.
 */
export function raiseReadAhead(device: string, kib: number): boolean {
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(kib));
    return true;
  } catch {
    return false;
  }
}

/**
 * True when the mount that `isOurs` knows is the one that `target` shows; false when nothing is mounted
 * there.
 *
 * @throws FailedPreconditionError something else is mounted over it
 */
export function isOnTop(target: string, isOurs: (mount: MountRecord) => boolean): boolean {
  const top = findMount(target);
  if (top === undefined) return false;
  if (isOurs(top)) return true;
  throw new FailedPreconditionError(
    `unmount ${target}: another file system (${top.type}) is mounted over it; unmount that first`,
  );
}
