import { createHash, randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { deflateRawSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { addonPath, native, sys } from "../../../src/system/addon.js";
import { EBADF, EBADMSG, ECANCELED, EILSEQ, ENODATA } from "../../../src/system/errno.js";

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-stream-"));
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const DATA = Buffer.concat([
  Buffer.from(randomBytes(150_000).toString("hex")),
  Buffer.alloc(300_000),
]);

/** Reads `blob` to its end; the last result when that is an error. */
function readAll(
  blob: Buffer,
  isGzip: boolean,
  ringBytes = 4096,
): { data: Buffer; result: number; digest: string | undefined } {
  const file = join(scratch, "blob");
  writeFileSync(file, blob);
  const ring = [0, 1, 2].map(() => Buffer.alloc(ringBytes));
  const fd = openSync(file, "r");
  const reader = new native.StreamReader(fd, isGzip, ring);
  closeSync(fd);
  const chunks: Buffer[] = [];
  let result = reader.next();
  for (let turn = 0; result > 0; turn = (turn + 1) % ring.length) {
    chunks.push(Buffer.from(ring[turn]!.subarray(0, result)));
    result = reader.next();
  }
  expect(reader.next()).toBe(result);
  const digest = result === 0 ? reader.digest()?.toString("hex") : undefined;
  reader.close();
  return { data: Buffer.concat(chunks), result, digest };
}

const sha256 = (data: Buffer) => createHash("sha256").update(data).digest("hex");

describe("a stream reader", () => {
  it.each([false, true])("gives all bytes and their digest (gzip: %s)", (isGzip) => {
    for (const ringBytes of [1, 512, 4096, 1 << 20]) {
      const content = ringBytes === 1 ? DATA.subarray(0, 3000) : DATA;
      const { data, digest } = readAll(isGzip ? gzipSync(content) : content, isGzip, ringBytes);
      expect(data.equals(content)).toBe(true);
      expect(digest).toBe(sha256(content));
    }
  });

  it("reads an empty file and an empty member", () => {
    expect(readAll(Buffer.alloc(0), false)).toMatchObject({
      result: 0,
      digest: sha256(Buffer.alloc(0)),
    });
    expect(readAll(gzipSync(Buffer.alloc(0)), true)).toMatchObject({ result: 0 });
  });

  it("reads members of every size one after another, with all optional header fields", () => {
    const parts = [0, 1, 2, 31, 1000, 100_000].map((size) => DATA.subarray(0, size));
    const blob = Buffer.concat(parts.map((part, at) => (at % 2 ? gzipSync(part) : adorned(part))));
    expect(readAll(blob, true).data.equals(Buffer.concat(parts))).toBe(true);
  });

  it("ignores what follows the last member", () => {
    for (const tail of [Buffer.alloc(100_000), Buffer.from("garbage"), Buffer.from([0x1f])]) {
      expect(readAll(Buffer.concat([gzipSync(DATA), tail]), true)).toMatchObject({ result: 0 });
    }
  });

  it("says how gzip data is damaged", () => {
    const whole = gzipSync(DATA);
    const flipped = (at: number) => {
      const copy = Buffer.from(whole);
      copy[at < 0 ? copy.length + at : at]! ^= 0x10;
      return readAll(copy, true).result;
    };
    expect(flipped(-1)).toBe(-EILSEQ);
    expect(flipped(-4)).toBe(-EILSEQ);
    expect(flipped(-8)).toBe(-EILSEQ);
    expect(flipped(2)).toBe(-EBADMSG);
    const reserved = Buffer.from(whole);
    reserved[3]! |= 0x20;
    expect(readAll(reserved, true).result).toBe(-EBADMSG);
    expect(readAll(Buffer.concat([whole, reserved]), true).result).toBe(-EBADMSG);
    expect(readAll(Buffer.from("1f8b08000000000000ff07", "hex"), true).result).toBe(-EBADMSG);
    for (const cut of [1, 5, 9, 1000, whole.length - 3, whole.length - 15]) {
      expect(readAll(whole.subarray(0, whole.length - cut), true).result).toBe(-ENODATA);
    }
  });

  it("passes the system's errors on", () => {
    const reader = new native.StreamReader(987_654, false, [Buffer.alloc(8), Buffer.alloc(8)]);
    expect(reader.next()).toBe(-EBADF);
    reader.close();
  });

  it("counts what it has read, and can be closed at any time", () => {
    const file = join(scratch, "blob");
    writeFileSync(file, DATA);
    const fd = openSync(file, "r");
    const reader = new native.StreamReader(fd, false, [Buffer.alloc(1024), Buffer.alloc(1024)]);
    expect(reader.next()).toBe(1024);
    expect(reader.consumed()).toBeGreaterThanOrEqual(1024);
    reader.close();
    reader.close();
    expect(reader.next()).toBe(-ECANCELED);
    closeSync(fd);
  });

  it("refuses what is no descriptor, no boolean and no ring", () => {
    const StreamReader = native.StreamReader as unknown as new (...args: unknown[]) => unknown;
    const ring = [Buffer.alloc(8), Buffer.alloc(8)];
    for (const args of [
      [],
      ["0", false, ring],
      [0, 1, ring],
      [0, false, ring.slice(1)],
      [0, false, [ring[0], Buffer.alloc(0)]],
      [0, false, [ring[0], "buffer"]],
    ]) {
      expect(() => new StreamReader(...args)).toThrow(TypeError);
    }
  });

  it("ends with its worker thread, whatever it is doing", async () => {
    const [readEnd, writeEnd] = sys.pipe() as [number, number];
    const source = `
      const { createRequire } = require("node:module");
      const { parentPort, workerData } = require("node:worker_threads");
      const { StreamReader } = createRequire(workerData.addon)(workerData.addon);
      globalThis.reader = new StreamReader(workerData.fd, false, [Buffer.alloc(8), Buffer.alloc(8)]);
      parentPort.postMessage(globalThis.reader.next());
      setInterval(() => {}, 1000);`;
    const worker = new Worker(source, {
      eval: true,
      workerData: { addon: addonPath, fd: readEnd },
    });
    const first = new Promise((resolve) => worker.once("message", resolve));
    // More than the ring holds, so that the thread waits for room.
    writeFileSync(writeEnd, "x".repeat(64));
    expect(await first).toBe(8);
    await worker.terminate();
    sys.close(readEnd);
    sys.close(writeEnd);
  });
});

/** A member with every optional header field: extra, name, comment, header checksum. */
function adorned(data: Buffer): Buffer {
  const extra = Buffer.from("\x06\x00AB\x02\x00xy", "latin1");
  const head = Buffer.concat([
    Buffer.from("1f8b081e0102030400ff", "hex"),
    extra,
    Buffer.from("name\0comment\0"),
  ]);
  const check = Buffer.alloc(2);
  check.writeUInt16LE(checksum(head) & 0xffff);
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(checksum(data), 0);
  tail.writeUInt32LE(data.length, 4);
  return Buffer.concat([head, check, deflateRawSync(data), tail]);
}

/** CRC-32, from the trailer that zlib writes. */
function checksum(data: Buffer): number {
  const blob = gzipSync(data);
  return blob.readUInt32LE(blob.length - 8);
}
