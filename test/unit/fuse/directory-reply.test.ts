import { expect, test } from "vitest";
import { Workspace } from "../../../src/fuse/exchange.js";
import { emptyAttributes } from "../../../src/fuse/file-system.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { readDirents } from "./dirent-reader.js";

const name = (text: string) => text as ByteString;

test("entries are taken while they fit, and the first that does not fit is refused", () => {
  const { directory, reply } = new Workspace();
  directory.begin(32 * 2 + 40 - 1, false);
  expect(directory.add(name("a"), 1, 0o100644, 1)).toBe(true);
  expect(directory.add(name("12345678"), 2, 0o040755, 2)).toBe(true);
  expect(directory.add(name("123456789"), 3, 0o120777, 3)).toBe(false);
  expect(directory.length).toBe(64);
  expect(readDirents(reply.buffer.subarray(16, 16 + 64), false)).toEqual([
    { name: "a", ino: 1n, cookie: 1n, type: 8, node: undefined },
    { name: "12345678", ino: 2n, cookie: 2n, type: 4, node: undefined },
  ]);
});

test("the padding of a name never shows what an older reply left there", () => {
  const { directory, reply } = new Workspace();
  reply.buffer.fill(0xff);
  directory.begin(4096, false);
  directory.add(name("abc"), 1, 0o100644, 1);
  expect([...reply.buffer.subarray(16 + 24, 16 + 32)]).toEqual([97, 98, 99, 0, 0, 0, 0, 0]);
  directory.begin(4096, true);
  reply.buffer.fill(0xff);
  directory.add(name("abc"), 1, 0o100644, 1);
  expect(reply.buffer.subarray(16, 16 + 128).every((byte) => byte === 0)).toBe(true);
});

test("READDIRPLUS gives entries, but never a reference to . and ..", () => {
  const { directory, reply } = new Workspace();
  const attributes = { ...emptyAttributes(), ino: 77, mode: 0o040755 };
  const entry = { node: 78, generation: 0, attributes };
  directory.begin(4096, true);
  directory.addPlus(name("."), 1, entry);
  directory.addPlus(name(".."), 2, entry);
  directory.addPlus(name("sub"), 3, entry);
  directory.add(name("plain"), 80, 0o100644, 4);
  const dirents = readDirents(reply.buffer.subarray(16, 16 + directory.length), true);
  expect(dirents.map(({ name, node }) => [name, node])).toEqual([
    [".", 0n],
    ["..", 0n],
    ["sub", 78n],
    ["plain", 0n],
  ]);
  expect(dirents[2]).toMatchObject({ ino: 77n, type: 4, cookie: 3n });
});

test("an entry for a plain READDIR is a mistake that does not go unseen", () => {
  const { directory, entry } = new Workspace();
  directory.begin(4096, false);
  expect(() => directory.addPlus(name("x"), 1, entry)).toThrow(/plain READDIR/);
});
