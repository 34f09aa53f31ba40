/**
 * Kubelets and crictl up to Kubernetes 1.30 send the socket's path as `:authority`. That is no authority,
 * and Node's HTTP/2 refuses such requests before we see them. So the bytes of such clients go through
 * here, where the value is replaced on the way in.
 *
 * Only what has to be is parsed: frame headers, and in HEADERS frames the literals whose name is entry 1
 * of HPACK's static table. The replacement is never longer than the original, so the reader's table of
 * recent fields holds at least what the client thinks it holds.
 *
 * @see RFC 9113, sections 3.4, 4.1 and 6.2; RFC 7541, sections 5 and 6
 */

import type { Socket } from "node:net";
import { Duplex } from "node:stream";

const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const HEADERS = 0x1;
const PADDED = 0x8;
const PRIORITY = 0x20;
/** Weight and dependency. */
const PRIORITY_BYTES = 5;
const AUTHORITY_INDEX = 1;
/** One character, not Huffman-coded. */
const REPLACEMENT = Buffer.from("\x01x", "latin1");

/** The connection with every `:authority` replaced by "x"; ends and breaks as the connection does. */
export function withPlainAuthority(socket: Socket): Duplex {
  const filter = new AuthorityFilter();
  const duplex = new Duplex({
    read: () => socket.resume(),
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, done),
    final: (done) => void socket.end(done),
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (chunk: Buffer) => {
    if (!duplex.push(filter.pass(chunk))) socket.pause();
  });
  socket.on("end", () => duplex.push(null));
  socket.on("error", (error) => duplex.destroy(error));
  socket.on("close", () => duplex.destroy());
  return duplex;
}

/** What a client sends on one connection, in any pieces. */
export class AuthorityFilter {
  #held: Buffer = Buffer.alloc(0);
  /** Bytes that go through as they are: the preface, then bodies of other frames. */
  #plain = PREFACE_BYTES;

  /** @returns what can go on by now; the rest comes with a later call */
  pass(chunk: Buffer): Buffer {
    let input = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const output: Buffer[] = [];
    for (;;) {
      const plain = Math.min(this.#plain, input.length);
      output.push(input.subarray(0, plain));
      input = input.subarray(plain);
      this.#plain -= plain;
      if (input.length < FRAME_HEADER_BYTES) break;
      const size = FRAME_HEADER_BYTES + input.readUIntBE(0, 3);
      if (input[3] !== HEADERS) {
        this.#plain = size;
        continue;
      }
      if (input.length < size) break;
      output.push(replaceAuthority(input.subarray(0, size)));
      input = input.subarray(size);
    }
    this.#held = input;
    return Buffer.concat(output);
  }
}

/** @param frame a whole HEADERS frame */
function replaceAuthority(frame: Buffer): Buffer {
  const flags = frame[4]!;
  const padding = flags & PADDED ? frame[FRAME_HEADER_BYTES]! : 0;
  const start =
    FRAME_HEADER_BYTES + (flags & PADDED ? 1 : 0) + (flags & PRIORITY ? PRIORITY_BYTES : 0);
  const value = findAuthority(frame, start, frame.length - padding);
  if (value === undefined) return frame;
  const changed = Buffer.concat([
    frame.subarray(0, value.start),
    REPLACEMENT,
    frame.subarray(value.end),
  ]);
  changed.writeUIntBE(changed.length - FRAME_HEADER_BYTES, 0, 3);
  return changed;
}

type Range = { readonly start: number; readonly end: number };

/** Where the literal value of `:authority` stands, its length included; undefined when there is none. */
function findAuthority(block: Buffer, start: number, end: number): Range | undefined {
  for (let at = start; at < end; ) {
    const first = block[at]!;
    if (first & 0x80) {
      at = readInteger(block, at, 7).next;
    } else if ((first & 0xe0) === 0x20) {
      at = readInteger(block, at, 5).next;
    } else {
      const name = readInteger(block, at, first & 0x40 ? 6 : 4);
      const valueAt = name.value === 0 ? skipString(block, name.next) : name.next;
      const next = skipString(block, valueAt);
      // A field that goes on in a CONTINUATION frame, or nonsense: the HTTP/2 parser's to judge.
      if (next > end) return undefined;
      if (name.value === AUTHORITY_INDEX) {
        return next - valueAt < REPLACEMENT.length ? undefined : { start: valueAt, end: next };
      }
      at = next;
    }
  }
  return undefined;
}

function skipString(block: Buffer, at: number): number {
  const { value, next } = readInteger(block, at, 7);
  return next + value;
}

function readInteger(block: Buffer, at: number, prefix: number): { value: number; next: number } {
  const limit = 2 ** prefix - 1;
  let value = (block[at] ?? 0) & limit;
  let next = at + 1;
  if (value < limit) return { value, next };
  for (let factor = 1; next < block.length; factor *= 128) {
    const byte = block[next++]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) break;
  }
  return { value, next };
}
