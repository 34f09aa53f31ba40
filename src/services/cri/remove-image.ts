/** Removals that a kubelet asks for. */

import { NotFoundError } from "../../system/errors.js";
import type { CriParts } from "./image-service.js";

/**
 * Takes all names of an image away, and what nothing else needs of its content. Views and containers
 * that use it go on. An image that is not here is fine, and so are two removals at once.
 *
 * @throws InvalidArgumentError no name and no ID, or the beginning of several IDs
 * @throws UnavailableError the containerd that knows the image does not answer; nothing has changed
 */
export async function removeEverywhere({ core, publisher }: CriParts, name: string): Promise<void> {
  try {
    const image = await core.images.get(name);
    await publisher?.withdraw(image);
    await core.images.remove(image.id, { force: true });
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    return;
  }
  await core.garbage.run();
}
