/**
 * One mount over plain directories, served by this process: what `varve overlay` is. No daemon, no
 * image store.
 */

import { realpathSync } from "node:fs";
import { FuseSession } from "../fuse/session.js";
import type { SessionLog } from "../fuse/warnings.js";
import { LiveIndex } from "../layers/live-index.js";
import { type Alterations, AlteredFileSystem } from "../overlay/altered-file-system.js";
import { overlayAttributes } from "../overlay/format.js";
import { OverlayFileSystem, type OverlayOptions } from "../overlay/overlay-file-system.js";
import { sys } from "../system/addon.js";
import { type ByteString, toBytes } from "../system/bytes.js";
import { LOCK_EX, LOCK_NB, O_DIRECTORY, O_PATH, O_RDONLY } from "../system/constants.js";
import { must } from "../system/errno.js";
import { FailedPreconditionError, NotFoundError, PermissionDeniedError } from "../system/errors.js";
import { idTranslation } from "./id-translation.js";
import { noPassthrough, stackDepthFor } from "./io-mode.js";
import type { OverlayMountOptions } from "./overlay-options.js";

/** How long a process that has just lost its mount may take to end. */
const LOCK_WAIT_MS = 2000;

/**
 * Mounts, and serves on this thread from the next turn of the event loop on.
 *
 * @throws NotFoundError, InvalidArgumentError a directory is missing or unfit
 * @throws PermissionDeniedError, UnsupportedError, FailedPreconditionError, SyscallError see
 *   `FuseSession.mount` and `OverlayFileSystem`
 */
export function mountOverlay(options: OverlayMountOptions, log: SessionLog): FuseSession {
  const target = directory("mount point", options.target);
  const lower = options.lowerDirs.map((path) => directory("lowerdir", path)).reverse();
  const index = new LiveIndex(lower);
  let fileSystem: OverlayFileSystem | undefined;
  try {
    fileSystem = openFileSystem(options, index);
    const session = serve(options, target, fileSystem, index, log);
    if (options.io === "passthrough") void warnWithoutPassthrough(session, log);
    return session;
  } catch (error) {
    fileSystem?.destroy();
    index.close();
    throw error;
  }
}

async function warnWithoutPassthrough(session: FuseSession, log: SessionLog): Promise<void> {
  if (!(await session.negotiated)) log.warn(noPassthrough(process.geteuid?.() === 0));
}

function directory(what: string, path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    throw new NotFoundError(`overlay: ${what} ${path}: no such directory`, { cause: error });
  }
}

function openFileSystem(options: OverlayMountOptions, index: LiveIndex): OverlayFileSystem {
  const { metacopy, redirectDirectories } = options;
  const upperDir = options.upperDir && directory("upperdir", options.upperDir);
  const workDir = options.workDir && directory("workdir", options.workDir);
  if (workDir) lockWorkDirectory(workDir);
  const overlay: OverlayOptions = {
    index,
    layerDirs: index.directories,
    ...(upperDir === undefined || workDir === undefined ? {} : { upperDir, workDir }),
    privileged: workDir === undefined ? process.geteuid?.() === 0 : canMarkAsRoot(workDir),
    metacopy,
    redirectDirectories,
  };
  const shown: Alterations = {
    uids: idTranslation(options.uids),
    gids: idTranslation(options.gids),
    staticLinkCount: options.staticLinkCount,
    acl: options.acl,
    fsync: options.fsync,
  };
  return isPlain(options) ? new OverlayFileSystem(overlay) : new AlteredFileSystem(overlay, shown);
}

/**
 * Takes the work directory for this process. A mount that has just gone may still be tidying up there.
 *
 * @throws FailedPreconditionError another mount uses it
 */
function lockWorkDirectory(path: string): void {
  const fd = must(sys.open(toBytes(path), O_RDONLY | O_DIRECTORY, 0), "open", path);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const deadline = Date.now() + LOCK_WAIT_MS;
  while (sys.flock(fd, LOCK_EX | LOCK_NB) < 0) {
    if (Date.now() > deadline) {
      throw new FailedPreconditionError(
        `overlay: workdir ${path} is in use by another mount; unmount that first`,
      );
    }
    Atomics.wait(pause, 0, 0, 5);
  }
}

/** True when nothing is to be shown differently from the disk. */
function isPlain({ acl, fsync, gids, staticLinkCount, uids }: OverlayMountOptions): boolean {
  const mappings = [uids, gids];
  if (mappings.some(({ ranges, squashTo }) => ranges.length > 0 || squashTo !== undefined))
    return false;
  return acl && fsync && !staticLinkCount;
}

/** Whether trusted.* attributes can be written: root of a user namespace may not. */
function canMarkAsRoot(workDir: string): boolean {
  const { varve } = overlayAttributes(true);
  const fd = must(sys.open(toBytes(workDir), O_PATH | O_DIRECTORY, 0), "open", workDir);
  const nothing = "" as ByteString;
  const result = sys.setxattrat(fd, nothing, varve, Buffer.alloc(0), 0);
  if (result >= 0) sys.removexattrat(fd, nothing, varve);
  sys.close(fd);
  return result >= 0;
}

function serve(
  options: OverlayMountOptions,
  target: string,
  fileSystem: OverlayFileSystem,
  index: LiveIndex,
  log: SessionLog,
): FuseSession {
  const { acl, io, kernelOptions, mountFlags: flags, readOnly, source, upperDir } = options;
  const directories = [...options.lowerDirs, ...(upperDir === undefined ? [] : [upperDir])];
  const onEnd = () => index.close();
  const common = {
    target,
    fileSystem,
    readOnly,
    source,
    flags,
    kernelOptions,
    acl,
    stackDepth: stackDepthFor(io, readOnly, directories),
    quickWakeUps: true,
    log,
    onEnd,
  };
  if (process.geteuid?.() === 0) {
    try {
      return FuseSession.mount({ ...common, privileged: true });
    } catch (error) {
      // Root without CAP_SYS_ADMIN in the mount's namespace; the set-user-ID helper may have it.
      if (!(error instanceof PermissionDeniedError)) throw error;
    }
  }
  return FuseSession.mount({ ...common, privileged: false });
}
