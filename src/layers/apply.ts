/**
 * Unpacks one layer blob into a directory: decompress, hash, parse and write in one pass over the
 * bytes, nothing of them kept.
 */

import { statSync } from "node:fs";
import type { Digest } from "../content/digest.js";
import type { ByteString } from "../system/bytes.js";
import { CorruptDataError, ResourceExhaustedError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { DecompressedBlob, type PipedBlob } from "./decompressed-blob.js";
import { AUFS_LINKS, cleanEntryPath, entryMeaning } from "./entry-path.js";
import type { LowerLink } from "./hard-links.js";
import { LayerTreeWriter } from "./layer-tree-writer.js";
import { DEFAULT_LIMITS, type LayerLimits } from "./limits.js";
import type { TarEntry } from "./tar-entry.js";
import { TarReader, type TarSink } from "./tar-reader.js";

/** What to unpack, and where to. */
export interface ApplyOptions {
  /** The blob's file, or with `piped` a pipe. Its digest is not checked here; the content store did. */
  readonly blobPath: string;
  readonly piped?: PipedBlob | undefined;
  readonly mediaType: string;
  /** What the uncompressed bytes must hash to. */
  readonly expectedDiffId?: Digest | undefined;
  /** An existing empty directory. After an error it holds whatever was written; the caller removes it. */
  readonly targetDir: string;
  /** Whether owners, devices and trusted.* attributes can be made. */
  readonly privileged: boolean;
  /** The layer's name in errors; by default its expected diff ID or the blob's path. */
  readonly subject?: string | undefined;
  readonly limits?: Partial<LayerLimits> | undefined;
  /** Called now and then with the number of blob bytes consumed so far. */
  readonly onProgress?: ((compressedBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What was unpacked. */
export interface AppliedLayer {
  readonly diffId: Digest;
  /** Bytes of the uncompressed archive. */
  readonly tarBytes: number;
  /** Entries of the archive, whiteouts included. */
  readonly entries: number;
  /** Directories that only entries below them named, parents first; "" is the root itself. */
  readonly impliedDirectories: ByteString[];
  /** Hard links to files of the layers below; buildIndex joins them. */
  readonly lowerLinks: LowerLink[];
  /** What could not be applied and was left out, for a person. */
  readonly warnings: string[];
}

/**
 * Unpacks a layer. Nothing is synced: the caller does one syncfs before it commits the tree.
 *
 * @throws CorruptDataError damaged, truncated or hostile archive, or another diff ID than expected
 * @throws ResourceExhaustedError a limit
 * @throws UnsupportedError media type, compression or entry type
 * @throws CancelledError `signal`
 * @throws SyscallError the file system refuses (ENOSPC …)
 */
export async function applyLayer(options: ApplyOptions): Promise<AppliedLayer> {
  const subject = options.subject ?? `layer ${options.expectedDiffId ?? options.blobPath}`;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const writer = new LayerTreeWriter({
    directory: options.targetDir,
    privileged: options.privileged,
    subject,
    mayLinkBelow: true,
  });
  try {
    const reader = new TarReader(new LayerSink(writer, subject), { subject, limits });
    const { diffId, tarBytes } = await feed(options, reader, subject, limits);
    reader.end();
    requireDiffId(diffId, options.expectedDiffId, subject);
    writer.discard(AUFS_LINKS);
    const { impliedDirectories, lowerLinks, warnings } = writer.finish();
    const { entries } = reader;
    return { diffId, tarBytes, entries, impliedDirectories, lowerLinks, warnings };
  } finally {
    writer.abort();
  }
}

async function feed(
  options: ApplyOptions,
  reader: TarReader,
  subject: string,
  limits: LayerLimits,
): Promise<{ diffId: Digest; tarBytes: number }> {
  const { blobPath, piped, mediaType, signal, onProgress } = options;
  const blobBytes = piped?.bytes ?? statSync(blobPath).size;
  const blob = new DecompressedBlob({ blobPath, piped, mediaType, subject, signal, onProgress });
  let tarBytes = 0;
  for await (const chunk of blob.chunks()) {
    tarBytes += chunk.length;
    requireModest(tarBytes, blobBytes, subject, limits);
    reader.write(chunk);
  }
  return { diffId: blob.diffId(), tarBytes };
}

/** Stops decompression bombs. */
function requireModest(
  tarBytes: number,
  blobBytes: number,
  subject: string,
  limits: LayerLimits,
): void {
  if (tarBytes > limits.tarBytes) {
    throw new ResourceExhaustedError(
      `${subject}: more than ${limits.tarBytes} bytes uncompressed, the limit for one layer (max_layer_gib)`,
    );
  }
  if (tarBytes > limits.ratioFreeBytes && tarBytes > blobBytes * limits.ratio) {
    throw new ResourceExhaustedError(
      `${subject}: decompresses to more than ${limits.ratio} times its ${blobBytes} bytes (max_layer_ratio)`,
    );
  }
}

function requireDiffId(diffId: Digest, expected: Digest | undefined, subject: string): void {
  if (expected === undefined || diffId === expected) return;
  throw new CorruptDataError(`${subject}: diff ID is ${diffId}, the config says ${expected}`);
}

/** Turns an archive's names into whiteouts, opaque marks and objects. */
class LayerSink implements TarSink {
  readonly #writer: LayerTreeWriter;
  readonly #subject: string;

  constructor(writer: LayerTreeWriter, subject: string) {
    this.#writer = writer;
    this.#subject = subject;
  }

  entry(entry: TarEntry): void {
    faultPoint("unpack.entry");
    const path = cleanEntryPath(entry.path, this.#subject);
    const meaning = entryMeaning(path, this.#subject);
    switch (meaning.kind) {
      case "whiteout":
        this.#writer.whiteout(meaning.path);
        break;
      case "opaque":
        this.#writer.opaque(meaning.path);
        break;
      case "object":
        this.#writer.add(entry);
        break;
      default:
    }
  }

  data(chunk: Buffer, start: number, end: number): void {
    // Ignored by the writer unless the entry was a file: markers may have bodies, too.
    this.#writer.write(chunk, start, end);
  }
}
