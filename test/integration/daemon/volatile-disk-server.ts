/**
 * A disk with a write cache: the file "disk" on the FUSE mount that the first argument names. What was written
 * since the last flush is lost in a power cut, or not, block by block, at random.
 */

import { writeFileSync } from "node:fs";
import { FuseSession } from "../../../src/fuse/session.js";
import { MemoryFileSystem } from "../fuse/memory-file-system.js";

const BLOCK_BYTES = 4096;

/** Writes the disk as it would be found after a power cut now. */
export interface CutCommand {
  readonly id: number;
  readonly output: string;
  /** Of each unflushed block, one in this many is lost; 0: all are. */
  readonly losesOneIn: number;
}

interface Write {
  readonly offset: number;
  readonly data: Buffer;
}

class VolatileDisk extends MemoryFileSystem {
  #stable: Buffer;
  #unflushed: Write[] = [];

  constructor(bytes: number) {
    super();
    this.#stable = Buffer.alloc(bytes);
  }

  override write(ino: number, handle: number, offset: number, data: Buffer, flags: number) {
    const written = super.write(ino, handle, offset, data, flags);
    if (written > 0) this.#unflushed.push({ offset, data: Buffer.from(data) });
    return written;
  }

  override fsync(ino: number, dataOnly: boolean) {
    for (const { offset, data } of this.#unflushed) data.copy(this.#stable, offset);
    this.#unflushed = [];
    return super.fsync(ino, dataOnly);
  }

  afterPowerCut(losesOneIn: number): Buffer {
    const found = Buffer.from(this.#stable);
    if (losesOneIn === 0) return found;
    for (const { offset, data } of this.#unflushed) {
      for (let at = 0; at < data.length; at += BLOCK_BYTES) {
        const isLost = Math.random() * losesOneIn < 1;
        if (!isLost) data.copy(found, offset + at, at, at + BLOCK_BYTES);
      }
    }
    return found;
  }
}

const [target = "", bytes = ""] = process.argv.slice(2);
const disk = new VolatileDisk(Number(bytes));
FuseSession.mount({
  ...{ target, fileSystem: disk, readOnly: false, privileged: true, source: "disk, for a test" },
  log: { warn: (message, error) => console.error(message, error) },
  onEnd: () => process.exit(),
});
process.on("message", ({ id, output, losesOneIn }: CutCommand) => {
  writeFileSync(output, disk.afterPowerCut(losesOneIn));
  process.send?.({ id });
});
process.send?.({ id: 0 });
