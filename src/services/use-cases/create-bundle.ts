/** Writing an OCI runtime bundle whose root is a mounted view. */

import fs from "node:fs/promises";
import path from "node:path";
import { bundleConfig } from "../../images/bundle-config.js";
import type { ViewRow } from "../../metadata/view-table.js";
import {
  AlreadyExistsError,
  FailedPreconditionError,
  InvalidArgumentError,
} from "../../system/errors.js";
import type { Core } from "../core.js";
import { readInRoot } from "./read-in-root.js";

/**
 * Writes `config.json` for a mounted view into `directory`, which is created when missing.
 *
 * @returns the path of config.json
 * @throws NotFoundError no such view
 * @throws FailedPreconditionError the view is not mounted, or the directory's parent is missing
 * @throws AlreadyExistsError the directory has a config.json
 * @throws InvalidArgumentError the directory is not absolute
 */
export async function createBundle(
  core: Core,
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
  await makeDirectory(o.directory);
  const file = path.join(o.directory, "config.json");
  try {
    // "wx": never over a config that somebody may have edited.
    await fs.writeFile(file, `${JSON.stringify(config, undefined, 2)}\n`, {
      flag: "wx",
      mode: 0o644,
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new AlreadyExistsError(
      `bundle ${o.directory}: it has a config.json already; remove it or choose another directory`,
      { cause: error },
    );
  }
  return file;
}

async function configOf(core: Core, view: ViewRow): Promise<Record<string, unknown>> {
  const { config } = await core.images.resolveManifest(view.manifestDigest);
  return bundleConfig({
    config,
    rootPath: view.target,
    readOnly: view.readOnly,
    hostname: view.name,
    readFile: (file) => readInRoot(view.target, file),
  });
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await fs.mkdir(directory, { mode: 0o755 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    throw new FailedPreconditionError(
      `bundle ${directory}: its parent ${path.dirname(directory)} is no directory; create it first`,
      { cause: error },
    );
  }
}
