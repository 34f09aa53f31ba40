/**
 * What precedes an entry to say more than its header block can: pax headers, local and global, and
 * GNU long names. Collects their bodies and remembers what they say until the entry has come.
 */

import { type ByteString, fromBuffer } from "../system/bytes.js";
import { ResourceExhaustedError } from "../system/errors.js";
import type { LayerLimits } from "./limits.js";
import {
  applyPaxRecords,
  copyPaxAttributes,
  emptyPaxAttributes,
  type PaxAttributes,
} from "./pax-records.js";
import type { RawHeader } from "./tar-header.js";

const PAX_LOCAL = 0x78;
const PAX_GLOBAL = 0x67;
/** Solaris tar's spelling of "x". */
const SOLARIS_PAX = 0x58;
const GNU_LONG_NAME = 0x4c;
const GNU_LONG_LINK = 0x4b;

/** The extended headers of one archive. */
export class ExtendedHeaders {
  readonly #limits: LayerLimits;
  readonly #global: PaxAttributes = emptyPaxAttributes();
  #local: PaxAttributes | undefined;
  #longName: ByteString | undefined;
  #longLink: ByteString | undefined;
  #body: Buffer = Buffer.alloc(0);
  #fill = 0;
  #type = 0;

  constructor(limits: LayerLimits) {
    this.#limits = limits;
  }

  /** Local records if the coming entry has any (they began as a copy of the global ones), else the global ones. */
  get attributes(): PaxAttributes {
    return this.#local ?? this.#global;
  }

  get longName(): ByteString | undefined {
    return this.#longName;
  }

  get longLink(): ByteString | undefined {
    return this.#longLink;
  }

  /** True when something waits for its entry: an archive cannot end here. */
  get isPending(): boolean {
    return [this.#local, this.#longName, this.#longLink].some((item) => item !== undefined);
  }

  /**
   * Begins to collect the body of `header` if it is an extended header; false when it is an entry.
   *
   * @throws ResourceExhaustedError longer than the limit
   */
  start(header: RawHeader, where: string): boolean {
    switch (header.type) {
      case PAX_LOCAL:
      case PAX_GLOBAL:
      case SOLARIS_PAX:
        requireSize(header.size, this.#limits.paxHeaderBytes, "pax header", where);
        break;
      case GNU_LONG_NAME:
      case GNU_LONG_LINK:
        // A directory's slash and the terminating NUL come on top.
        requireSize(header.size, this.#limits.pathBytes + 2, "long name", where);
        break;
      default:
        return false;
    }
    this.#body = Buffer.allocUnsafe(header.size);
    this.#fill = 0;
    this.#type = header.type;
    return true;
  }

  /** Takes body bytes from `chunk` at `at`; where it stopped. */
  take(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#body.length - this.#fill);
    chunk.copy(this.#body, this.#fill, at, end);
    this.#fill += end - at;
    return end;
  }

  /** True when the whole body has been taken. */
  get isComplete(): boolean {
    return this.#fill === this.#body.length;
  }

  /**
   * Interprets the collected body.
   *
   * @throws CorruptDataError malformed records
   */
  finish(where: string): void {
    switch (this.#type) {
      case PAX_GLOBAL:
        applyPaxRecords(this.#global, this.#body, where);
        break;
      case GNU_LONG_NAME:
        this.#longName = untilNul(this.#body);
        break;
      case GNU_LONG_LINK:
        this.#longLink = untilNul(this.#body);
        break;
      default:
        this.#local = copyPaxAttributes(this.#global);
        applyPaxRecords(this.#local, this.#body, where);
    }
  }

  /** Forgets all but the global records, once the entry has come. */
  clear(): void {
    this.#local = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
  }
}

function requireSize(size: number, limit: number, what: string, where: string): void {
  if (size >= 0 && size <= limit) return;
  throw new ResourceExhaustedError(
    `${where}: ${what} of ${size} bytes exceeds the limit of ${limit}`,
  );
}

function untilNul(bytes: Buffer): ByteString {
  const end = bytes.indexOf(0);
  return fromBuffer(bytes, 0, end < 0 ? bytes.length : end);
}
