import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { crc32, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { inflateRaw } from "pako";
import { describe, expect, it } from "vitest";
import { codecs, native } from "../../../src/system/addon.js";
import { EINVAL } from "../../../src/system/errno.js";

const LEVELS = [1, 2, 3, 4, 5, 6, 7, 8, 9];
/** What ends a stream of pieces. */
const LAST_BLOCK = Buffer.from([0x03, 0x00]);

async function deflate(data: Buffer, level: number, history = 0): Promise<Buffer> {
  const out = Buffer.alloc(codecs.deflateBound(data.length - history));
  const length = await codecs.deflateAsync(level, data, 0, data.length, history, out);
  return out.subarray(0, length);
}

/** Bytes of a fixed generator, all of `symbols` kinds. */
function noise(length: number, symbols = 256): Buffer {
  let state = 1;
  return Buffer.from(
    Uint8Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 24) % symbols;
    }),
  );
}

/** Text that everybody has. */
const TEXT = readFileSync(new URL("../../../package-lock.json", import.meta.url)).subarray(
  0,
  120_000,
);

describe("deflate", () => {
  const cases: [string, Buffer][] = [
    ["nothing", Buffer.alloc(0)],
    ["one byte", Buffer.from("x")],
    ["three bytes", Buffer.from("xxx")],
    ["zeros", Buffer.alloc(200_000)],
    ["text", TEXT],
    ["noise", noise(100_000)],
    ["few symbols", noise(100_000, 3)],
    ["noise twice, out of step", Buffer.concat([noise(20_001), noise(20_001), noise(90_000)])],
    ["noise in text", Buffer.concat([TEXT.subarray(0, 9), noise(70_000), TEXT, noise(16_384)])],
    ["every byte in turn", Buffer.from(Uint8Array.from({ length: 5000 }, (_, i) => i & 255))],
  ];
  it.each(cases)("%s comes back at every level, from two inflaters", async (_, data) => {
    for (const level of LEVELS) {
      const stream = Buffer.concat([await deflate(data, level), LAST_BLOCK]);
      expect(inflateRawSync(stream).equals(data)).toBe(true);
      expect(Buffer.from(inflateRaw(stream)).equals(data)).toBe(true);
    }
  });

  it("any bytes come back, cut into pieces that refer to what was before", async () => {
    const runs = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.tuple(fc.nat(255), fc.nat(600)).map(([byte, count]) => new Uint8Array(count).fill(byte)),
        fc
          .tuple(fc.nat(60_000), fc.nat(40_000))
          .map(([at, count]) => TEXT.subarray(at, at + count)),
        fc.nat(40_000).map((count) => noise(count)),
      ),
      { maxLength: 12 },
    );
    const options = [
      runs,
      fc.constantFrom(...LEVELS),
      fc.integer({ min: 5000, max: 50_000 }),
    ] as const;
    await fc.assert(
      fc.asyncProperty(...options, async (parts, level, step) => {
        const data = Buffer.concat(parts);
        const pieces: Buffer[] = [];
        for (let at = 0; at < data.length; at += step) {
          const start = Math.max(0, at - 32768);
          pieces.push(await deflate(data.subarray(start, at + step), level, at - start));
        }
        expect(inflateRawSync(Buffer.concat([...pieces, LAST_BLOCK])).equals(data)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it("gives these bytes on every machine: images committed before must come out the same", async () => {
    const input = Buffer.concat([
      noise(40_000, 20),
      noise(40_000),
      Buffer.alloc(40_000, "deflate "),
    ]);
    const hash = createHash("sha256");
    for (const level of LEVELS) hash.update(await deflate(input, level));
    expect(hash.digest("hex")).toBe(
      "c191dfacd5ba5028eb3246d0390e44059b8d09c21c2bd4ff4d592c1a0a5b5e3f",
    );
  });

  it("is refused levels, ranges and room that do not fit", async () => {
    const [data, room] = [Buffer.alloc(100), Buffer.alloc(codecs.deflateBound(100))];
    for (const level of [0, 10])
      expect(codecs.deflateAsync(level, data, 0, 100, 0, room)).toBe(-EINVAL);
    expect(codecs.deflateAsync(5, data, 0, 100, 101, room)).toBe(-EINVAL);
    expect(codecs.deflateAsync(5, data, 0, 100, -1, room)).toBe(-EINVAL);
    expect(codecs.deflateAsync(5, data, 0, 100, 0, room.subarray(1))).toBe(-EINVAL);
    expect(() => codecs.deflateAsync(5, data, 1, 100, 0, room)).toThrow(RangeError);
  });
});

it("gzip's checksum is the one that Node computes, piece by piece; without ISA-L it is left to Node", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 5000 }), fc.nat(), fc.nat(), (array, one, other) => {
      const data = Buffer.from(array);
      const [from, to] = [one % (data.length + 1), other % (data.length + 1)].sort((a, b) => a - b);
      const before = codecs.crc32(0, data, 0, from!) ?? 0;
      const all = codecs.crc32(before, data, from!, to! - from!);
      const isThere = native.StreamReader.canGunzip;
      expect(all).toBe(isThere ? crc32(data.subarray(0, to)) : undefined);
    }),
  );
});
