/** The kernel's list of mounts in this process's mount namespace. */

import { readFileSync } from "node:fs";

/** One mount, as far as varve cares. */
export interface MountEntry {
  readonly mountPoint: string;
  /** "fuse.varve" */
  readonly type: string;
  readonly source: string;
}

/** Space, tab, newline and backslash are written as \ooo. */
function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/**
 * Parses /proc/self/mountinfo.
 *
 * @see proc_pid_mountinfo(5): optional fields end with a lone "-"
 */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    const separator = fields.indexOf("-", 6);
    const mountPoint = fields[4];
    const type = fields[separator + 1];
    const source = fields[separator + 2];
    if (separator === -1 || mountPoint === undefined || type === undefined) continue;
    entries.push({
      mountPoint: unescapeField(mountPoint),
      type,
      source: unescapeField(source ?? ""),
    });
  }
  return entries;
}

/** The mounts now, in the order in which they were made. */
export function readMounts(): MountEntry[] {
  return parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
}
