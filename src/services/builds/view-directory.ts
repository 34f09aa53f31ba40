/** Directories of a view, opened and made as a program inside would, links followed inside only. */

import fs from "node:fs/promises";
import path from "node:path";
import { sys } from "../../system/addon.js";
import { type ByteString, display, toBytes } from "../../system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_IN_ROOT,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  UTIME_OMIT,
} from "../../system/constants.js";
import { EEXIST, ENOENT, must } from "../../system/errno.js";
import { FailedPreconditionError, InvalidArgumentError } from "../../system/errors.js";
import {
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SIZE,
  STAT_SLOTS,
} from "../../system/native.js";

const FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
const MODE = 0o755;
const FILE_MODE = 0o644;

/**
 * Runs `work` with the descriptor of a directory of the view mounted on `root`; what is missing of
 * its path is made first, for root and with mode 0755. The daemon's own thread may wait here: other
 * threads serve views.
 *
 * @throws SyscallError something of the path is no directory
 * @throws FailedPreconditionError … or a link that leads nowhere
 */
export async function withDirectory<R>(
  root: string,
  directory: string,
  work: (fd: number) => Promise<R>,
): Promise<R> {
  const handle = await fs.open(root, "r");
  try {
    const fd = makeDirectories(handle.fd, namesOf(directory), directory);
    try {
      return await work(fd);
    } finally {
      sys.close(fd);
    }
  } finally {
    await handle.close();
  }
}

/** True when the view has a directory there. */
export async function hasDirectory(root: string, directory: string): Promise<boolean> {
  const handle = await fs.open(root, "r");
  try {
    const fd = sys.openat2(handle.fd, toBytes(`/${directory}`), FLAGS, 0, RESOLVE_IN_ROOT);
    if (fd >= 0) sys.close(fd);
    return fd >= 0;
  } finally {
    await handle.close();
  }
}

/** True when the view has anything there, and a link at the end counts as itself. */
export async function isInView(root: string, file: string): Promise<boolean> {
  return (await inParent(root, file, (fd, name) => statOf(fd, name))) !== undefined;
}

/** Makes an empty directory or file, for root. The directory around it keeps its time. */
export async function addEmpty(root: string, file: string, isDirectory: boolean): Promise<void> {
  await inParent(root, file, (fd, name) =>
    keepingTime(fd, () => {
      if (isDirectory) sys.mkdirat(fd, name, MODE);
      else {
        const made = sys.openat(fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, FILE_MODE);
        if (made >= 0) sys.close(made);
      }
    }),
  );
}

/** Takes it away again if it is still empty, likewise. */
export async function removeEmpty(root: string, file: string): Promise<void> {
  await inParent(root, file, (fd, name) => {
    const stat = statOf(fd, name);
    if (stat === undefined) return undefined;
    const type = stat[STAT_MODE]! & S_IFMT;
    return keepingTime(fd, () => {
      // A directory that is not empty says so and stays.
      if (type === S_IFDIR) sys.unlinkat(fd, name, AT_REMOVEDIR);
      else if (type === S_IFREG && stat[STAT_SIZE] === 0) sys.unlinkat(fd, name, 0);
    });
  });
}

/** A change of ours is not to look like one of the command that runs in the view. */
function keepingTime(fd: number, work: () => void): undefined {
  const self = toBytes("");
  const stat = new Float64Array(STAT_SLOTS);
  const isKnown = sys.statx(fd, self, AT_EMPTY_PATH, stat) >= 0;
  work();
  if (!isKnown) return;
  const [seconds, nanoseconds] = [stat[STAT_MTIME_SEC]!, stat[STAT_MTIME_NSEC]!];
  sys.utimensat(fd, self, 0, UTIME_OMIT, seconds, nanoseconds, AT_EMPTY_PATH);
}

function statOf(fd: number, name: ByteString): Float64Array | undefined {
  const stat = new Float64Array(STAT_SLOTS);
  return sys.statx(fd, name, AT_SYMLINK_NOFOLLOW, stat) < 0 ? undefined : stat;
}

/** Runs `work` on the directory that holds `file`; undefined when there is none. */
async function inParent<R>(
  root: string,
  file: string,
  work: (fd: number, name: ByteString) => R | undefined,
): Promise<R | undefined> {
  const handle = await fs.open(root, "r");
  try {
    const parent = toBytes(path.posix.dirname(file));
    const fd = sys.openat2(handle.fd, parent, FLAGS, 0, RESOLVE_IN_ROOT);
    if (fd < 0) return undefined;
    try {
      return work(fd, toBytes(path.posix.basename(file)));
    } finally {
      sys.close(fd);
    }
  } finally {
    await handle.close();
  }
}

function namesOf(directory: string): string[] {
  const names = directory.split("/").filter((name) => name !== "" && name !== ".");
  if (!names.includes("..")) return names;
  throw new InvalidArgumentError(`build step: ${directory}: ".." is not allowed`);
}

function makeDirectories(root: number, names: readonly string[], what: string): number {
  let parent = must(sys.openat2(root, toBytes("/"), FLAGS, 0, RESOLVE_IN_ROOT), "open", what);
  for (let depth = 1; depth <= names.length; depth++) {
    // From the root each time, because a link may lead upwards.
    const prefix = toBytes(`/${names.slice(0, depth).join("/")}`);
    let next = sys.openat2(root, prefix, FLAGS, 0, RESOLVE_IN_ROOT);
    if (next === -ENOENT) {
      const made = sys.mkdirat(parent, toBytes(names[depth - 1]!), MODE);
      if (made !== -EEXIST && made < 0) closeAndThrow(parent, made, what);
      next = sys.openat2(root, prefix, FLAGS, 0, RESOLVE_IN_ROOT);
      if (made === -EEXIST && next === -ENOENT) {
        sys.close(parent);
        throw new FailedPreconditionError(
          `build step: ${what}: ${display(prefix)} is a link to something that the image lacks`,
        );
      }
    }
    if (next < 0) closeAndThrow(parent, next, what);
    sys.close(parent);
    parent = next;
  }
  return parent;
}

function closeAndThrow(fd: number, result: number, what: string): never {
  sys.close(fd);
  must(result, "open directory", what);
  throw new Error("unreachable: the result is an error");
}
