/** Durability without blocking the main thread. */

import fs from "node:fs/promises";
import { sys } from "../system/addon.js";
import { must } from "../system/errno.js";

/** Flushes the whole file system that holds `directory`. @throws SyscallError */
export async function syncFileSystem(directory: string): Promise<void> {
  await sync("syncfs", directory);
}

/** Makes the names in `directory` durable. @throws SyscallError */
export async function syncDirectory(directory: string): Promise<void> {
  await sync("fsync", directory);
}

async function sync(kind: "syncfs" | "fsync", directory: string): Promise<void> {
  const handle = await fs.open(directory, "r");
  try {
    must(await sys.syncAsync(kind, handle.fd), kind, directory);
  } finally {
    await handle.close();
  }
}
