/** What a copy step copies: files and directories of the host, and the digest of their content. */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import { InvalidArgumentError, NotFoundError } from "../../system/errors.js";
import { ended } from "./child-process.js";

/** One source. */
export type CopySource = {
  /** Absolute, on the host. */
  readonly path: string;
  readonly name: string;
  readonly isDirectory: boolean;
  /** Of names, types, modes and contents; not of times and owners, which a copy does not take over. */
  readonly digest: string;
};

/**
 * Looks at a source.
 *
 * @throws NotFoundError; InvalidArgumentError neither a file nor a directory, or no absolute path
 */
export async function readCopySource(file: string): Promise<CopySource> {
  if (!path.isAbsolute(file)) {
    throw new InvalidArgumentError(`copy ${file}: want an absolute path`);
  }
  let stat: Awaited<ReturnType<typeof fs.stat>>;
  try {
    stat = await fs.stat(file);
  } catch (cause) {
    throw new NotFoundError(`copy ${file}: no such file or directory`, { cause });
  }
  const isDirectory = stat.isDirectory();
  if (!isDirectory && !stat.isFile()) {
    throw new InvalidArgumentError(`copy ${file}: neither a file nor a directory`);
  }
  const resolved = path.resolve(file);
  const source = { path: resolved, name: path.basename(resolved), isDirectory };
  return { ...source, digest: await contentDigest(resolved, isDirectory) };
}

// GNU tar in a fixed form: what the same content always makes the same bytes of.
const NORMAL_FORM = ["--format=gnu", "--sort=name", "--mtime=@0", "--numeric-owner"];

/** The arguments of GNU tar that write a source's content. */
export function tarArguments(file: string, isDirectory: boolean): string[] {
  // A file that is a link is what it leads to; a link inside a directory is a link.
  return isDirectory
    ? ["-C", file, "-cf", "-", "."]
    : ["-h", "-C", path.dirname(file), "-cf", "-", "--", path.basename(file)];
}

async function contentDigest(file: string, isDirectory: boolean): Promise<string> {
  const flags = [...NORMAL_FORM, "--owner=0", "--group=0", ...tarArguments(file, isDirectory)];
  const tar = spawn("tar", flags, { stdio: ["ignore", "pipe", "pipe"] });
  const hash = createHash("sha256");
  const outcome = ended(tar, `read ${file}`);
  for await (const chunk of tar.stdout) hash.update(chunk as Buffer);
  await outcome;
  return hash.digest("hex");
}
