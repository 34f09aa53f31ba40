/** What a layer's own tree leaves visible of the chain below it, asked path by path. */

import { ROOT_INODE } from "../overlay/chain-index.js";
import type { OverlayAttributes } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, joinBytes } from "../system/bytes.js";
import { O_DIRECTORY, O_RDONLY } from "../system/constants.js";
import { ENOENT } from "../system/errno.js";
import type { FlatIndex } from "./index-reader.js";
import type { DiskTree } from "./layer-scan.js";

const NOTHING = "" as ByteString;

/** See the file comment. Paths lead through no symlinks. */
export class CoveredLower {
  readonly #lower: FlatIndex;
  readonly #disk: DiskTree;
  readonly #names: OverlayAttributes;

  constructor(lower: FlatIndex, disk: DiskTree, names: OverlayAttributes) {
    this.#lower = lower;
    this.#disk = disk;
    this.#names = names;
  }

  /** The lower directory that shows at `path` through what the layer has on disk, or 0. */
  directory(path: ByteString): number {
    let prefix = NOTHING;
    for (const name of path === "" ? [] : path.split("/")) {
      if (this.isOpaque(prefix)) return 0;
      prefix = joinBytes(prefix, name as ByteString);
      const fd = this.#disk.tryOpen(prefix, O_RDONLY | O_DIRECTORY);
      if (fd >= 0) sys.close(fd);
      else if (fd === -ENOENT) break;
      else return 0;
    }
    if (this.isOpaque(path)) return 0;
    const inode = path === "" ? ROOT_INODE : this.#lower.resolve(path);
    return inode !== 0 && this.#lower.isDirectory(inode) ? inode : 0;
  }

  /** True for a directory of the layer that hides what is below it. */
  isOpaque(path: ByteString): boolean {
    const fd = this.#disk.tryOpen(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return false;
    const value = sys.getxattrat(fd, NOTHING, this.#names.opaque);
    sys.close(fd);
    return typeof value !== "number" && value.toString("latin1") === "y";
  }
}
