/** Which lower files are programs or libraries: what processes map, and views of one image should share. */

import type { NodeId } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { OverlayTree } from "./overlay-tree.js";

/** "\x7fELF", as a little-endian number. */
const ELF_MAGIC = 0x464c457f;
/** Smaller ones are not worth a look: there is nothing to share. */
const SMALLEST = 4096;

const head = Buffer.alloc(4);

/** Remembers the answer for each index inode that was opened. */
export class ProgramFiles {
  readonly #tree: OverlayTree;
  readonly #known = new Map<number, boolean>();

  constructor(tree: OverlayTree) {
    this.#tree = tree;
  }

  /** Whether the lower file that holds a node's data is an ELF file. */
  has(id: NodeId): boolean {
    const node = this.#tree.node(id);
    const inode = node?.hasUpper ? node.dataInode : id;
    const known = this.#known.get(inode) ?? this.#look(inode);
    this.#known.set(inode, known);
    return known;
  }

  #look(inode: number): boolean {
    const { backing, index, lowerAttributes } = this.#tree;
    if (index.attributes(inode, lowerAttributes).size < SMALLEST) return false;
    const fd = backing.openLower(index.layer(inode), index.contentPath(inode));
    if (fd < 0) return false;
    const count = sys.pread(fd, head, 0, head.length, 0);
    sys.close(fd);
    return count === head.length && head.readUInt32LE(0) === ELF_MAGIC;
  }
}
