/** What the main thread asks of a view worker, and what it hears from it. */

import type { Inheritance } from "../fuse/session-options.js";
import type { IoMode } from "../metadata/view-table.js";
import type { IdMaps } from "./id-maps.js";
import type { IoInUse } from "./io-mode.js";

/** What a worker is started with. */
export interface ViewWorkerOptions {
  /** Keep the CPUs awake while requests come in bursts. */
  readonly quickWakeUps: boolean;
}

/** The first column of the mount table for a view's mount. */
export function sourceOf(viewId: string): string {
  return `varve:${viewId}`;
}

/** Mount one view. */
export interface MountTask {
  readonly viewId: string;
  /** Absolute path of an existing empty directory. */
  readonly target: string;
  readonly readOnly: boolean;
  readonly privileged: boolean;
  /** Mount it so that set-id programs and devices in it have no effect. */
  readonly isForGuest?: boolean;
  /** Whom its owners are shown as; absent: themselves. */
  readonly idMaps?: IdMaps | undefined;
  /** Absent for an image without layers. */
  readonly indexPath: string | undefined;
  /** Base first. */
  readonly layerDirs: readonly string[];
  /** Both absent: nothing can be written. */
  readonly upperDir: string | undefined;
  readonly workDir: string | undefined;
  readonly io: IoMode;
}

/** What a mount came to be. */
export interface MountResult {
  readonly io: IoInUse;
}

/** Serve one view, mounted by this task or, with `inheritance`, before. */
export interface ServeTask extends MountTask {
  readonly inheritance: Inheritance | undefined;
  /** The memory of the view's tally. */
  readonly tally: SharedArrayBuffer;
  /** How the names of files begin in which the session leaves notes for its successor; undefined: it will have none. */
  readonly notes: string | undefined;
}

/** Unmount one view. */
export interface UnmountTask {
  readonly viewId: string;
  /** Detach it although something uses it. */
  readonly force: boolean;
}

/** Hold back who writes in a view. */
export interface PauseTask {
  readonly viewId: string;
  /** Shared memory; its first number becomes 1 as soon as a program waits. */
  readonly waiting: Int32Array;
}

/** Events of a worker. */
export type ViewEvent =
  | { readonly kind: "ended"; readonly viewId: string }
  | { readonly kind: "warn"; readonly viewId: string; readonly message: string };
