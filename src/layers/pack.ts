/**
 * Packing what a view changed as a layer blob, in one pass: diff, tar, compression, digest and diff ID.
 *
 * Same upper, same image, same options: same bytes. A view may be in use meanwhile; a file that
 * changes under the reader never breaks the archive, and each such file is reported.
 */

import { dirname } from "node:path";
import type { Digest } from "../content/digest.js";
import { sys } from "../system/addon.js";
import { type ByteString, display } from "../system/bytes.js";
import { AT_EMPTY_PATH } from "../system/constants.js";
import { ENOENT, must } from "../system/errno.js";
import { CancelledError, SyscallError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import {
  STAT_INO,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_SIZE,
  STAT_SLOTS,
} from "../system/native.js";
import { LayerDiff, type LayerEntry } from "./diff.js";
import { FrozenFiles } from "./frozen-files.js";
import { LAYER_MEDIA_TYPE, LayerCompressor } from "./layer-compressor.js";
import { LayerTar } from "./layer-tar.js";
import { type EntryGroup, ReadAhead } from "./read-ahead.js";
import type { TarEntry } from "./tar-entry.js";
import { encodeEntryHeader, padding } from "./tar-writer.js";
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
  /** Given when programs wait until the view has been read. */
  readonly pause?: WriterPause | undefined;
  /** Called when the view has been read and may change again; before the blob is complete. */
  readonly onRead?: (() => void) | undefined;
  /** Called now and then with the bytes of tar so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Programs that wait until the view has been read, and files that are written to all the same. */
export interface WriterPause {
  /** Shared memory; its first number is 1 as soon as somebody waits: then reading hurries. */
  readonly waiting: Int32Array;
  /** Descriptors of files that are written to without asking, valid until `onRead`; see frozen-files.ts. */
  readonly unheld: readonly number[];
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
/** How often a view that is written to meanwhile is read before its directories keep still. */
const MAX_READINGS = 5;

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
  const diff = openDiff(options);
  let packing: Packing | undefined;
  let frozen: FrozenFiles | undefined;
  let ahead: ReadAhead | undefined;
  try {
    frozen = await FrozenFiles.take(options.pause?.unheld ?? [], dirname(options.outputPath));
    ahead = new ReadAhead(diff);
    for (let group = await ahead.take(); group !== undefined; group = await ahead.take()) {
      packing ??= new Packing(options, diff, frozen);
      await packing.addAll(group);
    }
    return packing === undefined ? { empty: true } : await packing.finish();
  } catch (error) {
    if (options.signal?.aborted === true && !(error instanceof CancelledError))
      throw new CancelledError(`pack ${options.upperDir}: cancelled`, { cause: error });
    throw error;
  } finally {
    packing?.abort();
    await ahead?.close();
    frozen?.close();
    diff.close();
  }
}

/** Programs that are not held back may remove a directory that is just to be read: then it is all read again. */
function openDiff(options: PackOptions): LayerDiff {
  const { sourceDateEpoch, ...rest } = options;
  const diffOptions = sourceDateEpoch === undefined ? rest : { ...rest, sourceDateEpoch };
  for (let tried = 1; ; tried++) {
    try {
      return new LayerDiff(diffOptions);
    } catch (error) {
      if (tried === MAX_READINGS || !isVanished(error)) throw error;
    }
  }
}

function isVanished(error: unknown): boolean {
  return error instanceof SyscallError && error.errno === ENOENT;
}

class Packing {
  readonly #options: PackOptions;
  readonly #diff: LayerDiff;
  readonly #compressor: LayerCompressor;
  readonly #tar: LayerTar;
  readonly #frozen: FrozenFiles;
  readonly #stats = new Float64Array(STAT_SLOTS);
  /** What was there when directories were read, and not any more when the file was to be. */
  readonly #vanished = new Set<ByteString>();
  #entries = 0;
  #newestMtimeSec = 0;

  constructor(options: PackOptions, diff: LayerDiff, frozen: FrozenFiles) {
    const { outputPath, compression, level, isTemporary, onProgress, onRead, pause } = options;
    this.#options = options;
    this.#diff = diff;
    this.#frozen = frozen;
    const output = { outputPath, compression, level, isTemporary };
    this.#compressor = LayerCompressor.create(output);
    this.#tar = new LayerTar(this.#compressor, {
      directory: dirname(outputPath),
      onProgress,
      onRead,
      check: () => this.#throwIfAborted(),
      isAwaited: () => pause !== undefined && Atomics.load(pause.waiting, 0) === 1,
    });
  }

  #throwIfAborted(): void {
    if (this.#options.signal?.aborted === true)
      throw new CancelledError(`pack ${this.#options.upperDir}: cancelled`);
  }

  async addAll(group: EntryGroup): Promise<void> {
    for (let position = 0; position < group.entries.length; position++) {
      this.#throwIfAborted();
      faultPoint("commit.entry");
      const item = group.entries[position]!;
      const file = group.file(position);
      const isRead = file !== undefined && this.#frozen.get(file.inode) === undefined;
      const added = isRead ? this.#addRead(item.entry, file.bytes) : this.#add(item);
      // A turn for each of a hundred thousand files would take as long as packing them.
      if (added !== undefined) await added;
    }
  }

  #addRead(entry: TarEntry, bytes: Buffer): Promise<void> | undefined {
    return this.#tar.put(this.#header(entry), bytes, padding(entry.size));
  }

  async #add(item: LayerEntry): Promise<void> {
    const fd = this.#open(item);
    if (fd === undefined) {
      if (!this.#vanished.has(item.entry.path)) await this.#tar.put(this.#header(item.entry));
      return;
    }
    try {
      const { entry, data } = this.#current(item, fd);
      await this.#tar.put(this.#header(entry));
      const isWhole = await this.#tar.putBody(data, entry.size, display(entry.path));
      if (!isWhole)
        this.#warn(`${display(entry.path)}: became shorter while it was packed; filled with zeros`);
    } finally {
      sys.close(fd);
    }
  }

  #header(entry: TarEntry): Buffer {
    this.#entries += 1;
    this.#newestMtimeSec = Math.max(this.#newestMtimeSec, entry.mtimeSec);
    return encodeEntryHeader(entry);
  }

  /** A descriptor of a file's data; undefined for what has none, and for what has vanished. */
  #open({ entry, source }: LayerEntry): number | undefined {
    const isLost = entry.type === "hardlink" && this.#vanished.has(entry.linkTarget);
    if (!isLost && source === undefined) return undefined;
    try {
      if (!isLost) return this.#diff.open(source!);
    } catch (error) {
      if (!isVanished(error) || this.#options.pause !== undefined) throw error;
    }
    this.#vanished.add(entry.path);
    this.#warn(`${display(entry.path)}: left out; it vanished while the view was packed`);
    return undefined;
  }

  /** The entry with the size and time that the file has now, and the descriptor to read. */
  #current({ entry, source }: LayerEntry, fd: number): { entry: TarEntry; data: number } {
    if (source === undefined || source.kind === "lower") return { entry, data: fd };
    must(sys.statx(fd, "" as ByteString, AT_EMPTY_PATH, this.#stats), "statx", display(entry.path));
    const inode = this.#stats[STAT_INO]!;
    const copy = this.#frozen.get(inode);
    const size = (copy?.stats ?? this.#stats)[STAT_SIZE]!;
    const hasChanged = copy === undefined ? size !== entry.size : !this.#frozen.isStill(inode);
    if (hasChanged) this.#warn(`${display(entry.path)}: changed while it was packed`);
    const data = copy?.fd ?? fd;
    if (copy === undefined && !hasChanged) return { entry, data };
    return { entry: { ...entry, size, ...this.#time(copy?.stats ?? this.#stats) }, data };
  }

  #time(stats: Float64Array): Pick<TarEntry, "mtimeSec" | "mtimeNsec"> {
    const latest = this.#options.sourceDateEpoch ?? Number.POSITIVE_INFINITY;
    const mtimeSec = stats[STAT_MTIME_SEC]!;
    if (mtimeSec >= latest) return { mtimeSec: latest, mtimeNsec: 0 };
    return { mtimeSec, mtimeNsec: stats[STAT_MTIME_NSEC]! };
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
    this.#tar.close();
  }
}
