/** Copying files of the host into a mounted view, as docker's COPY does. */

import { spawn } from "node:child_process";
import { constants } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { resolveUser } from "../../images/container-user.js";
import { InvalidArgumentError } from "../../system/errors.js";
import { readInRoot } from "../use-cases/read-in-root.js";
import type { CopyStep } from "./build-step.js";
import { ended } from "./child-process.js";
import { type CopySource, tarArguments } from "./copy-sources.js";
import { hasDirectory, withDirectory } from "./view-directory.js";

type Owner = { readonly uid: number; readonly gid: number };

/**
 * Copies. Of a directory its content goes, not the directory itself. Modes and times are kept,
 * owners are the step's, by default root's. What is there is replaced, directories are joined.
 *
 * @param root where the view is mounted
 * @throws InvalidArgumentError several sources and a destination without a slash at its end
 * @throws FailedPreconditionError an owner that the image does not know
 */
export async function copyIntoView(root: string, step: CopyStep): Promise<void> {
  const { destination, sources } = step;
  if (sources.length === 0) throw new InvalidArgumentError("copy: name what to copy");
  if (!destination.startsWith("/")) {
    throw new InvalidArgumentError(`copy to ${destination}: want an absolute path`);
  }
  if (sources.length > 1 && !destination.endsWith("/")) {
    throw new InvalidArgumentError(
      `copy to ${destination}: of several sources it must be a directory, with a slash at its end`,
    );
  }
  const owner = await resolveUser(step.owner, (file) => readInRoot(root, file));
  for (const source of sources) await copyOne(root, source, destination, owner);
}

async function copyOne(
  root: string,
  source: CopySource,
  destination: string,
  owner: Owner,
): Promise<void> {
  if (source.isDirectory) {
    return withDirectory(root, destination, (fd) => copyTree(source, fd, owner));
  }
  const isDirectory = destination.endsWith("/") || (await hasDirectory(root, destination));
  const directory = isDirectory ? destination : path.posix.dirname(destination);
  const name = isDirectory ? source.name : path.posix.basename(destination);
  await withDirectory(root, directory, (fd) => copyFile(source.path, fd, name, owner));
}

/** GNU tar on both sides: it replaces links instead of following them, and keeps holes and links. */
async function copyTree(source: CopySource, fd: number, { uid, gid }: Owner): Promise<void> {
  const owners = ["--numeric-owner", `--owner=:${uid}`, `--group=:${gid}`, "--sparse"];
  const writer = spawn("tar", [...owners, ...tarArguments(source.path, true)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const target = `/proc/${process.pid}/fd/${fd}`;
  const flags = ["--numeric-owner", "--same-permissions", "--no-overwrite-dir", "-xf", "-"];
  const reader = spawn("tar", [...flags, "-C", target], {
    stdio: [writer.stdout, "ignore", "pipe"],
  });
  // The reader has it now; kept open here as well, a reader that fails would leave the writer waiting.
  writer.stdout.destroy();
  await Promise.all([ended(writer, `copy ${source.path}`), ended(reader, `copy ${source.path}`)]);
}

async function copyFile(file: string, fd: number, name: string, owner: Owner): Promise<void> {
  const target = `/proc/self/fd/${fd}/${name}`;
  const { mode, mtime } = await fs.stat(file);
  await fs.rm(target, { force: true });
  // Exclusive: what is opened is the new file and not something that a link leads to.
  await fs.copyFile(file, target, constants.COPYFILE_EXCL);
  await fs.chown(target, owner.uid, owner.gid);
  await fs.chmod(target, mode & 0o7777);
  await fs.utimes(target, mtime, mtime);
}
