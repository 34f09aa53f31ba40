/** File contents: READ, WRITE, FALLOCATE, LSEEK, COPY_FILE_RANGE, FSYNC. */

import {
  FUSE_WRITE_KILL_SUIDGID,
  type NodeId,
  type Result,
  type Stage,
} from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import {
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  O_RDWR,
  S_IFDIR,
  S_IFREG,
} from "../system/constants.js";
import { EACCES, EINVAL, EIO, EISDIR, EPERM, EROFS, ESTALE } from "../system/errno.js";
import { ensureData } from "./copy-up.js";
import { writeFully } from "./file-copy.js";
import type { OverlayNode } from "./node-table.js";
import type { OverlayTree } from "./overlay-tree.js";
import { clearSetId } from "./set-id.js";

function openUpper(tree: OverlayTree, node: OverlayNode): number {
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const { name } = node.places[0]!;
  const fd = sys.openat(dirfd, name, O_RDWR | O_NOFOLLOW, 0);
  // Without root, an owner who took away the write permission can still read.
  if (fd !== -EACCES && fd !== -EPERM) return fd;
  return sys.openat(dirfd, name, O_RDONLY | O_NOFOLLOW, 0);
}

/** A descriptor (borrowed) with the file's present data, or a negative errno. */
function readableFd(tree: OverlayTree, id: NodeId): number {
  const cached = tree.backing.files.get(id);
  if (cached >= 0) return cached;
  const type = tree.typeOf(id);
  // Opening anything else could block (fifo) or do things (device).
  if (type !== S_IFREG) return type === 0 ? -ESTALE : type === S_IFDIR ? -EISDIR : -EINVAL;
  const node = tree.node(id);
  let fd: number;
  if (node?.hasUpper && node.dataInode === 0) {
    fd = openUpper(tree, node);
  } else {
    const inode = node?.hasUpper ? node.dataInode : id;
    fd = tree.backing.openLower(tree.index.layer(inode), tree.index.contentPath(inode));
  }
  return fd < 0 ? fd : tree.backing.files.put(id, fd);
}

/** Reads into `target` until it is full or the file ends, or stages as much. */
export function read(
  tree: OverlayTree,
  id: NodeId,
  offset: number,
  target: Buffer,
  stage?: Stage,
): Result {
  const fd = readableFd(tree, id);
  if (fd < 0) return fd;
  // Mostly the first call gets all there is: what a lower file has is known, so that nobody need ask for more.
  const end = tree.node(id)?.hasUpper
    ? Infinity
    : tree.index.attributes(id, tree.lowerAttributes).size;
  const wanted = Math.min(target.length, end - offset);
  const staged = stage === undefined || wanted <= 0 ? -1 : stage(fd, offset, wanted);
  if (staged >= 0) return staged;
  let done = 0;
  while (done < wanted) {
    const count = sys.pread(fd, target, done, wanted - done, offset + done);
    if (count < 0) return done > 0 ? done : count;
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Writes `data`; copies the file up first where needed. */
export function write(
  tree: OverlayTree,
  id: NodeId,
  offset: number,
  data: Buffer,
  flags: number,
): Result {
  const fd = changeableFd(tree, id);
  if (fd < 0) return fd;
  const written = writeFully(fd, data, data.length, offset);
  if (written > 0 && (flags & FUSE_WRITE_KILL_SUIDGID) !== 0) clearSetId(tree, id);
  return written;
}

function changeableFd(tree: OverlayTree, id: NodeId): number {
  if (!tree.writable) return -EROFS;
  const type = tree.typeOf(id);
  if (type !== S_IFREG) return type === 0 ? -ESTALE : type === S_IFDIR ? -EISDIR : -EINVAL;
  const ready = ensureData(tree, id);
  return ready < 0 ? ready : readableFd(tree, id);
}

/** ftruncate(2); `ensureData` came before. */
export function truncateTo(
  tree: OverlayTree,
  id: NodeId,
  size: number,
  killSetId: boolean,
): Result {
  const fd = readableFd(tree, id);
  if (fd < 0) return fd;
  const result = sys.ftruncate(fd, size);
  if (result >= 0 && killSetId) clearSetId(tree, id);
  return result;
}

/** fallocate(2) with FALLOC_FL_* `mode`. */
export function fallocate(
  tree: OverlayTree,
  id: NodeId,
  mode: number,
  offset: number,
  length: number,
  killSetId: boolean,
): Result {
  const fd = changeableFd(tree, id);
  if (fd < 0) return fd;
  const result = sys.fallocate(fd, mode, offset, length);
  if (result >= 0 && killSetId) clearSetId(tree, id);
  return result;
}

/** The next data or hole at or after `offset`. */
export function seek(tree: OverlayTree, id: NodeId, offset: number, whence: number): Result {
  const fd = readableFd(tree, id);
  return fd < 0 ? fd : sys.lseek(fd, offset, whence);
}

/** copy_file_range(2) within the view: bytes copied, short when the disk says so. */
export function copyFileRange(
  tree: OverlayTree,
  id: NodeId,
  offset: number,
  toId: NodeId,
  toOffset: number,
  length: number,
  killSetId: boolean,
): Result {
  // The target first: its copy-up may replace the descriptor of the source, when they are one.
  const to = changeableFd(tree, toId);
  if (to < 0) return to;
  const from = readableFd(tree, id);
  if (from < 0) return from;
  const copied = sys.copyFileRange(from, offset, to, toOffset, length);
  if (copied > 0 && killSetId) clearSetId(tree, toId);
  return copied;
}

/** Brings a file's or directory's upper part to disk, on the thread pool. Lower parts never change. */
export function sync(tree: OverlayTree, id: NodeId, dataOnly: boolean): Result | Promise<Result> {
  const node = tree.node(id);
  if (node === undefined || !node.hasUpper) return tree.exists(id) ? 0 : -ESTALE;
  if (node.type !== S_IFREG && node.type !== S_IFDIR) return 0;
  const dirfd = tree.holderFd(node);
  if (dirfd < 0) return dirfd;
  const directory = node.isDirectory ? O_DIRECTORY : 0;
  // Its own descriptor: the cache may close one of its own before the flush ends.
  const fd = sys.openat(dirfd, node.places[0]!.name, O_RDONLY | O_NOFOLLOW | directory, 0);
  if (fd < 0) return fd;
  return flush(dataOnly ? "fdatasync" : "fsync", fd);
}

/** Brings the whole upper file system to disk. */
export function syncAll(tree: OverlayTree): Result | Promise<Result> {
  if (!tree.writable) return 0;
  const fd = sys.openat(tree.backing.upperFd, "." as ByteString, O_RDONLY | O_DIRECTORY, 0);
  return fd < 0 ? fd : flush("syncfs", fd);
}

async function flush(kind: "fsync" | "fdatasync" | "syncfs", fd: number): Promise<Result> {
  try {
    return await sys.syncAsync(kind, fd);
  } catch {
    return -EIO;
  } finally {
    sys.close(fd);
  }
}
