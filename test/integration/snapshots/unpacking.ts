/** A store that unpacks layers into a directory of its own. */

import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { openDatabase } from "../../../src/metadata/database.js";
import { LayerTasks } from "../../../src/snapshots/layer-tasks.js";
import { silentLog } from "../../../src/snapshots/log.js";
import { SnapshotStore } from "../../../src/snapshots/snapshot-store.js";
import { Unpacker } from "../../../src/snapshots/unpacker.js";
import { LayerArchives } from "./layer-archives.js";

/** See the file comment. Made by `openUnpacking`; `close` removes everything. */
export interface Unpacking {
  readonly root: string;
  readonly tasks: LayerTasks;
  readonly archives: LayerArchives;
  readonly snapshots: SnapshotStore;
  readonly unpacker: Unpacker;
  close(): Promise<void>;
}

/** @param workers layers unpacked side by side */
export async function openUnpacking(name: string, workers: number): Promise<Unpacking> {
  const root = mkdtempSync(path.join(os.tmpdir(), `varve-${name}-`));
  const database = openDatabase(path.join(root, "varve.db"));
  const tasks = new LayerTasks({ workers });
  const archives = new LayerArchives(root);
  const snapshots = new SnapshotStore({ root, database, tasks, privileged: true, log: silentLog });
  await snapshots.open();
  const unpacker = new Unpacker({ snapshots, blobs: archives, tasks, privileged: true });
  const close = async () => {
    await tasks.close();
    database.close();
    rmSync(root, { recursive: true });
  };
  return { root, tasks, archives, snapshots, unpacker, close };
}
