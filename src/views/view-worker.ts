/**
 * Entry of a thread that serves FUSE mounts: many sessions, driven by the readiness of their
 * descriptors. Views of one chain share its index, which is open while one of them is mounted.
 */

import { workerData } from "node:worker_threads";
import type { StackDepth } from "../fuse/negotiation.js";
import { ExchangeNote } from "../fuse/resent.js";
import { FuseSession } from "../fuse/session.js";
import type { Inheritance, SessionOptions } from "../fuse/session-options.js";
import { AlteredFileSystem } from "../overlay/altered-file-system.js";
import type { ChainIndex } from "../overlay/chain-index.js";
import { OpenTable } from "../overlay/open-table.js";
import { OverlayFileSystem } from "../overlay/overlay-file-system.js";
import { serveWorker } from "../snapshots/worker-server.js";
import { MS_NODEV, MS_NOSUID } from "../system/constants.js";
import { AlreadyExistsError, NotFoundError } from "../system/errors.js";
import { SharedMemory } from "../system/shared-memory.js";
import { Tally } from "../system/tally.js";
import { idMapAlterations } from "./id-maps.js";
import { noPassthrough, stackDepthFor } from "./io-mode.js";
import { SharedIndexes } from "./shared-indexes.js";
import {
  type MountResult,
  type PauseTask,
  type ServeTask,
  sourceOf,
  type UnmountTask,
  type ViewEvent,
  type ViewWorkerOptions,
} from "./view-protocol.js";

interface Mounted {
  readonly session: FuseSession;
  readonly fileSystem: OverlayFileSystem;
  readonly indexPath: string | undefined;
}

const { quickWakeUps } = workerData as ViewWorkerOptions;
const indexes = new SharedIndexes();
const mounts = new Map<string, Mounted>();

async function serve(task: ServeTask): Promise<MountResult> {
  const { viewId, inheritance } = task;
  if (mounts.has(viewId)) throw new AlreadyExistsError(`mount view ${viewId}: already mounted`);
  const { io, readOnly, layerDirs, upperDir } = task;
  const directories = upperDir === undefined ? layerDirs : [...layerDirs, upperDir];
  const stackDepth = stackDepthFor(io, readOnly, directories);
  const index = indexes.acquire(task.indexPath);
  let session: FuseSession;
  try {
    const fileSystem = openFileSystem(task, index);
    const options = sessionOptions(task, fileSystem, stackDepth);
    session =
      inheritance === undefined
        ? FuseSession.mount(options)
        : FuseSession.resume(options, inheritance);
    mounts.set(viewId, { session, fileSystem, indexPath: task.indexPath });
  } catch (error) {
    indexes.release(task.indexPath);
    throw error;
  }
  const hasPassthrough = await session.negotiated;
  // What was agreed for a mount that was taken over holds, whatever is wanted by now. "auto" is content with either.
  if (io === "passthrough" && !hasPassthrough && inheritance === undefined)
    send({ kind: "warn", viewId, message: noPassthrough(task.privileged) });
  return { io: hasPassthrough ? "passthrough" : "cached" };
}

function openFileSystem(task: ServeTask, index: ChainIndex): OverlayFileSystem {
  const { layerDirs, privileged, upperDir, workDir } = task;
  const writable = upperDir === undefined || workDir === undefined ? {} : { upperDir, workDir };
  const inherited = task.inheritance !== undefined;
  const { notes } = task;
  const memory = () => new SharedMemory(`${notes}.opens`, { isNew: !inherited });
  const opens = notes === undefined ? {} : { openTable: () => new OpenTable(memory()) };
  const tally = new Tally(task.tally);
  const parts = { index, layerDirs, privileged, inherited, tally };
  const options = { ...parts, ...writable, ...opens };
  if (task.idMaps === undefined) return new OverlayFileSystem(options);
  return new AlteredFileSystem(options, idMapAlterations(task.idMaps));
}

function sessionOptions(
  task: ServeTask,
  fileSystem: OverlayFileSystem,
  stackDepth: StackDepth,
): SessionOptions {
  const { viewId, notes, privileged, readOnly, target } = task;
  const tally = new Tally(task.tally);
  return {
    ...{ target, fileSystem, readOnly, privileged, stackDepth, quickWakeUps, tally },
    flags: task.isForGuest === true ? MS_NOSUID | MS_NODEV : 0,
    subtype: "varve",
    source: sourceOf(viewId),
    ...(notes === undefined ? {} : { exchangeNote: new ExchangeNote(`${notes}.exchange`) }),
    log: {
      warn: (message, error) => {
        const reason = error instanceof Error ? `: ${error.stack ?? error.message}` : "";
        send({ kind: "warn", viewId, message: message + reason });
      },
    },
    onEnd: () => ended(viewId),
  };
}

/** What another thread or process needs to serve a view after this one. */
async function bequeath(viewId: string): Promise<Inheritance | undefined> {
  return mounts.get(viewId)?.session.bequeath();
}

/** The kernel is done with the session, because of `unmount` or of someone's umount(8). */
function ended(viewId: string): void {
  const mounted = mounts.get(viewId);
  if (mounted === undefined) return;
  mounts.delete(viewId);
  mounted.session.close();
  indexes.release(mounted.indexPath);
  send({ kind: "ended", viewId });
}

async function unmount(task: UnmountTask): Promise<void> {
  const mounted = mounts.get(task.viewId);
  if (mounted === undefined) throw new NotFoundError(`unmount view ${task.viewId}: not mounted`);
  await mounted.session.unmount(task.force);
  // Work that outlives its callers (a flush, a copy) must not meet the next mount of this view.
  await mounted.session.ended;
  ended(task.viewId);
}

/** Descriptors of files that are written to all the same; the caller's now. See `Pause` of src/fuse. */
async function pause({ viewId, waiting }: PauseTask): Promise<readonly number[]> {
  const mounted = mounts.get(viewId);
  // A mount that has ended meanwhile has nobody left who writes.
  if (mounted === undefined) return [];
  await mounted.session.pause.begin(waiting);
  return mounted.fileSystem.openUnheld();
}

/** False when the view was not paused any more: another thread has taken it over. */
function unpause(viewId: string): boolean {
  const pause = mounts.get(viewId)?.session.pause;
  const lasted = pause?.isOn !== false;
  pause?.end();
  return lasted;
}

const sendEvent = serveWorker({ serve, bequeath, unmount, pause, unpause });

function send(event: ViewEvent): void {
  sendEvent(event);
}
