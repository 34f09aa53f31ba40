/**
 * What becomes of a mount's copies in other mount namespaces when it is unmounted. Where somebody uses one, the
 * mount is in use, as it would be if that process were in this namespace. A copy that nobody uses is
 * there by chance, and ends with the mount.
 */

import { setTimeout as delay } from "node:timers/promises";
import { FailedPreconditionError } from "../system/errors.js";
import { findMountPlaces, findMountUsers, type MountPlace, mountInUse } from "./mount-users.js";

/** How long an unmounted connection may take to report its end, and how often its copies are looked for meanwhile. */
const END_GRACE_MS = 5000;
const LOOK_MS = 100;

/**
 * The places of a mount's copies in other namespaces, none of them in use.
 *
 * @throws FailedPreconditionError somebody uses one; `details.users` names the processes
 */
export async function unusedCopies(target: string, device: string): Promise<MountPlace[]> {
  const places = findMountPlaces(device, "elsewhere");
  const users = await findMountUsers(places);
  if (users.length > 0) throw mountInUse(target, users);
  return places;
}

/**
 * Waits for the end of a connection whose mount is gone from this namespace. Resolves, too, when only
 * copies are left that nobody uses: they are to be ended by force.
 *
 * @throws FailedPreconditionError one that was made meanwhile is in use, or what keeps it is not to be seen
 */
export async function awaitEnd(target: string, device: string, end: Promise<void>): Promise<void> {
  const ended = end.then(() => true);
  for (let waitedMs = 0; waitedMs < END_GRACE_MS; waitedMs += LOOK_MS) {
    if ((await Promise.race([ended, delay(LOOK_MS, false, { ref: false })])) === true) return;
    // Nothing is dirty in them: writes are not kept back, and a mapping is written back when it ends.
    if ((await unusedCopies(target, device)).length > 0) return;
  }
  throw new FailedPreconditionError(
    `unmount ${target}: it is gone from here, but still in use: a mount that was detached, or one in a ` +
      "namespace without processes; end what uses it, or unmount with force",
  );
}
