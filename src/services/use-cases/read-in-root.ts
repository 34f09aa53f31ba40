/** Reading a file of a view as a program inside would see it. */

import { fstat, readFile, type Stats } from "node:fs";
import fs from "node:fs/promises";
import { promisify } from "node:util";
import { sys } from "../../system/addon.js";
import { toBytes } from "../../system/bytes.js";
import { O_CLOEXEC, O_NONBLOCK, O_RDONLY, RESOLVE_IN_ROOT } from "../../system/constants.js";
import { ResourceExhaustedError } from "../../system/errors.js";

// /etc/passwd of the largest sites; a view may hold anything under that name.
const MAX_BYTES = 4 * 1024 * 1024;

const fstatAsync = promisify<number, Stats>(fstat);
const readFileAsync = promisify<number, Buffer>(readFile);

/**
 * The content of the regular file `file` below `root`; symlinks are followed inside the root only,
 * because what is in a view is not to be trusted with the host's files. Undefined when there is none.
 *
 * @throws ResourceExhaustedError it is larger than 4 MiB
 */
export async function readInRoot(root: string, file: string): Promise<Buffer | undefined> {
  const directory = await fs.open(root, "r");
  try {
    // Non-blocking: a fifo under that name must not hang the daemon. Answered by a worker thread.
    const flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    const fd = sys.openat2(directory.fd, toBytes(file), flags, 0, RESOLVE_IN_ROOT);
    if (fd < 0) return undefined;
    try {
      return await readRegular(fd, file);
    } finally {
      sys.close(fd);
    }
  } finally {
    await directory.close();
  }
}

async function readRegular(fd: number, file: string): Promise<Buffer | undefined> {
  const stat = await fstatAsync(fd);
  if (!stat.isFile()) return undefined;
  if (stat.size > MAX_BYTES) {
    throw new ResourceExhaustedError(`read ${file}: ${stat.size} bytes, more than ${MAX_BYTES}`);
  }
  return readFileAsync(fd);
}
