/** Writes requests as the kernel does, independently of the decoder: field by field, with a DataView. */

import type { RequestBuffer } from "../../../src/fuse/request.js";

/** A field of an argument structure: its width in bits and its value. */
export type Field = readonly [bits: 32 | 64, value: number | bigint];

/** Header fields; the rest of the header is fixed. */
export interface Header {
  opcode: number;
  unique?: bigint;
  node?: number;
  uid?: number;
  gid?: number;
  pid?: number;
}

/** One whole message: header, fields, then `rest` as it is. */
export function encodeRequest(
  header: Header,
  fields: readonly Field[] = [],
  rest: Buffer = Buffer.alloc(0),
): Buffer {
  const size = 40 + fields.reduce((sum, [bits]) => sum + bits / 8, 0);
  const message = Buffer.alloc(size);
  const view = new DataView(message.buffer, message.byteOffset, size);
  view.setUint32(0, size + rest.length, true);
  view.setUint32(4, header.opcode, true);
  view.setBigUint64(8, header.unique ?? 1n, true);
  view.setBigUint64(16, BigInt(header.node ?? 1), true);
  view.setUint32(24, header.uid ?? 0, true);
  view.setUint32(28, header.gid ?? 0, true);
  view.setUint32(32, header.pid ?? 0, true);
  let at = 40;
  for (const [bits, value] of fields) {
    if (bits === 32) view.setUint32(at, Number(value), true);
    else view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
    at += bits / 8;
  }
  return Buffer.concat([message, rest]);
}

/** Names, each ended by NUL. */
export function names(...list: string[]): Buffer {
  return Buffer.from(list.map((name) => `${name}\0`).join(""), "latin1");
}

/** Puts a message where FuseChannel.receive would. */
export function deliver(request: RequestBuffer, message: Buffer): void {
  message.copy(request.buffer);
  request.begin(message.length);
}
