/** Removals that a kubelet asks for. */

import { NotFoundError } from "../../system/errors.js";
import type { Core } from "../core.js";

/**
 * Takes all names of an image away, and what nothing else needs of its content. Views and containers
 * that use it go on. An image that is not here is fine, and so are two removals at once.
 *
 * @throws InvalidArgumentError no name and no ID, or the beginning of several IDs
 */
export async function removeEverywhere(core: Core, name: string): Promise<void> {
  try {
    const { id } = await core.images.get(name);
    await core.images.remove(id, { force: true });
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    return;
  }
  await core.garbage.run();
}
