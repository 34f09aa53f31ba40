/** Writing an OCI runtime bundle whose root is a mounted view. */

import { writeFile as writeFileByCallback } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { bundleConfig } from "../../images/bundle-config.js";
import type { ViewRow } from "../../metadata/view-table.js";
import { sys } from "../../system/addon.js";
import { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } from "../../system/constants.js";
import { EEXIST, ENOENT, ENOTDIR } from "../../system/errno.js";
import {
  AlreadyExistsError,
  FailedPreconditionError,
  InvalidArgumentError,
  SyscallError,
} from "../../system/errors.js";
import { idMapsOf } from "../../views/id-maps.js";
import type { Caller } from "../caller.js";
import { makeDirectoryAs, openAs } from "../caller-files.js";
import type { Core } from "../core.js";
import { readInRoot } from "./read-in-root.js";

const writeFile = promisify<number, string, void>(writeFileByCallback);

/**
 * Writes `config.json` for a mounted view into `directory`, which is created when missing, with the
 * caller's rights.
 *
 * @returns the path of config.json
 * @throws NotFoundError no such view
 * @throws FailedPreconditionError the view is not mounted, or the directory's parent is missing
 * @throws AlreadyExistsError the directory has a config.json
 * @throws InvalidArgumentError the directory is not absolute
 * @throws PermissionDeniedError the caller may not write there
 */
export async function createBundle(
  core: Core,
  caller: Caller,
  o: { name: string; directory: string },
): Promise<string> {
  const view = core.views.get(o.name);
  if (!path.isAbsolute(o.directory)) {
    throw new InvalidArgumentError(`bundle ${o.directory}: want an absolute path`);
  }
  if (!core.views.isMounted(view)) {
    throw new FailedPreconditionError(
      `bundle for view ${view.name}: it is not mounted; mount it with "varve mount --name ${view.name}"`,
    );
  }
  const config = await configOf(core, view);
  await makeDirectory(caller, o.directory);
  const file = path.join(o.directory, "config.json");
  const fd = await createConfig(caller, o.directory, file);
  try {
    await writeFile(fd, `${JSON.stringify(config, undefined, 2)}\n`);
  } finally {
    sys.close(fd);
  }
  return file;
}

/** Never over a config that somebody may have edited. */
async function createConfig(caller: Caller, directory: string, file: string): Promise<number> {
  const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  try {
    return await openAs(caller, `bundle ${directory}`, file, flags, 0o644);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== EEXIST) throw error;
    throw new AlreadyExistsError(
      `bundle ${directory}: it has a config.json already; remove it or choose another directory`,
      { cause: error },
    );
  }
}

async function configOf(core: Core, view: ViewRow): Promise<Record<string, unknown>> {
  const { config } = await core.images.resolveManifest(view.manifestDigest);
  return bundleConfig({
    config,
    rootPath: view.target,
    readOnly: view.readOnly,
    hostname: view.name,
    idMaps: idMapsOf(view),
    readFile: (file) => readInRoot(view.target, file),
  });
}

async function makeDirectory(caller: Caller, directory: string): Promise<void> {
  try {
    await makeDirectoryAs(caller, `bundle ${directory}`, directory, 0o755);
  } catch (error) {
    const errno = error instanceof SyscallError ? error.errno : 0;
    if (errno !== ENOENT && errno !== ENOTDIR) throw error;
    throw new FailedPreconditionError(
      `bundle ${directory}: its parent ${path.dirname(directory)} is no directory; create it first`,
      { cause: error },
    );
  }
}
