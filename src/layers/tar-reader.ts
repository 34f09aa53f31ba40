/**
 * A push parser of tar archives: bytes go in as they come, entries and borrowed slices of their
 * bodies come out, synchronously. v7, ustar, star, GNU (long names, base-256, sparse) and pax
 * (local and global headers, attributes, all sparse versions) are understood.
 *
 * What it does not decide: whether an entry's path is safe. It promises only that names hold no
 * NUL, that the numbers are in range, and that bodies have the announced length.
 *
 * Where the formats leave room, it follows Go's archive/tar, because that is what docker,
 * containerd and podman agree on: only regular files have bodies, whatever size a link or a device
 * states; an old GNU long name beats a pax path; a name that ends in "/" makes a plain file a
 * directory. It differs in that global pax headers apply, as POSIX has it, and that types outside
 * the standard (volume labels, multi-volume parts) are refused by name.
 */

import type { ByteString } from "../system/bytes.js";
import { CorruptDataError, ResourceExhaustedError, UnsupportedError } from "../system/errors.js";
import { ExtendedHeaders } from "./extended-headers.js";
import { DEFAULT_LIMITS, type LayerLimits } from "./limits.js";
import { type PaxAttributes, type PaxSparse, toExtents } from "./pax-records.js";
import { readExtensionMap, readHeaderMap, TextMapReader } from "./sparse-body.js";
import { type SparseExtent, TAR_BLOCK, type TarEntry } from "./tar-entry.js";
import { decodeHeader, FIELD, isZeroBlock, type RawHeader, readNumber } from "./tar-header.js";
import { isFileFlag, mergeEntry, quotePath } from "./tar-merge.js";

/** Receives what the reader finds. What a method throws ends the parse and reaches `write`'s caller. */
export interface TarSink {
  /** A new entry; the previous one is complete. The object may be kept. */
  entry(entry: TarEntry): void;
  /** `chunk[start, end)` continues the current entry's body; borrowed until the call returns. */
  data(chunk: Buffer, start: number, end: number): void;
}

/** Settings of a TarReader. */
export interface TarReaderOptions {
  /** The archive's name in errors, for example "layer sha256:…". */
  readonly subject: string;
  readonly limits?: LayerLimits;
}

/** What the next bytes are: a header, … */
const HEADER = 0;
/** … the body of a pax header or a GNU long name, … */
const META = 1;
/** … an old GNU sparse extension block, … */
const EXTENSION = 2;
/** … the text map of pax sparse 1.0, … */
const TEXT_MAP = 3;
const BODY = 4;
const PADDING = 5;
/** … the second zero block, … */
const HALF_END = 6;
/** … nothing any more. */
const END = 7;
type State = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7;

const GNU_SPARSE = 0x53;

/** See the file comment. One reader parses one archive. */
export class TarReader {
  readonly #sink: TarSink;
  readonly #subject: string;
  readonly #limits: LayerLimits;
  /** A block that straddles chunks is put together here. */
  readonly #block = Buffer.alloc(TAR_BLOCK);
  #blockFill = 0;
  #state: State = HEADER;
  /** Bytes before the current chunk. */
  #position = 0;
  #entries = 0;

  /** Bytes of the current body, then of its padding, still to come. */
  #remaining = 0;
  #padding = 0;
  readonly #extended: ExtendedHeaders;

  /** The header whose sparse map is being read. */
  #header: RawHeader | undefined;
  #mapNumbers: number[] = [];
  #mapSize = 0;
  #textMap: TextMapReader | undefined;
  #currentPath = "" as ByteString;

  constructor(sink: TarSink, options: TarReaderOptions) {
    this.#sink = sink;
    this.#subject = options.subject;
    this.#limits = options.limits ?? DEFAULT_LIMITS;
    this.#extended = new ExtendedHeaders(this.#limits);
  }

  /** Entries seen so far. */
  get entries(): number {
    return this.#entries;
  }

