/** The bytes of a file in a layer, for a person to look at. */

import { openBeneath } from "../overlay/backing.js";
import { sys } from "../system/addon.js";
import { type ByteString, display, toBytes } from "../system/bytes.js";
import { AT_FDCWD, O_DIRECTORY, O_NONBLOCK, O_PATH, O_RDONLY } from "../system/constants.js";
import { type Entry, KIND } from "./merged-tree.js";

/** More of a file is not shown. */
const MAX_TEXT_BYTES = 1 << 20;
const MAX_HEX_BYTES = 4096;
const HEX_COLUMNS = 16;

/** What is shown of a file. */
export interface FileContent {
  readonly form: "text" | "hex" | "target" | "none";
  readonly text: string;
  /** More is there than is shown. */
  readonly isCut: boolean;
}

/**
 * Reads `path` in the first of `directories` that has it. Never leaves them: a view's own programs may
 * exchange a directory for a link at any moment.
 */
export function readContent(
  directories: readonly string[],
  path: ByteString,
  entry: Entry,
): FileContent {
  if (entry.target !== undefined) {
    return { form: "target", text: display(entry.target), isCut: false };
  }
  if (entry.kind !== KIND.file) return { form: "none", text: "", isCut: false };
  for (const directory of directories) {
    const bytes = readBeneath(directory, path, MAX_TEXT_BYTES + 1);
    if (bytes !== undefined) return presentable(bytes);
  }
  return { form: "none", text: "", isCut: false };
}

/** Up to `limit` bytes of a regular file, or undefined where there is none. */
export function readBeneath(
  directory: string,
  path: ByteString,
  limit: number,
): Buffer | undefined {
  const base = sys.openat(AT_FDCWD, toBytes(directory), O_PATH | O_DIRECTORY, 0);
  if (base < 0) return undefined;
  // Not to wait for a fifo's other end.
  const fd = openBeneath(base, path, O_RDONLY | O_NONBLOCK);
  sys.close(base);
  if (fd < 0) return undefined;
  try {
    return readUpTo(fd, limit);
  } finally {
    sys.close(fd);
  }
}

function readUpTo(fd: number, limit: number): Buffer | undefined {
  const chunks: Buffer[] = [];
  let length = 0;
  while (length < limit) {
    const chunk = Buffer.allocUnsafe(Math.min(limit - length, 1 << 18));
    const count = sys.pread(fd, chunk, 0, chunk.length, length);
    if (count < 0) return undefined;
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    length += count;
  }
  return Buffer.concat(chunks);
}

function presentable(bytes: Buffer): FileContent {
  const isCut = bytes.length > MAX_TEXT_BYTES;
  const shown = bytes.subarray(0, MAX_TEXT_BYTES);
  // As grep and git tell them apart.
  if (!shown.subarray(0, 8000).includes(0)) {
    return { form: "text", text: shown.toString("utf8"), isCut };
  }
  const head = shown.subarray(0, MAX_HEX_BYTES);
  return { form: "hex", text: hexDump(head), isCut: bytes.length > MAX_HEX_BYTES };
}

function hexDump(bytes: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += HEX_COLUMNS) {
    const row = bytes.subarray(at, at + HEX_COLUMNS);
    const hex = row
      .toString("hex")
      .replace(/../g, "$& ")
      .padEnd(3 * HEX_COLUMNS);
    const text = row.toString("latin1").replace(/[^\x20-\x7e]/g, ".");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${hex} ${text}`);
  }
  return lines.join("\n");
}
