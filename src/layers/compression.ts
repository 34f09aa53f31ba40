/**
 * How layer blobs are compressed.
 *
 * The media type says what is allowed, the first bytes say what it is: registries are full of gzip
 * blobs under plain types and the reverse, and every tool reads them by their magic numbers.
 */

import { native } from "../system/addon.js";
import { UnsupportedError } from "../system/errors.js";
import { findProgram } from "../system/programs.js";

/** The encodings of a layer that varve reads and writes. */
export type Compression = "none" | "gzip" | "zstd";

const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+(gzip|zstd))?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.(gzip|zstd))?)$/;

/**
 * The compression that a layer's media type announces.
 *
 * @throws UnsupportedError not a layer type that varve knows (encrypted layers, other artifacts)
 * @see OCI image-spec media-types.md; docker's image manifest v2 schema 2
 */
export function compressionOf(mediaType: string): Compression {
  const match = LAYER_TYPE.exec(mediaType);
  if (match !== null) return (match[1] ?? match[2] ?? "none") as Compression;
  const reason = mediaType.endsWith("+encrypted") ? " (encrypted layer)" : "";
  throw new UnsupportedError(
    `layer media type ${JSON.stringify(mediaType)} is not supported${reason}`,
  );
}

/** The compression that the first bytes (6 are enough) of a blob show. */
export function detectCompression(head: Buffer): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b) return "gzip";
  const magic = head.length < 4 ? 0 : head.readUInt32LE(0);
  // Skippable frames may come first: zstd:chunked and seekable archives have them.
  if (magic === 0xfd2fb528 || magic >>> 4 === 0x184d2a5) return "zstd";
  const text = head.toString("latin1");
  if (text.startsWith("\xfd7zXZ\0"))
    throw new UnsupportedError("xz-compressed layers are not supported");
  if (text.startsWith("BZh"))
    throw new UnsupportedError("bzip2-compressed layers are not supported");
  return "none";
}

/** True for containerd's way of switching a program off: set, and not a spelling of false. */
function isDisabled(variable: string): boolean {
  const value = process.env[variable];
  return value !== undefined && !["", "0", "f", "false"].includes(value.toLowerCase());
}

/** What inflates gzip layers here. */
export type Gunzipper =
  | { readonly kind: "isa-l" }
  | { readonly kind: "program"; readonly path: string }
  | { readonly kind: "node:zlib" };

/**
 * The fastest inflater that is installed and allowed: ISA-L inside the process, the unpigz program,
 * else Node's. The environment variables that switch them off are containerd's.
 */
export function fastestGunzip(): Gunzipper {
  if (native.StreamReader.canGunzip && !isDisabled("CONTAINERD_DISABLE_IGZIP")) {
    return { kind: "isa-l" };
  }
  const path = isDisabled("CONTAINERD_DISABLE_PIGZ") ? undefined : findProgram("unpigz");
  return path === undefined ? { kind: "node:zlib" } : { kind: "program", path };
}

/**
 * The path of the `zstd` program.
 *
 * @throws UnsupportedError not installed
 */
export function requireZstd(): string {
  const program = findProgram("zstd");
  if (program !== undefined) return program;
  throw new UnsupportedError(
    "zstd layers need the zstd program, which is not on PATH; install it (apt-get install zstd)",
  );
}
