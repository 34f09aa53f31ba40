/** A file as memory: what is put there outlives a process that is killed. */

import { sys } from "./addon.js";
import { toBytes } from "./bytes.js";
import { O_CLOEXEC, O_CREAT, O_RDWR, O_TRUNC, SEEK_END } from "./constants.js";
import { must } from "./errno.js";

const WORD_BYTES = 4;
const PAGE_WORDS = 1024;

/** Words of 32 bits that a file holds; it grows on demand. For one process at a time. */
export class SharedMemory {
  words = new Uint32Array(0);
  readonly #path: string;

  /**
   * @param o.isNew whatever the file holds goes; otherwise it must exist
   * @throws SyscallError no such file, or no room
   */
  constructor(path: string, o: { isNew: boolean }) {
    this.#path = path;
    const fd = this.#open(o.isNew ? O_CREAT | O_TRUNC : 0);
    try {
      const words = o.isNew ? 0 : must(sys.lseek(fd, 0, SEEK_END), "lseek", path) / WORD_BYTES;
      if (words > 0) this.#map(fd, words);
    } finally {
      sys.close(fd);
    }
  }

  /** Makes it at least so many words long; new ones are 0. @throws SyscallError no room */
  grow(words: number): void {
    const fd = this.#open(0);
    try {
      this.#map(fd, Math.ceil(words / PAGE_WORDS) * PAGE_WORDS);
    } finally {
      sys.close(fd);
    }
  }

  #open(flags: number): number {
    const fd = sys.open(toBytes(this.#path), O_RDWR | O_CLOEXEC | flags, 0o600);
    return must(fd, "open", this.#path);
  }

  #map(fd: number, words: number): void {
    const bytes = words * WORD_BYTES;
    // A store into a page for which there is no room would be a SIGBUS.
    must(sys.fallocate(fd, 0, 0, bytes), "fallocate", this.#path);
    const mapped = sys.mapShared(fd, bytes);
    if (typeof mapped === "number") must(mapped, "mmap", this.#path);
    else this.words = new Uint32Array(mapped);
  }
}