  /**
   * Parses the next bytes; `chunk` is borrowed until the call returns.
   *
   * @throws CorruptDataError, ResourceExhaustedError (a limit), UnsupportedError (entry type), or
   *   what the sink throws; the reader is then unusable
   */
  write(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state) {
        case BODY:
          at = this.#takeBody(chunk, at);
          break;
        case META:
          at = this.#takeMeta(chunk, at);
          break;
        case PADDING:
          at = this.#takePadding(chunk, at);
          break;
        case END:
          // Archives are padded to records of any size, with anything.
          at = chunk.length;
          break;
        default:
          at = this.#takeBlock(chunk, at);
      }
    }
    this.#position += chunk.length;
  }

  /**
   * Declares the archive complete. The two zero blocks at the end may be missing.
   *
   * @throws CorruptDataError the archive stops inside a header or an entry
   */
  end(): void {
    const isBoundary =
      (this.#state === HEADER || this.#state === HALF_END) && this.#blockFill === 0;
    if (this.#state === END) return;
    if (isBoundary && !this.#extended.isPending) return;
    const inside = this.#state === HEADER ? "a header" : this.#inside();
    throw new CorruptDataError(
      `${this.#subject}: truncated tar archive: ends inside ${inside} after ${this.#position} bytes`,
    );
  }

  #inside(): string {
    const isExtended = this.#state === META || this.#extended.isPending;
    return isExtended ? "an extended header" : `entry ${quotePath(this.#currentPath)}`;
  }

  #where(): string {
    return `${this.#subject}, entry ${this.#entries + 1}`;
  }

  #takeBody(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#remaining);
    this.#remaining -= end - at;
    if (this.#remaining === 0) this.#startPadding();
    this.#sink.data(chunk, at, end);
    return end;
  }

  #startPadding(): void {
    this.#state = this.#padding === 0 ? HEADER : PADDING;
  }

  #takePadding(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#padding);
    this.#padding -= end - at;
    if (this.#padding === 0) this.#state = HEADER;
    return end;
  }

  /** Hands one whole block to the state that wants it, without a copy when it lies within the chunk. */
  #takeBlock(chunk: Buffer, at: number): number {
    if (this.#blockFill === 0 && chunk.length - at >= TAR_BLOCK) {
      this.#parseBlock(chunk, at);
      return at + TAR_BLOCK;
    }
    const end = Math.min(chunk.length, at + TAR_BLOCK - this.#blockFill);
    chunk.copy(this.#block, this.#blockFill, at, end);
    this.#blockFill += end - at;
    if (this.#blockFill === TAR_BLOCK) {
      this.#blockFill = 0;
      this.#parseBlock(this.#block, 0);
    }
    return end;
  }

  #parseBlock(block: Buffer, at: number): void {
    switch (this.#state) {
      case EXTENSION:
        this.#parseExtension(block, at);
        break;
      case TEXT_MAP:
        this.#parseTextMap(block, at);
        break;
      default:
        this.#parseHeader(block, at);
    }
  }

  #parseHeader(block: Buffer, at: number): void {
    if (block[at] === 0 && isZeroBlock(block, at)) {
      this.#state = this.#state === HALF_END ? END : HALF_END;
      return;
    }
    if (this.#state === HALF_END) {
      throw new CorruptDataError(`${this.#where()}: a lone zero block inside the archive`);
    }
    const header = decodeHeader(block, at, this.#where());
    if (this.#extended.start(header, this.#where())) this.#startMeta(header);
    else if (header.type === GNU_SPARSE) this.#startOldSparse(header, block, at);
    else this.#startEntry(header);
  }

  #startMeta(header: RawHeader): void {
    this.#padding = paddingOf(header.size);
    this.#state = META;
    if (this.#extended.isComplete) this.#finishMeta();
  }

  #takeMeta(chunk: Buffer, at: number): number {
    const end = this.#extended.take(chunk, at);
    if (this.#extended.isComplete) this.#finishMeta();
    return end;
  }

  #finishMeta(): void {
    this.#startPadding();
    this.#extended.finish(this.#where());
  }

  #startOldSparse(header: RawHeader, block: Buffer, at: number): void {
    this.#header = header;
    this.#mapNumbers = [];
    const size = readNumber(block, at + FIELD.sparseRealSize[0], FIELD.sparseRealSize[1]);
    if (size === undefined || size < 0) {
      throw new CorruptDataError(`${this.#where()}: sparse file: bad real size`);
    }
    this.#mapSize = size;
    this.#currentPath = header.path;
    if (readHeaderMap(block, at, this.#mapNumbers, this.#where())) this.#state = EXTENSION;
    else this.#finishOldSparse();
  }

  #parseExtension(block: Buffer, at: number): void {
    const more = readExtensionMap(block, at, this.#mapNumbers, this.#where());
    this.#requireExtents(this.#mapNumbers.length / 2);
    if (!more) this.#finishOldSparse();
  }

  #requireExtents(count: number): void {
    if (count <= this.#limits.sparseExtents) return;
    throw new ResourceExhaustedError(
      `${this.#where()}: sparse file with more than ${this.#limits.sparseExtents} runs`,
    );
  }

  #finishOldSparse(): void {
    const header = this.#header as RawHeader;
    const extents = toExtents(this.#mapNumbers, this.#mapSize, this.#where());
    this.#emit(header, this.#extended.attributes, this.#bodyBytes(header), this.#mapSize, extents);
  }

  /** Bytes of body that the archive holds for a file. */
  #bodyBytes(header: RawHeader): number {
    const size = this.#extended.attributes.size ?? header.size;
    if (size >= 0) return size;
    throw new CorruptDataError(`${this.#where()}: negative size`);
  }

  #startEntry(header: RawHeader): void {
    const attributes = this.#extended.attributes;
    const isFile = isFileFlag(header.type);
    const stored = isFile ? this.#bodyBytes(header) : 0;
    const sparse = isFile ? attributes.sparse : undefined;
    if (sparse === undefined) this.#emit(header, attributes, stored, stored, undefined);
    else if (sparse.major === 1 && sparse.minor === 0) this.#startTextMap(header, sparse, stored);
    else if (sparse.major === 0) this.#startPaxMap(header, sparse, stored);
    else {
      throw new UnsupportedError(
        `${this.#where()}: GNU sparse format ${sparse.major}.${sparse.minor}`,
      );
    }
  }

  /** Formats 0.0 and 0.1: the map came with the records. */
  #startPaxMap(header: RawHeader, sparse: PaxSparse, stored: number): void {
    const size = sparse.realSize ?? stored;
    if (sparse.blocks !== undefined && sparse.map.length !== sparse.blocks * 2) {
      throw new CorruptDataError(`${this.#where()}: sparse map: not as many runs as announced`);
    }
    this.#requireExtents(sparse.map.length / 2);
    const extents = toExtents(sparse.map, size, this.#where());
    this.#emit(header, this.#extended.attributes, stored, size, extents);
  }

  #startTextMap(header: RawHeader, sparse: PaxSparse, stored: number): void {
    this.#header = header;
    this.#mapSize = sparse.realSize ?? stored;
    this.#currentPath = sparse.name ?? header.path;
    this.#textMap = new TextMapReader(this.#where(), this.#limits.sparseExtents);
    this.#remaining = stored;
    this.#state = TEXT_MAP;
  }

  #parseTextMap(block: Buffer, at: number): void {
    const map = this.#textMap as TextMapReader;
    this.#remaining -= TAR_BLOCK;
    const isComplete = map.push(block, at);
    if (this.#remaining < 0 || (this.#remaining === 0 && !isComplete)) {
      throw new CorruptDataError(`${this.#where()}: sparse map: longer than the entry`);
    }
    if (!isComplete) return;
    const extents = toExtents(map.numbers, this.#mapSize, this.#where());
    const header = this.#header as RawHeader;
    this.#emit(header, this.#extended.attributes, this.#remaining, this.#mapSize, extents);
  }

  /** Merges what is known of an entry, hands it out, and expects its body. */
  #emit(
    header: RawHeader,
    attributes: PaxAttributes,
    stored: number,
    size: number,
    sparse: readonly SparseExtent[] | undefined,
  ): void {
    this.#countEntry();
    const entry = mergeEntry({
      header,
      attributes,
      longName: this.#extended.longName,
      longLink: this.#extended.longLink,
      size,
      stored,
      sparse,
      subject: this.#subject,
      limits: this.#limits,
    });
    this.#currentPath = entry.path;
    this.#remaining = entry.type === "file" ? stored : 0;
    this.#padding = paddingOf(this.#remaining);
    this.#extended.clear();
    this.#state = this.#remaining > 0 ? BODY : HEADER;
    this.#sink.entry(entry);
  }

  #countEntry(): void {
    if (this.#entries >= this.#limits.entries) {
      throw new ResourceExhaustedError(
        `${this.#subject}: more than ${this.#limits.entries} entries`,
      );
    }
    this.#entries++;
  }
}

function paddingOf(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}
