import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameReader, frameMessage } from "../../../src/client/message-frames.js";

describe("FrameReader", () => {
  it("finds the same messages however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        (messages, cuts) => {
          const bytes = Buffer.concat(messages.map(frameMessage));
          const reader = new FrameReader();
          const found: Buffer[] = [];
          for (let start = 0, round = 0; start < bytes.length; round++) {
            const end = start + cuts[round % cuts.length]!;
            found.push(...reader.push(Buffer.from(bytes.subarray(start, end))));
            start = end;
          }
          expect(found.map((message) => [...message])).toEqual(messages.map((m) => [...m]));
          expect(reader.pending).toBe(false);
        },
      ),
    );
  });

  it("knows that a message is not complete", () => {
    const reader = new FrameReader();
    expect(reader.push(frameMessage(new Uint8Array(10)).subarray(0, 12))).toEqual([]);
    expect(reader.pending).toBe(true);
  });

  it("refuses a compressed message and one above the limit", () => {
    expect(() => new FrameReader().push(Buffer.from([1, 0, 0, 0, 0]))).toThrowError(
      expect.objectContaining({ code: "CORRUPT_DATA" }),
    );
    expect(() => new FrameReader().push(Buffer.from([0, 255, 0, 0, 0]))).toThrowError(
      expect.objectContaining({ code: "RESOURCE_EXHAUSTED" }),
    );
  });
});
