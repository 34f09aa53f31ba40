/** Entry of the worker threads that do the long work on layers (see `layer-tasks.ts`). */

import { type AppliedLayer, applyLayer } from "../layers/apply.js";
import { listChanges } from "../layers/changes.js";
import { compareTrees } from "../layers/compare-trees.js";
import { buildIndex } from "../layers/index-builder.js";
import { emptyIndex, openIndex } from "../layers/index-reader.js";
import { type PackedLayer, packLayer } from "../layers/pack.js";
import type { DiskUsage } from "../layers/usage-counter.js";
import { type IndexDifference, verifyIndex } from "../layers/verify-index.js";
import type { ChainIndex } from "../overlay/chain-index.js";
import { toBytes } from "../system/bytes.js";
import { CancelledError } from "../system/errors.js";
import { diskUsage } from "./disk-usage.js";
import {
  type ApplyTask,
  CHANGE_BATCH,
  type Change,
  type IndexTask,
  type PackEvent,
  type PackTask,
  THIN_ENTRIES,
  type UpperTask,
  type VerifyTask,
} from "./layer-tasks.js";
import { prepareUpper } from "./prepare-upper.js";
import { removeTree } from "./remove-tree.js";
import { serveWorker, type WorkerCall } from "./worker-server.js";

async function apply(
  task: ApplyTask,
  call: WorkerCall,
): Promise<AppliedLayer & { usage?: DiskUsage }> {
  const onProgress = (compressedBytes: number) => call.emit(compressedBytes);
  const applied = await applyLayer({ ...task, onProgress, signal: call.signal });
  // Of the others it is known when their index has been built.
  if (applied.entries >= THIN_ENTRIES) return applied;
  return { ...applied, usage: diskUsage(toBytes(task.targetDir)) };
}

function index(task: IndexTask): DiskUsage {
  const { parentIndexPath, ...rest } = task;
  return buildIndex(parentIndexPath === undefined ? rest : { ...rest, parentIndexPath });
}

function verify(task: VerifyTask): IndexDifference | undefined {
  const { parentIndexPath, ...rest } = task;
  return verifyIndex(parentIndexPath === undefined ? rest : { ...rest, parentIndexPath });
}

function chainIndex(indexPath: string | undefined): ChainIndex {
  return indexPath === undefined ? emptyIndex() : openIndex(indexPath);
}

function diffOptions(task: UpperTask) {
  const { upperDir, workDir, indexPath, layerDirs, privileged } = task;
  return { upperDir, workDir, index: chainIndex(indexPath), layerDirs, privileged };
}

function pack(task: PackTask, call: WorkerCall): Promise<PackedLayer> {
  const { level, sourceDateEpoch } = task;
  return packLayer({
    ...diffOptions(task),
    outputPath: task.outputPath,
    compression: task.compression,
    isWhole: task.isWhole,
    isTemporary: task.isTemporary === true,
    pause: task.pause,
    onRead: () => call.emit("read" satisfies PackEvent),
    ...(level === undefined ? {} : { level }),
    ...(sourceDateEpoch === undefined ? {} : { sourceDateEpoch }),
    onProgress: (bytes: number) => call.emit(bytes),
    signal: call.signal,
  });
}

async function changes(task: UpperTask, call: WorkerCall): Promise<void> {
  let batch: Change[] = [];
  for (const { kind, path } of listChanges(diffOptions(task))) {
    batch.push({ kind, path });
    if (batch.length < CHANGE_BATCH) continue;
    call.emit(batch);
    batch = [];
    // A turn of the event loop, so that a cancellation is seen.
    await new Promise((resolve) => setImmediate(resolve));
    if (call.signal.aborted) throw new CancelledError("list changes: cancelled");
  }
  if (batch.length > 0) call.emit(batch);
}

serveWorker({
  apply,
  buildIndex: index,
  prepareUpper: (task: UpperTask) => prepareUpper(task, chainIndex(task.indexPath)),
  pack,
  verifyIndex: verify,
  compareTrees,
  changes,
  usage: (path: string) => diskUsage(toBytes(path)),
  removeTree: (path: string) => removeTree(toBytes(path)),
});
