/**
 * gRPC's length-prefixed messages: one flag byte (0, or 1 for a compressed message), the length in
 * four bytes big-endian, then the message.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message"
 */

import { MAX_MESSAGE_BYTES } from "../services/status.js";
import { CorruptDataError, ResourceExhaustedError } from "../system/errors.js";

const HEADER_BYTES = 5;

/**
 * The frame of one message.
 *
 * @throws ResourceExhaustedError longer than MAX_MESSAGE_BYTES: the daemon would cut the connection
 */
export function frameMessage(message: Uint8Array): Buffer {
  checkSize(message.length);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, HEADER_BYTES);
  return frame;
}

/** Cuts a byte stream into messages. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;

  /**
   * Takes the next bytes (kept until their messages are complete) and returns the messages that
   * they complete.
   *
   * @throws ResourceExhaustedError a message longer than MAX_MESSAGE_BYTES
   * @throws CorruptDataError a compressed message (none was negotiated)
   */
  push(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    const messages: Buffer[] = [];
    for (let message = this.#next(); message !== undefined; message = this.#next()) {
      messages.push(message);
    }
    return messages;
  }

  /** True when bytes of an incomplete message are left. */
  get pending(): boolean {
    return this.#length > 0;
  }

  #next(): Buffer | undefined {
    if (this.#length < HEADER_BYTES) return undefined;
    const header = this.#peekHeader();
    if (header[0] !== 0) throw new CorruptDataError("gRPC message: compressed, none was asked for");
    const size = header.readUInt32BE(1);
    checkSize(size);
    if (this.#length < HEADER_BYTES + size) return undefined;
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    const end = HEADER_BYTES + size;
    this.#chunks = all.length === end ? [] : [all.subarray(end)];
    this.#length = all.length - end;
    return all.subarray(HEADER_BYTES, end);
  }

  /** The header bytes, joined only when they straddle chunks. */
  #peekHeader(): Buffer {
    const first = this.#chunks[0]!;
    if (first.length >= HEADER_BYTES) return first;
    this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }
}

function checkSize(size: number): void {
  if (size <= MAX_MESSAGE_BYTES) return;
  throw new ResourceExhaustedError(
    `gRPC message of ${size} bytes: longer than the limit of ${MAX_MESSAGE_BYTES}`,
  );
}
