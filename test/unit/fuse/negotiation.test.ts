import { expect, test } from "vitest";
import * as c from "../../../src/fuse/constants.js";
import { agree, decodeInit } from "../../../src/fuse/negotiation.js";
import { ReplyBuffer } from "../../../src/fuse/reply.js";
import { RequestBuffer } from "../../../src/fuse/request.js";
import { deliver, encodeRequest, type Field } from "./request-encoder.js";

const EVERYTHING = {
  major: 7,
  minor: 45,
  maxReadahead: 131_072,
  flags: 0xffffffff,
  flags2: 0xffffffff,
};

test("INIT is read in its old and its new length", () => {
  const request = new RequestBuffer();
  const short: Field[] = [
    [32, 7],
    [32, 31],
    [32, 131_072],
    [32, 0x3fffffff],
  ];
  deliver(request, encodeRequest({ opcode: c.FUSE_INIT }, short));
  expect(decodeInit(request)).toEqual({
    major: 7,
    minor: 31,
    maxReadahead: 131_072,
    flags: 0x3fffffff,
    flags2: 0,
  });
  const long: Field[] = [
    [32, 7],
    [32, 45],
    [32, 0],
    [32, c.FUSE_INIT_EXT],
    [32, 9],
    [32, 0],
  ];
  deliver(request, encodeRequest({ opcode: c.FUSE_INIT }, long, Buffer.alloc(40)));
  expect(decodeInit(request)).toMatchObject({ flags: c.FUSE_INIT_EXT, flags2: 9 });
});

test("only what the kernel offers is taken, and of that only what we want", () => {
  const all = agree(EVERYTHING, 0)!;
  expect(all.reply.flags & c.FUSE_WRITEBACK_CACHE).toBe(0);
  expect(all.reply.flags & c.FUSE_READDIRPLUS_AUTO).toBe(0);
  expect(all.reply.flags & c.FUSE_ATOMIC_O_TRUNC).toBe(0);
  expect(all.reply.flags & c.FUSE_POSIX_ACL).not.toBe(0);
  expect(all.reply.flags & c.FUSE_DONT_MASK).not.toBe(0);
  const yes = { hasExtendedSetxattr: true, hasExpireOnly: true, hasResend: true };
  expect(all).toMatchObject(yes);
  const none = agree({ ...EVERYTHING, flags: 0, flags2: 0 }, 0)!;
  expect(none.reply.flags).toBe(0);
  expect(none.reply.flags2).toBe(0);
  const no = { hasExtendedSetxattr: false, hasExpireOnly: false, hasResend: false };
  expect(none).toMatchObject(no);
});

test("versions: the smaller minor, another try for a newer major, none for an old kernel", () => {
  expect(agree({ ...EVERYTHING, minor: 31 }, 0)?.reply.minor).toBe(31);
  expect(agree({ ...EVERYTHING, minor: 99 }, 0)?.reply.minor).toBe(c.FUSE_KERNEL_MINOR_VERSION);
  expect(agree({ ...EVERYTHING, major: 8, minor: 0 }, 0)).toBeDefined();
  expect(agree({ ...EVERYTHING, minor: 30 }, 0)).toBeUndefined();
  expect(agree({ ...EVERYTHING, major: 6 }, 0)).toBeUndefined();
});

test("the INIT reply has every field at its place", () => {
  const reply = new ReplyBuffer();
  reply.buffer.fill(0xff);
  const length = reply.init({
    minor: 45,
    maxReadahead: 1,
    flags: 0x80000002,
    flags2: 3,
    maxBackground: 4,
    congestionThreshold: 5,
    maxWrite: 6,
    timeGranularityNs: 7,
    maxPages: 8,
    maxStackDepth: 9,
  });
  expect(length).toBe(64);
  const body = reply.buffer.subarray(16, 80);
  const words = [0, 4, 8, 12, 20, 24, 32, 36].map((at) => body.readUInt32LE(at));
  expect(words).toEqual([7, 45, 1, 0x80000002, 6, 7, 3, 9]);
  expect([16, 18, 28, 30].map((at) => body.readUInt16LE(at))).toEqual([4, 5, 8, 0]);
  expect(body.subarray(40).every((byte) => byte === 0)).toBe(true);
});

test("passthrough is agreed on only when it is wanted and offered, and brings truncation at open", () => {
  const both = agree(EVERYTHING, 2)!;
  expect(both.hasPassthrough).toBe(true);
  expect(both.reply.flags2 & c.FUSE_PASSTHROUGH).not.toBe(0);
  expect(both.reply.flags & c.FUSE_ATOMIC_O_TRUNC).not.toBe(0);
  expect(both.reply.maxStackDepth).toBe(2);
  const withoutIt = { ...EVERYTHING, flags2: (0xffffffff & ~c.FUSE_PASSTHROUGH) >>> 0 };
  for (const refused of [agree(EVERYTHING, 0)!, agree(withoutIt, 1)!]) {
    expect(refused.hasPassthrough).toBe(false);
    expect(refused.reply.flags2 & c.FUSE_PASSTHROUGH).toBe(0);
    expect(refused.reply.flags & c.FUSE_ATOMIC_O_TRUNC).toBe(0);
    expect(refused.reply.maxStackDepth).toBe(0);
  }
});
