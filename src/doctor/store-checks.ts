/** Where varve keeps things: the file system of the root directory, its space, and limits on the process. */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileSystemOf } from "../daemon/machine.js";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { AT_FDCWD, S_IFCHR } from "../system/constants.js";
import { type Finding, finding, type Verdict } from "./finding.js";
import type { Surroundings } from "./surroundings.js";

const AREA = "Store";
/** Less than this is a pull away from full. */
const LITTLE_SPACE = 2e9;
const FEW_INODES = 100_000;
/** A view keeps a descriptor for each file that is in use, up to thousands of them. */
const FEW_DESCRIPTORS = 65_536;

/** All of them. */
export async function checkStore({ config, privileged }: Surroundings): Promise<Finding[]> {
  const directory = nearestExisting(config.root);
  return [
    finding(AREA, "root directory", rootDirectory(config.root, directory, privileged)),
    finding(AREA, "file system", await fileSystem(directory)),
    finding(AREA, "free space", await space(directory)),
    finding(AREA, "open files", openFiles(readFileSync("/proc/self/limits", "utf8"))),
  ];
}

function nearestExisting(directory: string): string {
  return existsSync(directory) ? directory : nearestExisting(dirname(directory));
}

/** Tries what layers need: files with the marks of overlayfs. */
function rootDirectory(root: string, directory: string, privileged: boolean): Verdict {
  let scratch: string;
  try {
    scratch = mkdtempSync(join(directory, ".varve-doctor-"));
  } catch (error) {
    return {
      status: "failed",
      found: `${directory}: ${(error as NodeJS.ErrnoException).code}`,
      cost: "images cannot be kept",
      remedy: "another --root, or other rights",
    };
  }
  try {
    const missing = [...missingMarks(scratch, privileged)];
    if (missing.length > 0) return withoutMarks(root, missing);
    return { status: "ok", found: root === directory ? root : `${root} (made at the first start)` };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function* missingMarks(scratch: string, privileged: boolean): Generator<string> {
  const file = join(scratch, "file");
  writeFileSync(file, "");
  const attribute = privileged ? "trusted.overlay.varve" : "user.overlay.varve";
  const set = sys.setxattrat(AT_FDCWD, toBytes(file), toBytes(attribute), Buffer.from("y"), 0);
  if (set < 0) yield `${attribute.replace("varve", "*")} attributes (${sys.errnoName(-set)})`;
  // Whiteouts. Everyone may make them since Linux 5.8.
  const made = sys.mknodat(AT_FDCWD, toBytes(join(scratch, "whiteout")), S_IFCHR, 0);
  if (made < 0) yield `whiteouts (${sys.errnoName(-made)})`;
}

function withoutMarks(root: string, missing: readonly string[]): Verdict {
  return {
    status: "failed",
    found: `${root} takes no ${missing.join(" and no ")}`,
    cost: "layers that remove files of layers below cannot be unpacked, nor removals in views kept",
    remedy: "a --root on ext4, xfs or btrfs (a volume, where this is a container)",
  };
}

async function fileSystem(directory: string): Promise<Verdict> {
  const found = await fileSystemOf(directory);
  switch (found) {
    case "tmpfs":
      return {
        status: "limited",
        found,
        cost: "images take memory, and are gone after a restart of the machine",
        remedy: "a --root on a disk",
      };
    case "nfs":
    case "fuse":
    case "overlayfs":
      return {
        status: "limited",
        found,
        cost: "not tested; slower, and passthrough may be refused",
        remedy: "a --root on ext4, xfs or btrfs",
      };
    default:
      return { status: "ok", found };
  }
}

async function space(directory: string): Promise<Verdict> {
  const { bavail, bsize, ffree, files } = await statfs(directory);
  const bytes = bavail * bsize;
  const found = `${(bytes / 1e9).toFixed(1)} GB`;
  const remedy =
    "varve prune, or a --root on a larger disk; daemon --gc-high keeps the disk from filling up";
  if (bytes < LITTLE_SPACE) {
    return { status: "limited", found, cost: "the next large image may not fit", remedy };
  }
  // btrfs has no number of them.
  if (files > 0 && ffree < FEW_INODES) {
    return {
      status: "limited",
      found: `${found}, ${ffree} inodes`,
      cost: "an image has tens of thousands of files",
      remedy,
    };
  }
  return { status: "ok", found };
}

/** @param limits the text of /proc/self/limits */
export function openFiles(limits: string): Verdict {
  // Node raises the soft limit to the hard one when it starts.
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? "unlimited";
  if (hard === "unlimited" || Number(hard) >= FEW_DESCRIPTORS) return { status: "ok", found: hard };
  return {
    status: "limited",
    found: hard,
    cost: "programs with many files open in views, and many views, end in EMFILE",
    remedy: `LimitNOFILE=1048576 in the unit, or ulimit -Hn 1048576 before the daemon starts`,
  };
}
