/** Writing a chain index so that it is there whole or not at all. */

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { faultPoint } from "../system/fault-points.js";
import { encodeIndex } from "./index-format.js";
import { FlatIndex } from "./index-reader.js";
import type { IndexTables } from "./index-tables.js";

/**
 * Writes finished tables to `outputPath`.tmp and renames it.
 *
 * @param isDurable the file is flushed before it is renamed; otherwise the caller flushes the whole snapshot
 * @returns the index, as though it had been read again
 * @throws Error of node:fs when the file cannot be written; then nothing is left behind
 */
export function writeIndex(tables: IndexTables, outputPath: string, isDurable: boolean): FlatIndex {
  const { arrays, counts } = tables.finish();
  const temporary = `${outputPath}.tmp`;
  const fd = openSync(temporary, "w", 0o644);
  try {
    try {
      for (const part of encodeIndex(arrays, counts)) writeAll(fd, part);
      if (isDurable) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    faultPoint("index.written");
    renameSync(temporary, outputPath);
    return new FlatIndex(arrays, counts.inodes);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function writeAll(fd: number, part: Buffer): void {
  for (let done = 0; done < part.length; ) done += writeSync(fd, part, done);
}
