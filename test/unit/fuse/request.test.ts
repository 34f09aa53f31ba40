import { expect, test } from "vitest";
import { MalformedRequest, RefusedRequest, RequestBuffer } from "../../../src/fuse/request.js";
import { deliver, encodeRequest, names } from "./request-encoder.js";

test("the header's fields come out, the 64-bit ones exactly", () => {
  const request = new RequestBuffer();
  const node = 2 ** 52 + 12345;
  const unique = 0xfedcba9876543210n;
  deliver(request, encodeRequest({ opcode: 3, unique, node, uid: 4294967294, gid: 7, pid: 99 }));
  expect(request.opcode).toBe(3);
  expect(request.node).toBe(node);
  expect(BigInt(request.uniqueHigh) * 2n ** 32n + BigInt(request.uniqueLow)).toBe(unique);
  expect(request.caller).toEqual({ uid: 4294967294, gid: 7, pid: 99 });
});

test("a message whose own length disagrees is malformed, yet answerable", () => {
  const request = new RequestBuffer();
  const message = encodeRequest({ opcode: 1, unique: 77n }, [], names("name"));
  message.writeUInt32LE(message.length + 1, 0);
  message.copy(request.buffer);
  expect(() => request.begin(message.length)).toThrow(MalformedRequest);
  expect(request.uniqueLow).toBe(77);
});

test("names end where the message ends, never in what an older one left behind", () => {
  const request = new RequestBuffer();
  deliver(request, encodeRequest({ opcode: 1 }, [], names("a-long-older-name")));
  const unended = encodeRequest({ opcode: 1 }, [], Buffer.from("abc"));
  deliver(request, unended);
  expect(() => request.lastName(40)).toThrow(MalformedRequest);
  expect(() => request.firstName(40)).toThrow(MalformedRequest);
  expect(() => request.entryName(40)).toThrow(MalformedRequest);
});

test("an empty name, one with a NUL inside, and one too many are malformed", () => {
  const request = new RequestBuffer();
  deliver(request, encodeRequest({ opcode: 1 }, [], names("")));
  expect(() => request.lastName(40)).toThrow(MalformedRequest);
  deliver(request, encodeRequest({ opcode: 1 }, [], names("two", "names")));
  expect(() => request.lastName(40)).toThrow(MalformedRequest);
  deliver(request, encodeRequest({ opcode: 12 }, [[64, 1]], names("only-one")));
  request.firstName(48);
  expect(() => request.lastName(request.afterName)).toThrow(MalformedRequest);
});

test("an entry's name of 255 bytes passes, one of 256 is refused", () => {
  const request = new RequestBuffer();
  deliver(request, encodeRequest({ opcode: 1 }, [], names("\u00ff".repeat(255))));
  expect(request.entryName(40)).toBe("\u00ff".repeat(255));
  deliver(request, encodeRequest({ opcode: 1 }, [], names("x".repeat(256))));
  expect(() => request.entryName(40)).toThrow(RefusedRequest);
});

test("data must fill the message to its end", () => {
  const request = new RequestBuffer();
  const message = encodeRequest({ opcode: 16 }, Array(5).fill([64, 0]), Buffer.alloc(100, 1));
  deliver(request, message);
  expect(request.payload(80, 100)).toEqual(Buffer.alloc(100, 1));
  expect(() => request.payload(80, 99)).toThrow(MalformedRequest);
  expect(() => request.payload(80, 101)).toThrow(MalformedRequest);
  expect(() => request.payload(80, 0xffffffff)).toThrow(MalformedRequest);
});

test("data of whole pages is the same view each time, without a copy", () => {
  const request = new RequestBuffer();
  const fields = Array<[64, number]>(5).fill([64, 0]);
  deliver(request, encodeRequest({ opcode: 16 }, fields, Buffer.alloc(8192, 1)));
  const first = request.payload(80, 8192);
  deliver(request, encodeRequest({ opcode: 16 }, fields, Buffer.alloc(8192, 2)));
  expect(request.payload(80, 8192)).toBe(first);
  expect(first[8191]).toBe(2);
});
