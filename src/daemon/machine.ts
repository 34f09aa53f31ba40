/** What this program and this machine can do, and what is missing. */

import { existsSync, readFileSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION } from "../fuse/constants.js";
import { CPU_LATENCY_DEVICE } from "../fuse/wake-ups.js";
import { fastestGunzip, type Gunzipper } from "../layers/compression.js";
import type { Machine } from "../services/core.js";
import { findProgram, isWritable } from "../system/programs.js";

const CAP_SYS_ADMIN = 21n;
// statfs(2)
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  61267: "ext4",
  1481003842: "xfs",
  2435016766: "btrfs",
  16914836: "tmpfs",
  2035054128: "overlayfs",
  801189825: "zfs",
  26985: "nfs",
  1702057286: "fuse",
  4076150800: "f2fs",
};

/** Looks at the machine. `root` must exist. */
export async function examineMachine(root: string): Promise<Machine> {
  const privileged = isPrivileged();
  const gunzip = fastestGunzip();
  return {
    version: packageVersion(),
    privileged,
    decompressor: gunzip.kind === "program" ? path.basename(gunzip.path) : gunzip.kind,
    fuseProtocol: `${FUSE_KERNEL_VERSION}.${FUSE_KERNEL_MINOR_VERSION}`,
    storageFilesystem: await fileSystemOf(root),
    fallbacks: [...listFallbacks(privileged, gunzip)],
  };
}

/**
 * True when mount(2) and trusted.* attributes will work: CAP_SYS_ADMIN in the first user namespace.
 * Root of a user namespace has the capability only over that.
 */
export function isPrivileged(): boolean {
  const status = readFileSync("/proc/self/status", "utf8");
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  const uidMap = readFileSync("/proc/self/uid_map", "utf8").trim().split(/\s+/);
  const isFirstNamespace = uidMap.join(" ") === "0 0 4294967295";
  return isFirstNamespace && ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

function* listFallbacks(privileged: boolean, gunzip: Gunzipper): Generator<string> {
  if (!existsSync("/dev/fuse")) {
    yield "/dev/fuse is missing: nothing can be mounted until the fuse module is loaded";
  }
  if (!privileged) {
    yield 'not root: mounts go through fusermount3, everything in them is yours, owners are kept for commits only, and there are no devices; see "varve doctor"';
    if (existsSync("/dev/fuse") && !isWritable("/dev/fuse")) {
      yield "/dev/fuse is not open to this user: nothing can be mounted until root allows it (chmod 666 /dev/fuse)";
    }
    if (findProgram("fusermount3") === undefined)
      yield "fusermount3 is missing: nothing can be mounted; install fuse3";
  }
  if (!isWritable(CPU_LATENCY_DEVICE)) {
    yield `${CPU_LATENCY_DEVICE} is not open to this user: views are slower while the machine is idle otherwise, as sleeping CPUs have to be woken for each request`;
  }
  if (gunzip.kind === "node:zlib") {
    yield "neither ISA-L nor unpigz is there: node:zlib unpacks gzip layers, at less than half the speed (install libisal-dev and build again)";
  } else if (gunzip.kind === "program") {
    yield "varve was built without ISA-L, or it is not installed: unpigz unpacks gzip layers, at about half its speed (install libisal-dev and build again)";
  }
  if (findProgram("zstd") === undefined)
    yield "zstd is not on PATH: layers compressed with it cannot be unpacked (package zstd)";
}

/** The name of the file system that the directory is on; its number where the name is not known. */
export async function fileSystemOf(directory: string): Promise<string> {
  const { type } = await fs.statfs(directory);
  return FILE_SYSTEMS[type] ?? `0x${type.toString(16)}`;
}

/** The version in our package.json. */
export function packageVersion(): string {
  // From src/daemon and dist/daemon alike.
  const file = fileURLToPath(new URL("../../package.json", import.meta.url));
  return String((JSON.parse(readFileSync(file, "utf8")) as { version?: unknown }).version);
}
