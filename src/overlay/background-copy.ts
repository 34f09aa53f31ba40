/**
 * Copy-up of much data, on the thread pool, while the worker goes on serving.
 *
 * The file is a metacopy by then: its upper object is there, says the right size, and readers take the
 * data from the lower file until the mark goes. Whoever needs the data in the upper, or changes the
 * file's attributes, is answered LATER and asked again when the copy has ended. What is written to the
 * upper file meanwhile changes its times, so those from before are shown, and put back at the end.
 */

import { LATER, type NodeId, type Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { AT_EMPTY_PATH } from "../system/constants.js";
import {
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SLOTS,
} from "../system/native.js";

const SELF = "" as ByteString;
const CAPABILITY = "security.capability" as ByteString;

interface Running {
  readonly ended: Promise<void>;
  /** Statx record of the upper object before its data came. */
  readonly before: Float64Array;
}

/** The copies of one view that are under way. */
export class BackgroundCopies {
  readonly #running = new Map<NodeId, Running>();
  /** Why a copy failed, until somebody who waited for it has been told. */
  readonly #failures = new Map<NodeId, Result>();
  #awaited: Promise<void> = Promise.resolve();

  /** Resolves when what was last answered LATER is worth another try. */
  get ready(): Promise<void> {
    return this.#awaited;
  }

  /** LATER while the node's data is being copied, the reason once when that failed, else 0. */
  check(id: NodeId): Result {
    const running = this.#running.get(id);
    if (running !== undefined) {
      this.#awaited = running.ended;
      return LATER;
    }
    const failure = this.#failures.get(id);
    if (failure === undefined) return 0;
    this.#failures.delete(id);
    return failure;
  }

  /** The statx record to take a node's times from while its data is being copied. */
  before(id: NodeId): Float64Array | undefined {
    return this.#running.get(id)?.before;
  }

  /**
   * Starts a copy into the upper file `fd`, which is this object's from now on.
   *
   * @param copy brings the data
   * @param settle runs in the same turn as the end of the copy, once the attributes are as before
   */
  begin(id: NodeId, fd: number, copy: () => Promise<Result>, settle: () => Result): Result {
    const before = new Float64Array(STAT_SLOTS);
    const statted = sys.statx(fd, SELF, AT_EMPTY_PATH, before);
    if (statted < 0) {
      sys.close(fd);
      return statted;
    }
    const capability = sys.getxattrat(fd, SELF, CAPABILITY);
    const ended = copy().then((copied) => {
      if (typeof capability !== "number") sys.setxattrat(fd, SELF, CAPABILITY, capability, 0);
      const result = copied < 0 ? copied : settle();
      if (result < 0) this.#failures.set(id, result);
      restoreTimes(fd, before);
      this.#running.delete(id);
      sys.close(fd);
    });
    this.#running.set(id, { ended, before });
    return this.check(id);
  }
}

function restoreTimes(fd: number, stat: Float64Array): void {
  sys.utimensat(
    fd,
    SELF,
    stat[STAT_ATIME_SEC]!,
    stat[STAT_ATIME_NSEC]!,
    stat[STAT_MTIME_SEC]!,
    stat[STAT_MTIME_NSEC]!,
    AT_EMPTY_PATH,
  );
}
