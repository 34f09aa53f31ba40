/** What the services work on; `src/daemon` makes it. */

import type { ContentStore } from "../content/content-store.js";
import type { GarbageCollector } from "../images/garbage-collector.js";
import type { ImageStore } from "../images/image-store.js";
import type { Database } from "../metadata/database.js";
import type { EventLog } from "../metadata/event-log.js";
import type { Registries } from "../registry/registries.js";
import type { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import type { SnapshotStore } from "../snapshots/snapshot-store.js";
import type { Unpacker } from "../snapshots/unpacker.js";
import type { Tally } from "../system/tally.js";
import type { Views } from "../views/views.js";
import type { Activity } from "./metrics/activity.js";

/** What is known of the program and the machine it runs on. */
export interface Machine {
  readonly version: string;
  /** Root with the rights that mounting and trusted.* attributes need. */
  readonly privileged: boolean;
  /** "isa-l" and the like: what unpacks gzip layers. */
  readonly decompressor: string;
  /** "7.45" */
  readonly fuseProtocol: string;
  /** Type of the file system that holds the root directory. */
  readonly storageFilesystem: string;
  /** What is missing here and what that costs, one sentence each. */
  readonly fallbacks: readonly string[];
}

/** The daemon's parts. */
export interface Core {
  readonly paths: { readonly root: string; readonly state: string; readonly socket: string };
  readonly machine: Machine;
  /** The ID of the group whose members may call as guests; undefined: none. */
  readonly socketGroup: number | undefined;
  readonly database: Database;
  readonly content: ContentStore;
  readonly images: ImageStore;
  readonly registries: Registries;
  readonly garbage: GarbageCollector;
  readonly events: EventLog;
  readonly tasks: LayerTasks;
  readonly snapshots: SnapshotStore;
  readonly unpacker: Unpacker;
  readonly views: Views;
  /** What the kernel asks of each mounted view. */
  readonly tallies: Map<string, Tally>;
  readonly activity: Activity;
  /** Daemons that have been started on this state directory, this one included. */
  readonly starts: number;
  readonly log: Log;
  /** Starts a clean end of the daemon and returns at once. */
  requestShutdown(): void;
}
