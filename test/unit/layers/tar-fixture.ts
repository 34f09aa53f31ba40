/** Makes archives for tests, friendly and hostile ones, and reads them back into lists. */

import type { LayerLimits } from "../../../src/layers/limits.js";
import { TAR_BLOCK, type TarEntry } from "../../../src/layers/tar-entry.js";
import { FIELD, headerChecksum } from "../../../src/layers/tar-header.js";
import { TarReader } from "../../../src/layers/tar-reader.js";
import { END_OF_ARCHIVE, encodeEntryHeader, padding } from "../../../src/layers/tar-writer.js";
import type { ByteString } from "../../../src/system/bytes.js";

export const bytes = (text: string): ByteString => text as ByteString;

/** An entry with everything that a test does not care about filled in. */
export function entryOf(partial: Omit<Partial<TarEntry>, "path"> & { path: string }): TarEntry {
  return {
    type: "file",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSec: 1_600_000_000,
    mtimeNsec: 0,
    linkTarget: bytes(""),
    rdev: 0,
    xattrs: [],
    ...partial,
    path: bytes(partial.path),
  };
}

/** Header, body and padding of a regular file. */
export function file(path: string, content: string | Buffer = "", more: Partial<TarEntry> = {}) {
  const body = Buffer.from(content);
  const header = encodeEntryHeader(entryOf({ ...more, path, size: body.length }));
  return Buffer.concat([header, body, padding(body.length)]);
}

/** The header of an entry without a body. */
export function object(path: string, type: TarEntry["type"], more: Partial<TarEntry> = {}): Buffer {
  return encodeEntryHeader(
    entryOf({ mode: type === "directory" ? 0o755 : 0o644, ...more, path, type }),
  );
}

export const directory = (path: string, more: Partial<TarEntry> = {}): Buffer =>
  object(path, "directory", more);

export const symlink = (path: string, target: string): Buffer =>
  object(path, "symlink", { linkTarget: bytes(target), mode: 0o777 });

export const hardlink = (path: string, target: string, more: Partial<TarEntry> = {}): Buffer =>
  object(path, "hardlink", { ...more, linkTarget: bytes(target) });

/** A whole archive with its end. */
export const archive = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, END_OF_ARCHIVE]);

type Field = keyof typeof FIELD;

/** A header block with fields of any bytes and a right checksum. */
export function rawHeader(fields: Partial<Record<Field, string | Buffer>>): Buffer {
  const block = Buffer.alloc(TAR_BLOCK);
  const defaults: Partial<Record<Field, string>> = {
    name: "raw",
    mode: "0000644\0",
    uid: "0000000\0",
    gid: "0000000\0",
    size: "00000000000\0",
    mtime: "00000000000\0",
    type: "0",
    magic: "ustar\x0000",
  };
  for (const [field, value] of Object.entries({ ...defaults, ...fields })) {
    const [offset, length] = FIELD[field as Field];
    const data = typeof value === "string" ? Buffer.from(value, "latin1") : value;
    data.copy(block, offset, 0, Math.min(length, data.length));
  }
  return withChecksum(block);
}

/** Writes the checksum of a block into it. */
export function withChecksum(block: Buffer): Buffer {
  block.write(
    `${headerChecksum(block, 0).toString(8).padStart(6, "0")}\0 `,
    FIELD.checksum[0],
    "latin1",
  );
  return block;
}

/** An extended header of type `flag` ("x", "g", "L", "K") with any body. */
export function extended(flag: string, body: string | Buffer): Buffer {
  const data = Buffer.from(body as string, "latin1");
  const size = `${data.length.toString(8).padStart(11, "0")}\0`;
  return Buffer.concat([rawHeader({ name: "ext", type: flag, size }), data, padding(data.length)]);
}

/** One pax record. */
export function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`.length;
  let length = rest + 1;
  while (String(length).length + rest !== length) length++;
  return `${length} ${key}=${value}\n`;
}

export interface ParsedEntry {
  readonly entry: TarEntry;
  readonly body: Buffer;
}

/** Parses an archive, handed over in pieces of `chunkSize` bytes. */
export function parse(
  data: Buffer,
  options: { chunkSize?: number; limits?: LayerLimits } = {},
): ParsedEntry[] {
  const found: { entry: TarEntry; parts: Buffer[] }[] = [];
  const reader = new TarReader(
    {
      entry: (entry) => found.push({ entry, parts: [] }),
      data: (chunk, start, end) => {
        found.at(-1)?.parts.push(Buffer.from(chunk.subarray(start, end)));
      },
    },
    { subject: "layer test", ...(options.limits === undefined ? {} : { limits: options.limits }) },
  );
  const step = options.chunkSize ?? data.length;
  for (let at = 0; at < data.length; at += step) reader.write(data.subarray(at, at + step));
  reader.end();
  return found.map(({ entry, parts }) => ({ entry, body: Buffer.concat(parts) }));
}

/** The only entry of an archive. */
export function parseOne(data: Buffer): ParsedEntry {
  const [first, ...rest] = parse(data);
  if (first === undefined || rest.length > 0) throw new Error(`${rest.length + 1} entries`);
  return first;
}

/** The error that `run` throws. */
export function thrownBy(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
}
