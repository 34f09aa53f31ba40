/** The table of uses: when each image was last worked with. */

import type BetterSqlite3 from "better-sqlite3";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";

/** A use is only noted when the last one is older: mounting in a loop must not cost a disk flush each. */
const GRAIN_NS = 1_000_000_000n;

/** Last uses by image ID. Methods take part in an open transaction. */
export class UseTable {
  readonly #get;
  readonly #put;
  readonly #delete;
  readonly #list;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql
      .prepare<[string], bigint>("SELECT used_ns FROM image_uses WHERE image_id = ?")
      .pluck(true);
    this.#put = sql.prepare<[string, bigint]>(
      `INSERT INTO image_uses VALUES (?, ?)
       ON CONFLICT (image_id) DO UPDATE SET used_ns = excluded.used_ns`,
    );
    this.#delete = sql.prepare<[string]>("DELETE FROM image_uses WHERE image_id = ?");
    this.#list = sql.prepare<[], Digest>("SELECT image_id FROM image_uses").pluck(true);
  }

  /** Nanoseconds since 1970; undefined for an image that was never used. */
  get(imageId: Digest): bigint | undefined {
    return this.#get.get(imageId);
  }

  /** Notes that the image is used now; to the second. */
  touch(imageId: Digest): void {
    const now = nowNs();
    const last = this.get(imageId);
    // A clock that was set back must not make a use last for ever.
    if (last !== undefined && last <= now && now - last < GRAIN_NS) return;
    this.#put.run(imageId, now);
  }

  /** Forgets the images that are gone. */
  retain(isHere: (imageId: Digest) => boolean): void {
    for (const imageId of this.#list.all()) if (!isHere(imageId)) this.#delete.run(imageId);
  }
}
