/**
 * The composition root: makes the parts in order, and takes them down in the opposite order. What mounted views need
 * comes first (see mounts.ts), and what answers calls is not even loaded before they are served.
 */

import type { Core, Machine } from "../services/core.js";
import type { Log } from "../snapshots/log.js";
import { openMounts, type StartOptions } from "./mounts.js";

/** Undoes one step of the start. */
type Cleanup = () => Promise<void> | void;

/** A running daemon. */
export class Daemon {
  readonly #core: Core;
  readonly #cleanups: readonly Cleanup[];
  readonly #end: StartOptions["end"];
  #stopped: Promise<void> | undefined;

  private constructor(core: Core, cleanups: readonly Cleanup[], end: StartOptions["end"]) {
    this.#core = core;
    this.#end = end;
    this.#cleanups = cleanups;
  }

  /** What is known of the machine. */
  get machine(): Machine {
    return this.#core.machine;
  }

  /**
   * Starts; answers calls when this resolves. When it fails everything is undone, but that views which an earlier
   * daemon left wait for the next one. Sets the process's umask to 0.
   *
   * @throws AlreadyExistsError another daemon has one of the directories, or a socket
   * @throws CorruptDataError, FailedPreconditionError the database cannot be used
   */
  static async start(o: Omit<StartOptions, "end">): Promise<Daemon> {
    const cleanups: Cleanup[] = [];
    const onCleanup = (cleanup: Cleanup) => cleanups.push(cleanup);
    const end = { keepMounts: o.config.keepMounts };
    try {
      const mounts = await openMounts({ ...o, end }, onCleanup);
      const { answerCalls } = await import("./answers.js");
      const core = await answerCalls({ ...o, end }, mounts, onCleanup);
      end.keepMounts = o.config.keepMounts;
      return new Daemon(core, cleanups, end);
    } catch (error) {
      await undo(cleanups, o.log);
      throw error;
    }
  }

  /**
   * Stops: no more calls, work under way cancelled, mounts ended (or left, as configured, and always
   * for a `successor`), database closed, locks released. Idempotent; never rejects.
   */
  stop(o: { successor: boolean }): Promise<void> {
    if (o.successor) this.#end.keepMounts = true;
    this.#stopped ??= undo(this.#cleanups, this.#core.log);
    return this.#stopped;
  }
}

/** Runs cleanups, the latest first. A failing one is logged and the others still run. */
async function undo(cleanups: readonly Cleanup[], log: Log): Promise<void> {
  for (const cleanup of cleanups.toReversed()) {
    try {
      await cleanup();
    } catch (error) {
      log.warn("shutdown: a step failed", error);
    }
  }
}
