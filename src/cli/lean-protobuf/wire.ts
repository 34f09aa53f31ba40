/**
 * Protobuf's wire format, as much as varve.v1 uses of it: varints, length-delimited fields, and
 * skipping what is unknown.
 *
 * @see https://protobuf.dev/programming-guides/encoding/
 */

import { CorruptDataError } from "../../system/errors.js";

/** Wire types. */
export const VARINT = 0;
export const FIXED64 = 1;
export const LENGTH_DELIMITED = 2;
export const FIXED32 = 5;

/** Reads values from the front to the end of `bytes`, which it borrows. */
export class WireReader {
  readonly #bytes: Buffer;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get isAtEnd(): boolean {
    return this.#position >= this.#bytes.length;
  }

  /** @throws CorruptDataError the value is longer than ten bytes or than what is left */
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new CorruptDataError("protobuf message: varint of more than ten bytes");
  }

  /** A tag, a length or an enum value; the sign of an int32. */
  int32(): number {
    // The common case without bigints.
    const byte = this.#byte();
    if (byte < 0x80) return byte;
    this.#position -= 1;
    return Number(BigInt.asIntN(32, this.varint()));
  }

  /** A view of the next field's bytes. */
  delimited(): Buffer {
    const length = this.int32();
    const end = this.#pass(length);
    return this.#bytes.subarray(end - length, end);
  }

  /** Passes over a field of an unknown number. */
  skip(wireType: number): void {
    if (wireType === VARINT) this.varint();
    else if (wireType === LENGTH_DELIMITED) this.delimited();
    else if (wireType === FIXED64) this.#pass(8);
    else if (wireType === FIXED32) this.#pass(4);
    else throw new CorruptDataError(`protobuf message: wire type ${wireType}`);
  }

  /** Moves on, and returns the new position. */
  #pass(length: number): number {
    const end = this.#position + length;
    if (length < 0 || end > this.#bytes.length) {
      throw new CorruptDataError("protobuf message: a field reaches beyond its end");
    }
    this.#position = end;
    return end;
  }

  #byte(): number {
    const byte = this.#bytes[this.#position++];
    if (byte === undefined) throw new CorruptDataError("protobuf message: ends within a field");
    return byte;
  }
}

/** Gathers encoded values. */
export class WireWriter {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  /** @param value taken modulo 2^64: a negative number takes ten bytes, as the format wants */
  varint(value: bigint): this {
    const bytes: number[] = [];
    let rest = BigInt.asUintN(64, value);
    while (rest > 0x7fn) {
      bytes.push(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    bytes.push(Number(rest));
    return this.raw(Uint8Array.from(bytes));
  }

  tag(fieldNumber: number, wireType: number): this {
    return this.varint(BigInt((fieldNumber << 3) | wireType));
  }

  delimited(bytes: Uint8Array): this {
    return this.varint(BigInt(bytes.length)).raw(bytes);
  }

  raw(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    return this;
  }

  finish(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.#length);
    let position = 0;
    for (const part of this.#parts) {
      whole.set(part, position);
      position += part.length;
    }
    return whole;
  }
}
