/** A view whose programs may read and not write. */

import { closeSync } from "node:fs";
import type { WriterPause } from "../layers/pack.js";
import type { ViewRow } from "../metadata/view-table.js";
import type { UpperTask } from "../snapshots/layer-tasks.js";
import { BaseError, UnavailableError } from "../system/errors.js";

/** Works on a view, its upper directory unless it is read-only, and, if need be, with its programs held back. */
export type UpperWork<R> = (
  view: ViewRow,
  upper: UpperTask | undefined,
  hold: () => Promise<ViewHold>,
) => Promise<R>;

/** See the file comment. Release it. */
export class ViewHold {
  readonly pause: WriterPause;
  readonly #view: ViewRow;
  readonly #unpause: () => Promise<boolean>;
  #released: Promise<void> | undefined;

  /**
   * @param pause its descriptors are this object's now
   * @param unpause false when the pause had ended before
   */
  constructor(view: ViewRow, pause: WriterPause, unpause: () => Promise<boolean>) {
    this.#view = view;
    this.pause = pause;
    this.#unpause = unpause;
  }

  /**
   * Lets the programs go on. Idempotent.
   *
   * @throws UnavailableError they have been going on for a while: what was read is not of one moment
   */
  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  async #end(): Promise<void> {
    for (const fd of this.pause.unheld) closeSync(fd);
    if (await this.#unpause()) return;
    throw new UnavailableError(
      `pause view ${this.#view.name}: the thread that serves it crashed, and its programs went on; try again`,
    );
  }
}

/**
 * Runs `read`, which looks at a view's files, while programs go on; when it fails since one of them took away or replaced
 * what was being read, once more while they wait.
 *
 * @param read tells nobody anything before it has read all
 */
export async function readSteadily(
  read: () => Promise<void>,
  hold: () => Promise<ViewHold>,
): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof BaseError) || error.code !== "SYSCALL") throw error;
    const held = await hold();
    await read().finally(() => held.release());
  }
}
