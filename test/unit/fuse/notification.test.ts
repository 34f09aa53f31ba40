import { expect, test } from "vitest";
import { invalidateEntryMessage, invalidateInodeMessage } from "../../../src/fuse/notification.js";
import type { ByteString } from "../../../src/system/bytes.js";

test("an entry's invalidation carries parent, name and flags", () => {
  const message = invalidateEntryMessage(2 ** 40, "n\u00ff" as ByteString, true);
  expect(message.length).toBe(16 + 16 + 3);
  expect(message.readUInt32LE(0)).toBe(message.length);
  expect(message.readInt32LE(4)).toBe(3);
  expect(message.readBigUInt64LE(8)).toBe(0n);
  expect(message.readBigUInt64LE(16)).toBe(2n ** 40n);
  expect([message.readUInt32LE(24), message.readUInt32LE(28)]).toEqual([2, 1]);
  expect([...message.subarray(32)]).toEqual([110, 255, 0]);
});

test("an inode's invalidation carries signed offset and length", () => {
  const message = invalidateInodeMessage(7, -1, 0);
  expect(message.readInt32LE(4)).toBe(2);
  expect([16, 24, 32].map((at) => message.readBigInt64LE(at))).toEqual([7n, -1n, 0n]);
});
