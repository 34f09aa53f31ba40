/**
 * Packing what a view changed as a layer blob, in one pass: diff, tar, compression, digest and diff ID.
 *
 * Same upper, same image, same options: same bytes. A view may be in use meanwhile; a file that
 * changes under the reader never breaks the archive, and each such file is reported.
 */

import type { Digest } from "../content/digest.js";
import { sys } from "../system/addon.js";
import { type ByteString, display } from "../system/bytes.js";
import { AT_EMPTY_PATH } from "../system/constants.js";
import { must } from "../system/errno.js";
import { CancelledError } from "../system/errors.js";
import { STAT_MTIME_NSEC, STAT_MTIME_SEC, STAT_SIZE, STAT_SLOTS } from "../system/native.js";
import { LayerDiff, type LayerEntry } from "./diff.js";
import { LAYER_MEDIA_TYPE, LayerCompressor } from "./layer-compressor.js";
import { LayerTar } from "./layer-tar.js";
import type { TarEntry } from "./tar-entry.js";
import { encodeEntryHeader } from "./tar-writer.js";
import type { DiffOptions } from "./upper-tree.js";

/** What to pack, and how. */
export interface PackOptions extends DiffOptions {
  /** The blob's file; made, or emptied. */
  readonly outputPath: string;
  readonly compression: "gzip" | "zstd" | "none";
  /** gzip 1 to 9, zstd 1 to 19. */
  readonly level?: number | undefined;
  /** Seconds since the epoch; later modification times become this one. @see SOURCE_DATE_EPOCH */
  readonly sourceDateEpoch?: number | undefined;
  /** The blob is only passed on, so it need not be on disk. */
  readonly isTemporary?: boolean;
  /** Called now and then with the bytes of tar so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The result: nothing changed and no file was made, or a blob. */
export type PackedLayer =
  | { readonly empty: true }
  | {
      readonly empty: false;
      /** Digest of the tar. */
      readonly diffId: Digest;
      /** Digest of the blob. */
      readonly digest: Digest;
      /** Bytes of the blob. */
      readonly size: number;
      readonly mediaType: string;
      /** Entries, whiteouts included. */
      readonly entries: number;
      /** The latest modification time in the layer, whole seconds since the epoch; 0 when all are older. */
      readonly newestMtimeSec: number;
      /** What was left out or changed while it was packed, for a person. */
      readonly warnings: string[];
    };

/** A message per file of a busy view would drown the log. */
const MAX_WARNINGS = 20;

/**
 * Packs a view's changes. The blob is on disk (fsync) on return unless it is temporary, its name is
 * not. After an error there is no blob.
 *
 * @throws CancelledError `signal`
 * @throws CorruptDataError the upper names data that is not there
 * @throws SyscallError the upper cannot be read, or the disk is full
 * @throws InvalidArgumentError a level out of range
 * @throws UnsupportedError zstd without the zstd program
 */
export async function packLayer(options: PackOptions): Promise<PackedLayer> {
  const { sourceDateEpoch, ...rest } = options;
  const diff = new LayerDiff(sourceDateEpoch === undefined ? rest : { ...rest, sourceDateEpoch });
  let packing: Packing | undefined;
  try {
    for (const item of diff.entries()) {
      packing ??= new Packing(options, diff);
      await packing.add(item);
    }
    return packing === undefined ? { empty: true } : await packing.finish();
  } catch (error) {
    if (options.signal?.aborted === true && !(error instanceof CancelledError))
      throw new CancelledError(`pack ${options.upperDir}: cancelled`, { cause: error });
    throw error;
  } finally {
    packing?.abort();
    diff.close();
  }
}

class Packing {
  readonly #options: PackOptions;
  readonly #diff: LayerDiff;
  readonly #compressor: LayerCompressor;
  readonly #tar: LayerTar;
  readonly #stats = new Float64Array(STAT_SLOTS);
  #entries = 0;
  #newestMtimeSec = 0;

  constructor(options: PackOptions, diff: LayerDiff) {
    const { outputPath, compression, level, isTemporary } = options;
    this.#options = options;
    this.#diff = diff;
    const output = { outputPath, compression, level, isTemporary };
    this.#compressor = LayerCompressor.create(output);
    this.#tar = new LayerTar(this.#compressor, options.onProgress, () => this.#throwIfAborted());
  }

  #throwIfAborted(): void {
    if (this.#options.signal?.aborted === true)
      throw new CancelledError(`pack ${this.#options.upperDir}: cancelled`);
  }

  async add(item: LayerEntry): Promise<void> {
    this.#throwIfAborted();
    this.#entries += 1;
    this.#newestMtimeSec = Math.max(this.#newestMtimeSec, item.entry.mtimeSec);
    if (item.source === undefined) {
      await this.#tar.put(encodeEntryHeader(item.entry));
      return;
    }
    const fd = this.#diff.open(item.source);
    try {
      await this.#addFile(this.#current(item, fd), fd);
    } finally {
      sys.close(fd);
    }
  }

  /** The entry with the size and time that the file has now. */
  #current(item: LayerEntry, fd: number): TarEntry {
    const { entry, source } = item;
    if (source === undefined || source.kind === "lower") return entry;
    must(sys.statx(fd, "" as ByteString, AT_EMPTY_PATH, this.#stats), "statx", display(entry.path));
    const size = this.#stats[STAT_SIZE]!;
    if (size === entry.size) return entry;
    this.#warn(`${display(entry.path)}: changed while it was packed`);
    const latest = this.#options.sourceDateEpoch ?? Number.POSITIVE_INFINITY;
    const isLate = this.#stats[STAT_MTIME_SEC]! >= latest;
    return {
      ...entry,
      size,
      mtimeSec: isLate ? latest : this.#stats[STAT_MTIME_SEC]!,
      mtimeNsec: isLate ? 0 : this.#stats[STAT_MTIME_NSEC]!,
    };
  }

  async #addFile(entry: TarEntry, fd: number): Promise<void> {
    await this.#tar.put(encodeEntryHeader(entry));
    const isWhole = await this.#tar.putBody(fd, entry.size, display(entry.path));
    if (!isWhole)
      this.#warn(`${display(entry.path)}: became shorter while it was packed; filled with zeros`);
  }

  #warn(message: string): void {
    if (this.#diff.warnings.length < MAX_WARNINGS) this.#diff.warnings.push(message);
  }

  async finish(): Promise<PackedLayer> {
    await this.#tar.end();
    const { diffId, digest, size } = await this.#compressor.finish();
    return {
      empty: false,
      diffId,
      digest,
      size,
      mediaType: LAYER_MEDIA_TYPE[this.#options.compression],
      entries: this.#entries,
      newestMtimeSec: this.#newestMtimeSec,
      warnings: this.#diff.warnings,
    };
  }

  /** Releases everything; removes the blob unless it is finished. Idempotent. */
  abort(): void {
    this.#compressor.abort();
  }
}
