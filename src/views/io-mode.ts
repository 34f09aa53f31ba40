/**
 * How file data gets from the disk to programs. *cached*: through the kernel's page cache of the view,
 * filled by the daemon; opening costs nothing. *passthrough*: the kernel reads and writes the files on
 * disk by itself, and asks the daemon at each open. *auto*: passthrough for views that nothing can
 * change, cached for those that are written to. docs/decisions.md has the figures behind that.
 */

import { statfsSync } from "node:fs";
import type { StackDepth } from "../fuse/negotiation.js";
import type { IoMode } from "../metadata/view-table.js";
import { InvalidArgumentError } from "../system/errors.js";

const IO_MODES: readonly IoMode[] = ["cached", "passthrough", "auto"];

/** What a mount has. */
export type IoInUse = Exclude<IoMode, "auto">;

/** OVERLAYFS_SUPER_MAGIC, FUSE_SUPER_MAGIC: what may itself be stacked on another file system. */
const STACKED: ReadonlySet<number> = new Set([0x794c7630, 0x65735546]);

/** @throws InvalidArgumentError no mode; `""` is undefined */
export function parseIoMode(text: string): IoMode | undefined {
  if (text === "") return undefined;
  const mode = IO_MODES.find((known) => known === text);
  if (mode !== undefined) return mode;
  throw new InvalidArgumentError(`mount: I/O mode "${text}": want ${IO_MODES.join(", ")}`);
}

/** What to say when passthrough was wanted and is not to be had. */
export function noPassthrough(privileged: boolean): string {
  const reason = privileged
    ? "this needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH"
    : "this needs root";
  return `no passthrough: ${reason}; file data goes through the daemon and the page cache (cached mode)`;
}

/**
 * What to ask the kernel for.
 *
 * @param directories where backing files are
 */
export function stackDepthFor(
  mode: IoMode,
  readOnly: boolean,
  directories: readonly string[],
): StackDepth {
  if (mode === "cached" || (mode === "auto" && !readOnly)) return 0;
  return directories.some((directory) => STACKED.has(statfsSync(directory).type)) ? 2 : 1;
}
