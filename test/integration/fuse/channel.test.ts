import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  FUSE_INIT,
  FUSE_INIT_EXT,
  MAX_TRANSFER_BYTES,
  MAX_TRANSFER_PAGES,
} from "../../../src/fuse/constants.js";
import { type InitReply, ReplyBuffer } from "../../../src/fuse/reply.js";
import { REQUEST_BUFFER_BYTES, RequestBuffer } from "../../../src/fuse/request.js";
import { fuse, sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import { MNT_DETACH } from "../../../src/system/constants.js";
import { EAGAIN, EBADF, EINVAL, ENODEV, ENOENT } from "../../../src/system/errno.js";
import { EXCHANGE_UNSENT, type FuseChannel } from "../../../src/system/native.js";

/** 7.40: the kernel reads and writes backing files itself. */
const FUSE_PASSTHROUGH_FLAGS2 = 1 << 5;
const INIT: InitReply = {
  minor: 45,
  maxReadahead: 131_072,
  flags: FUSE_INIT_EXT,
  flags2: FUSE_PASSTHROUGH_FLAGS2,
  maxBackground: 12,
  congestionThreshold: 9,
  maxWrite: MAX_TRANSFER_BYTES,
  timeGranularityNs: 1,
  maxPages: MAX_TRANSFER_PAGES,
  maxStackDepth: 1,
};

let directory: string;
let channel: FuseChannel;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-channel-"));
  const result = fuse.mountDirect(toBytes(directory), toBytes("channel"), 0, toBytes(""));
  if (typeof result === "number") throw new Error(`mount: ${result}`);
  channel = result;
});

afterEach(async () => {
  await fuse.umountAsync(toBytes(directory), MNT_DETACH);
  channel.close();
  rmSync(directory, { recursive: true });
});

/** Answers INIT by hand, with passthrough. */
function initialise(): void {
  const request = new RequestBuffer();
  request.begin(channel.receive(request.buffer));
  const reply = new ReplyBuffer();
  const length = reply.init(INIT);
  reply.header(request.uniqueLow, request.uniqueHigh, length, 0);
  expect(channel.send(reply.buffer, 16 + length)).toBe(16 + length);
}

test("a channel tells that nothing waits, and that it was unmounted", async () => {
  initialise();
  const buffer = Buffer.alloc(REQUEST_BUFFER_BYTES);
  expect(channel.receive(buffer)).toBe(-EAGAIN);
  expect(await fuse.umountAsync(toBytes(directory), 0)).toBe(0);
  expect(channel.receive(buffer)).toBe(-ENODEV);
  expect(await fuse.umountAsync(toBytes(directory), 0)).toBe(-EINVAL);
});

test("an exchange sends a reply and receives the next request in one call", async () => {
  const request = new RequestBuffer();
  const reply = new ReplyBuffer();
  const exchange = channel.exchanger(request.buffer, reply.buffer);
  request.begin(exchange(0, 0));
  expect(request.opcode).toBe(FUSE_INIT);
  const body = reply.init(INIT);
  reply.header(request.uniqueLow, request.uniqueHigh, body, 0);
  expect(exchange(16 + body, 0)).toBe(-EAGAIN);
  reply.header(12_346, 0, 0, 0);
  expect(exchange(16, 0)).toBe(EXCHANGE_UNSENT - ENOENT);
  await fuse.umountAsync(toBytes(directory), 0);
  expect(exchange(0, 0)).toBe(-ENODEV);
  channel.close();
  expect(exchange(0, 0)).toBe(-EBADF);
});

test("a reply to nobody is refused", () => {
  initialise();
  const reply = new ReplyBuffer();
  reply.header(12_346, 0, 0, 0);
  expect(channel.send(reply.buffer, 16)).toBe(-ENOENT);
});

test("a message ends with what was staged of a file, if its length says so", () => {
  const path = `${directory}-staged`;
  const content = randomBytes(300_000);
  writeFileSync(path, content);
  const fd = openSync(path, "r");
  const fifo = `${directory}-message`;
  execFileSync("mkfifo", [fifo]);
  const received = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  const sender = fuse.fromDescriptor(openSync(fifo, constants.O_WRONLY));
  const header = Buffer.from("sixteen bytes of");
  const reply = Buffer.alloc(65_536);
  header.copy(reply);
  const buffer = Buffer.alloc(65_536);
  try {
    for (const [offset, length] of [
      [0, 40_000],
      [4095, 40_000],
      [290_000, 40_000],
    ] as const) {
      const expected = content.subarray(offset, offset + length);
      expect(sys.stage(fd, offset, length)).toBe(expected.length);
      expect(sender.send(reply, 16 + expected.length)).toBe(16 + expected.length);
      const message = Buffer.concat([header, expected]);
      for (let done = 0; done < message.length; ) {
        const count = readSync(received, buffer);
        expect(buffer.subarray(0, count)).toEqual(message.subarray(done, done + count));
        done += count;
      }
    }
    expect(sys.stage(fd, 0, 40_000)).toBe(40_000);
    expect(sender.send(reply, 16)).toBe(16);
    expect(buffer.subarray(0, readSync(received, buffer))).toEqual(header);
    expect(sys.stage(fd, 300_000, 10)).toBe(0);
    expect(sys.stage(-1, 0, 10)).toBe(-EBADF);
    expect(sender.send(reply, 16)).toBe(16);
  } finally {
    sender.close();
    for (const one of [fd, received]) closeSync(one);
    for (const one of [path, fifo]) rmSync(one);
  }
});

test("backing files are registered and released", () => {
  initialise();
  const path = `${directory}-backing`;
  writeFileSync(path, "backing");
  const fd = openSync(path, "r");
  try {
    const id = channel.backingOpen(fd);
    expect(id).toBeGreaterThan(0);
    expect(channel.backingClose(id)).toBe(0);
    expect(channel.backingClose(id)).toBe(-ENOENT);
    expect(channel.backingOpen(-1)).toBe(-EBADF);
  } finally {
    closeSync(fd);
    rmSync(path);
  }
});

test("a closed channel refuses everything, and may be closed again", () => {
  channel.close();
  channel.close();
  channel.stop();
  expect(channel.fd).toBe(-1);
  expect(channel.receive(Buffer.alloc(10))).toBe(-EBADF);
  expect(channel.send(Buffer.alloc(16), 16)).toBe(-EBADF);
  expect(channel.start(() => {})).toBeLessThan(0);
});

test("a started channel calls back for what waits, and stops when told, even from the callback", async () => {
  let calls = 0;
  await new Promise<void>((resolve) => {
    // INIT waits all the while, so only stop() ends the calls.
    channel.start(() => {
      if (++calls < 3) return;
      channel.stop();
      resolve();
    });
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(calls).toBe(3);
  await new Promise<void>((resolve) => {
    channel.start(() => {
      channel.close();
      resolve();
    });
  });
});
