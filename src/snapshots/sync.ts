/** Durability without blocking the main thread. */

import { closeSync, openSync } from "node:fs";
import fs from "node:fs/promises";
import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";

/** Flushes the whole file system that holds `directory`, which may be a view of ours. @throws SyscallError */
export async function syncFileSystem(directory: string): Promise<void> {
  const handle = await fs.open(directory, "r");
  try {
    must(await sys.syncAsync("syncfs", handle.fd), "syncfs", directory);
  } finally {
    await handle.close();
  }
}

/** Makes the names in `directory`, one of the store's own, durable. @throws SyscallError */
export async function syncDirectory(directory: string): Promise<void> {
  // Only the flush takes long. Two more hops to the thread pool and back would, too.
  const fd = openSync(directory, "r");
  try {
    must(await sys.syncAsync("fsync", fd), "fsync", directory);
  } finally {
    closeSync(fd);
  }
}
