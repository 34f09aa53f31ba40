/** What uses an image, and so keeps everyone who cleans up away from it. */

import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { ImageRecord } from "./image-record.js";

/** What uses images just now. */
export class ImageUsers {
  readonly #views = new Map<Digest, string[]>();
  readonly #leased = new Set<string>();

  constructor(database: Database) {
    for (const view of database.views.list()) {
      this.#views.set(view.imageId, [...(this.#views.get(view.imageId) ?? []), view.name]);
    }
    const { leases } = database;
    for (const lease of leases.list()) {
      if (leases.isExpired(lease)) continue;
      for (const { id } of leases.resources(lease.id)) this.#leased.add(id);
    }
  }

  /** Names of the views of the image, oldest first. */
  viewsOf(image: ImageRecord): readonly string[] {
    return this.#views.get(image.id) ?? [];
  }

  /** True when a view, a lease (of its target, manifest or config) or a pin keeps the image. */
  isInUse(image: ImageRecord): boolean {
    if (image.pinned || this.#views.has(image.id)) return true;
    return [image.digest, image.manifestDigest, image.id].some((digest) =>
      this.#leased.has(digest),
    );
  }
}
