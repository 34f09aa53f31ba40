/** Which views are mounted again when the daemon starts. */

import type { RestartPolicy, ViewRow } from "../metadata/view-table.js";
import type { Log } from "../snapshots/log.js";
import { bootId } from "../system/boot-id.js";
import { InvalidArgumentError } from "../system/errors.js";

/** @throws InvalidArgumentError no policy; `""` is undefined */
export function parseRestartPolicy(text: string): RestartPolicy | undefined {
  if (text === "" || text === "no" || text === "always") return text || undefined;
  throw new InvalidArgumentError(`mount: restart policy "${text}": want no or always`);
}

/**
 * Mounts again what was mounted when the last daemon died; if that was before the machine was started,
 * only what is marked for it. A view that cannot be mounted is logged.
 */
export async function restoreMounts(
  views: readonly ViewRow[],
  o: {
    /** False: nothing is mounted. */
    isOn: boolean;
    remount(view: ViewRow): Promise<unknown>;
    /** The view stays unmounted. */
    giveUp(view: ViewRow): void;
    log: Log;
  },
): Promise<void> {
  const restore = async (view: ViewRow) => {
    try {
      await o.remount(view);
      o.log.info(`view ${view.name}: mounted again on ${view.target}`);
    } catch (error) {
      // What is marked is tried again at the next start: its place may be on a disk that comes later.
      if (view.restart !== "always") o.giveUp(view);
      o.log.warn(`view ${view.name}: not mounted again on ${view.target}`, error);
    }
  };
  await Promise.all(
    views.map(async (view) => {
      const comesBack = view.restart === "always" || view.bootId === bootId;
      if (o.isOn && comesBack) await restore(view);
      else o.giveUp(view);
    }),
  );
}
