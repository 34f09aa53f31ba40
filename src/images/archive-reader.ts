/** The outer tar of an image archive, entry by entry, in one pass. */

import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-stream";
import { BaseError, CorruptDataError, ResourceExhaustedError } from "../system/errors.js";
import { MAX_ARCHIVE_ENTRIES, MAX_ARCHIVE_PATH } from "./limits.js";

/** A file or link of the archive. */
export type ArchiveEntry = {
  /** Relative, without "." and ".." parts. */
  readonly path: string;
  readonly type: "file" | "link";
  /** Bytes. */
  readonly size: number;
  /** For a link: the path in the archive that it stands for. */
  readonly target?: string;
  /** For a file; to be read, or left, before the next entry is asked for. */
  readonly data: AsyncIterable<Buffer>;
};

/**
 * Reads the files and links of a tar; directories and special files are passed over.
 *
 * @param what names the source in errors
 * @throws CorruptDataError no tar, damaged, or truncated
 * @throws ResourceExhaustedError more entries than any image has
 */
export async function* readArchive(
  source: AsyncIterable<Buffer>,
  what: string,
): AsyncGenerator<ArchiveEntry> {
  // An option that the types lack: headers from before POSIX are read as well.
  const extract = tar.extract({ allowUnknownFormat: true } as object);
  let failure: unknown;
  const fed = pipeline(Readable.from(source), extract).catch((error: unknown) => {
    failure = error;
  });
  let count = 0;
  try {
    for await (const entry of extract) {
      if (++count > MAX_ARCHIVE_ENTRIES) {
        throw new ResourceExhaustedError(`${what}: more than ${MAX_ARCHIVE_ENTRIES} entries`);
      }
      const described = describe(entry, what);
      if (described !== undefined) yield described;
      entry.resume();
    }
    await fed;
    if (failure !== undefined) throw failure;
  } catch (error) {
    throw damaged(failure ?? error, count, what);
  } finally {
    extract.destroy();
    await fed;
  }
}

/** An entry as the tar codec hands it out: a stream with its header. */
type TarSource = tar.Extract extends AsyncIterable<infer Source> ? Source : never;

function describe(entry: TarSource, what: string): ArchiveEntry | undefined {
  const { name, type, size = 0, linkname } = entry.header;
  const path = resolvePath("", name, what);
  if (type === "file" || type === "contiguous-file") {
    return { path, type: "file", size, data: bodyOf(entry, what) };
  }
  if ((type !== "link" && type !== "symlink") || !linkname) return undefined;
  // A hard link counts from the archive's root, a symbolic one from its own directory.
  const base = type === "symlink" ? path.split("/").slice(0, -1).join("/") : "";
  const target = resolvePath(base, linkname, what);
  return { path, type: "link", size: 0, target, data: bodyOf(entry, what) };
}

/** The body, whose reader is outside of our loop and must get the same errors as the loop. */
async function* bodyOf(entry: TarSource, what: string): AsyncGenerator<Buffer> {
  try {
    yield* entry as AsyncIterable<Buffer>;
  } catch (error) {
    throw damaged(error, 1, what);
  }
}

/** Joins and cleans a path of the archive; ".." stops at the root. */
function resolvePath(base: string, path: string, what: string): string {
  if (path.length > MAX_ARCHIVE_PATH) {
    throw new CorruptDataError(`${what}: a path of ${path.length} bytes`);
  }
  const parts: string[] = [];
  for (const part of `${path.startsWith("/") ? "" : base}/${path}`.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}

function damaged(error: unknown, entries: number, what: string): unknown {
  if (error instanceof BaseError) return error;
  const { message, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== undefined) return error;
  if (/unexpected end|premature close|writable stream closed/i.test(message)) {
    return new CorruptDataError(`${what}: it ends early, it is truncated`, { cause: error });
  }
  const reason = entries === 0 ? "not an image archive (no tar)" : `damaged tar: ${message}`;
  return new CorruptDataError(`${what}: ${reason}`, { cause: error });
}
