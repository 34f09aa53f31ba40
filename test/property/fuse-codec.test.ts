import fc from "fast-check";
import { expect, test } from "vitest";
import { Workspace } from "../../src/fuse/exchange.js";
import type { Attributes } from "../../src/fuse/file-system.js";
import { emptyAttributes } from "../../src/fuse/file-system.js";
import { OPERATIONS } from "../../src/fuse/operations.js";
import { MalformedRequest, RefusedRequest, RequestBuffer } from "../../src/fuse/request.js";
import type { ByteString } from "../../src/system/bytes.js";
import { readDirents } from "../unit/fuse/dirent-reader.js";
import { deliver, encodeRequest, names } from "../unit/fuse/request-encoder.js";
import { StubExchange } from "../unit/fuse/stub-exchange.js";

const safe = fc.maxSafeNat();
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const time = fc.integer({ min: -(2 ** 40), max: 2 ** 40 });
const nameOf = (maxLength: number) =>
  fc
    .uint8Array({ min: 1, max: 255, minLength: 1, maxLength })
    .map((bytes) => Buffer.from(bytes).toString("latin1") as ByteString);

const anyAttributes: fc.Arbitrary<Attributes> = fc.record({
  ino: safe,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  size: safe,
  blocks: safe,
  blksize: u32,
  atimeSec: time,
  atimeNsec: u32,
  mtimeSec: time,
  mtimeNsec: u32,
  ctimeSec: time,
  ctimeNsec: u32,
  isVolatile: fc.boolean(),
  incarnation: fc.constant(0),
});

test("any 64-bit field below 2^53 is decoded exactly, signed or not", () => {
  const request = new RequestBuffer();
  fc.assert(
    fc.property(safe, time, (unsigned, signed) => {
      deliver(
        request,
        encodeRequest({ opcode: 0, node: unsigned }, [
          [64, unsigned],
          [64, signed],
        ]),
      );
      expect(request.node).toBe(unsigned);
      expect(request.u64(40)).toBe(unsigned);
      expect(request.s64(48)).toBe(signed);
    }),
  );
});

test("any two names are decoded as they were written", () => {
  const request = new RequestBuffer();
  fc.assert(
    fc.property(nameOf(300), nameOf(300), (first, last) => {
      deliver(request, encodeRequest({ opcode: 12 }, [[64, 0]], names(first, last)));
      expect(request.firstName(48)).toBe(first);
      expect(request.lastName(request.afterName)).toBe(last);
    }),
  );
});

test("any attributes put into a reply are read back equal", () => {
  const { reply } = new Workspace();
  fc.assert(
    fc.property(anyAttributes, (attributes) => {
      reply.attributes(attributes);
      const view = reply.buffer.subarray(32);
      const u64 = (at: number) => Number(view.readBigInt64LE(at));
      const wide = [0, 8, 16, 24, 32, 40].map(u64);
      const { ino, size, blocks, atimeSec, mtimeSec, ctimeSec } = attributes;
      expect(wide).toEqual([ino, size, blocks, atimeSec, mtimeSec, ctimeSec]);
      const narrow = [48, 52, 56, 60, 64, 68, 72, 76, 80, 84].map((at) => view.readUInt32LE(at));
      const { atimeNsec, mtimeNsec, ctimeNsec, mode, nlink, uid, gid, rdev, blksize } = attributes;
      expect(narrow).toEqual([
        atimeNsec,
        mtimeNsec,
        ctimeNsec,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        blksize,
        0,
      ]);
    }),
  );
});

test("any listing comes back entry by entry, and never exceeds its limit", () => {
  const { directory, reply } = new Workspace();
  const entries = fc.array(fc.tuple(nameOf(255), safe, fc.integer({ min: 0, max: 15 }), safe));
  const limit = fc.integer({ min: 0, max: 20_000 });
  fc.assert(
    fc.property(entries, limit, fc.boolean(), (list, limitBytes, plus) => {
      directory.begin(limitBytes, plus);
      const taken = list.filter(([name, ino, type, cookie]) => {
        const attributes = { ...emptyAttributes(), ino, mode: type << 12 };
        return plus
          ? directory.addPlus(name, cookie, { node: ino, generation: 0, attributes })
          : directory.add(name, ino, type << 12, cookie);
      });
      expect(directory.length).toBeLessThanOrEqual(limitBytes);
      const read = readDirents(reply.buffer.subarray(16, 16 + directory.length), plus);
      expect(read.map((d) => [d.name, Number(d.ino), d.type, Number(d.cookie)])).toEqual(taken);
    }),
  );
});

test("no message, however malformed, does anything but be served or refused", () => {
  const answers = new Proxy({}, { get: () => () => 0 });
  const x = new StubExchange(answers);
  const opcodes = OPERATIONS.flatMap((operation, opcode) =>
    operation === undefined ? [] : [opcode],
  );
  const message = fc.tuple(
    fc.constantFrom(...opcodes),
    fc.uint8Array({ maxLength: 600 }),
    fc.boolean(),
  );
  fc.assert(
    fc.property(message, ([opcode, rest, isPadded]) => {
      const minimum = OPERATIONS[opcode]!.minimumBytes - 40;
      const padding = isPadded || rest.length < minimum ? Buffer.alloc(minimum) : Buffer.alloc(0);
      const request = encodeRequest({ opcode }, [], Buffer.concat([padding, rest]));
      try {
        const outcome = x.run(request);
        expect(typeof outcome).toBe("number");
      } catch (error) {
        expect(error instanceof MalformedRequest || error instanceof RefusedRequest).toBe(true);
      }
    }),
    { numRuns: 2000 },
  );
});
