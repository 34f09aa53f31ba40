/** What a session is made of. */

import type { Tally } from "../system/tally.js";
import type { FileSystem } from "./file-system.js";
import type { MountRequest } from "./mount-point.js";
import type { Agreement, StackDepth } from "./negotiation.js";
import type { ExchangeNote } from "./resent.js";
import type { SessionLog } from "./warnings.js";

/** How to mount. */
export interface SessionOptions extends Pick<MountRequest, "flags" | "kernelOptions"> {
  /** An existing directory, absolute and without symlinks. */
  target: string;
  fileSystem: FileSystem;
  readOnly: boolean;
  /** Mount with mount(2) as root; otherwise through fusermount3. */
  privileged: boolean;
  /** Keep the CPUs awake while requests come in bursts; see wake-ups.ts. Default false. */
  quickWakeUps?: boolean;
  /** The type column shows "fuse." and this. Default "varve". */
  subtype?: string;
  /** First column of /proc/mounts. Default the subtype. */
  source?: string;
  /** Whether the kernel is to heed and offer POSIX ACLs. Default true. */
  acl?: boolean;
  /** Passthrough is wanted where the kernel has it (as root only). Default 0: not wanted. */
  stackDepth?: StackDepth;
  /** Where requests are counted. */
  tally?: Tally | undefined;
  /** Needed if another session may have to take over. */
  exchangeNote?: ExchangeNote;
  log: SessionLog;
  /** The session is over, whoever ended it; its file system was destroyed just before. */
  onEnd(): void;
}

/** What a session needs to go on where another one, of this process or of a dead one, ended. */
export interface Inheritance {
  /** The connection; owned by the new session. */
  readonly descriptor: number;
  readonly agreement: Agreement;
}
