/** Chain indexes of one thread: views of a chain share one, which is open while one of them is mounted. */

import { emptyIndex, openIndex } from "../layers/index-reader.js";
import type { ChainIndex } from "../overlay/chain-index.js";

interface SharedIndex {
  index: ChainIndex | undefined;
  /** What is no longer used is found again here until memory is collected: chains are mounted again and again. */
  readonly kept: WeakRef<ChainIndex>;
  users: number;
}

/** See the file comment. */
export class SharedIndexes {
  readonly #indexes = new Map<string, SharedIndex>();

  /**
   * The index in a file, or the one of an image without layers. Each call wants a `release`.
   *
   * @throws what `openIndex` throws
   */
  acquire(path: string | undefined): ChainIndex {
    if (path === undefined) return emptyIndex();
    const known = this.#indexes.get(path);
    const index = known?.index ?? known?.kept.deref();
    if (known === undefined || index === undefined) {
      const opened = openIndex(path);
      this.#indexes.set(path, { index: opened, kept: new WeakRef(opened), users: 1 });
      return opened;
    }
    known.index = index;
    known.users++;
    return index;
  }

  /** One user less. */
  release(path: string | undefined): void {
    const shared = path === undefined ? undefined : this.#indexes.get(path);
    if (shared === undefined || --shared.users > 0) return;
    shared.index = undefined;
  }
}
