/**
 * A blob of containerd's content store for the unpacker: the store's own file where that can be seen from
 * here, else piece by piece over the socket.
 *
 * Sent over, every byte goes through both processes and a pipe, which is a third of what unpacking
 * costs. containerd still decides who may read what: the file is opened only after it has said that the
 * namespace has the blob.
 */

import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import path from "node:path";
import { hexOf, isDigest } from "../../content/digest.js";
import { BaseError } from "../../system/errors.js";
import type { LayerBlob } from "./apply-layer.js";
import { withPieces } from "./blob-pieces.js";
import type { ContainerdClient, Scope } from "./containerd-client.js";

/** What of a containerd is needed. */
export type ContentSource = Pick<ContainerdClient, "contentRoot" | "contentSize" | "readContent">;

/** A blob that containerd has. */
export interface StoredBlob {
  readonly containerd: ContentSource;
  readonly scope: Scope;
  readonly digest: string;
  /** Its size. */
  readonly bytes: number;
  readonly signal: AbortSignal;
  /** A directory for as long as `use` takes. */
  withTemporary<R>(use: (directory: string) => Promise<R>): Promise<R>;
}

/**
 * Runs `work` on the blob.
 *
 * @throws NotFoundError the namespace has no such blob
 * @throws what fetching it throws, else what `work` throws
 */
export async function withStoredBlob<R>(
  blob: StoredBlob,
  work: (source: Pick<LayerBlob, "path" | "piped">) => Promise<R>,
): Promise<R> {
  const { containerd, scope, digest, bytes, signal, withTemporary } = blob;
  const file = await openStored(blob);
  if (file === undefined) {
    const read = (ended: AbortSignal) => containerd.readContent(scope, digest, ended);
    return await withPieces({ bytes, signal, read, withTemporary }, work);
  }
  try {
    // By descriptor: a collection of containerd's may take the name away meanwhile.
    return await work({ path: `/proc/self/fd/${file.fd}` });
  } finally {
    await file.close();
  }
}

/** The store's file; undefined when there is none here, or another one. */
async function openStored(blob: StoredBlob): Promise<FileHandle | undefined> {
  const { containerd, scope, digest, bytes } = blob;
  const root = await rootOf(containerd);
  if (root === undefined || !path.isAbsolute(root) || !isDigest(digest)) return undefined;
  if ((await containerd.contentSize(scope, digest)) !== bytes) return undefined;
  const name = path.join(root, "blobs/sha256", hexOf(digest));
  const file = await open(name, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined);
  const stat = await file?.stat();
  if (stat?.isFile() === true && stat.size === bytes) return file;
  await file?.close();
  return undefined;
}

/** Not remembered: the next containerd on this socket may have another one, and asking takes a millisecond. */
async function rootOf(containerd: ContentSource): Promise<string | undefined> {
  try {
    return await containerd.contentRoot();
  } catch (error) {
    // One that does not know this service has sent blobs all the same.
    if (error instanceof BaseError && error.code === "UNSUPPORTED") return undefined;
    throw error;
  }
}
