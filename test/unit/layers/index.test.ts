import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { emptyIndex, type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import { type InodeAttributes, ROOT_INODE } from "../../../src/overlay/chain-index.js";
import type { ByteString } from "../../../src/system/bytes.js";
import {
  buildTree,
  DEFAULT_MTIME,
  directory,
  file,
  hardlink,
  type Node,
  opaque,
  symlink,
  whiteout,
} from "./tree-builder.js";

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "varve-index-"));
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

const bytes = (text: string) => text as ByteString;

/** The index of a chain of trees. */
function chain(...layers: Record<string, Node>[]): FlatIndex {
  let path = "";
  layers.forEach((nodes, position) => {
    const fsDir = buildTree(join(root, `fs-${position}`), nodes);
    const outputPath = join(root, `index-${position}`);
    const parent = path === "" ? {} : { parentIndexPath: path };
    buildIndex({
      ...parent,
      chainId: `chain-${position}`,
      fsDir,
      impliedDirectories: [],
      outputPath,
      privileged: false,
    });
    path = outputPath;
  });
  return openIndex(path);
}

const namesOf = (index: FlatIndex, path: string): string[] => {
  const dir = index.resolve(bytes(path));
  const names: string[] = [];
  for (let entry = index.firstEntry(dir); entry < index.endEntry(dir); entry += 1)
    names.push(index.entryName(entry));
  return names;
};

describe("an index", () => {
  test("finds names, and nothing for names that are not there or in files", () => {
    const index = chain({ "a/b/c": file("x"), "a/bb": file("y") });
    const a = index.lookup(ROOT_INODE, bytes("a"));
    expect(index.path(index.lookup(a, bytes("b")))).toBe("a/b");
    for (const name of ["", "B", "b ", "bbb", "\0", "\u00ff"])
      expect(index.lookup(a, bytes(name))).toBe(0);
    expect(index.lookup(index.resolve(bytes("a/bb")), bytes("b"))).toBe(0);
    expect(index.lookup(0, bytes("a"))).toBe(0);
    expect(index.lookup(999, bytes("a"))).toBe(0);
    expect(index.resolve(bytes(""))).toBe(ROOT_INODE);
    expect(index.resolve(bytes("a/bb/c"))).toBe(0);
  });

  test("orders names by bytes", () => {
    const names = ["a", "a-", "a.b", "aa", "b", "\u00e9", "~", "A"];
    const index = chain(Object.fromEntries(names.map((name) => [name, file("")])));
    const utf8 = names.map((name) => Buffer.from(name).toString("latin1"));
    expect(namesOf(index, "")).toEqual(utf8.sort((a, b) => (a < b ? -1 : 1)));
    for (const name of utf8) expect(index.lookup(ROOT_INODE, bytes(name))).toBeGreaterThan(1);
  });

  test("numbers the entries of a directory in a row, parents before children", () => {
    const index = chain({ "a/x": file(""), "a/y": file(""), "b/x/z": file(""), c: file("") });
    expect([1, 2, 3, 4, 5, 6, 7, 8].map((inode) => index.path(inode))).toEqual([
      "",
      "a",
      "b",
      "c",
      "a/x",
      "a/y",
      "b/x",
      "b/x/z",
    ]);
    expect(index.inodeCount).toBe(8);
  });

  test("knows attributes", () => {
    const index = chain({
      "d/f": file("12345", { mode: 0o4751, mtime: 77, xattrs: { "user.a": "1", "user.0": "0" } }),
    });
    const out = {} as InodeAttributes;
    index.attributes(index.resolve(bytes("d/f")), out);
    expect(out).toMatchObject({
      mode: 0o104751,
      size: 5,
      nlink: 1,
      mtimeSec: 77,
      mtimeNsec: 0,
      uid: process.getuid?.(),
      rdev: 0,
    });
    expect(
      index.xattrs(index.resolve(bytes("d/f"))).map(({ name, value }) => `${name}=${value}`),
    ).toEqual(["user.0=0", "user.a=1"]);
    expect(index.xattrs(index.resolve(bytes("d")))).toEqual([]);
    expect(index.attributes(index.resolve(bytes("d")), out).mtimeSec).toBe(DEFAULT_MTIME);
  });

  test("keeps hard links one inode, and counts only names that show", () => {
    const layers = [
      { "a/1": file("x"), "b/2": hardlink("a/1"), "c/3": hardlink("a/1") },
      { a: whiteout },
      { "b/2": whiteout },
    ] as Record<string, Node>[];
    const first = chain(layers[0]!);
    const inode = first.resolve(bytes("a/1"));
    expect(first.resolve(bytes("c/3"))).toBe(inode);
    expect(first.nlink(inode)).toBe(3);
    expect(first.names(inode).map(({ parent, name }) => `${first.path(parent)}/${name}`)).toEqual([
      "a/1",
      "b/2",
      "c/3",
    ]);
    rmSync(root, { recursive: true });
    mkdirSync(root);
    const last = chain(...layers);
    const survivor = last.resolve(bytes("c/3"));
    expect(last.nlink(survivor)).toBe(1);
    expect(last.names(survivor)).toEqual([{ parent: last.resolve(bytes("c")), name: "3" }]);
    expect(last.contentPath(survivor)).toBe("a/1");
    expect(last.layer(survivor)).toBe(0);
  });

  test("counts the links of directories", () => {
    const index = chain(
      { "a/b/c/f": file(""), "a/d/f": file("") },
      { "a/b": whiteout, "a/e": directory() },
    );
    expect(index.nlink(ROOT_INODE)).toBe(3);
    expect(index.nlink(index.resolve(bytes("a")))).toBe(4);
    expect(index.nlink(index.resolve(bytes("a/d")))).toBe(2);
  });

  test("says which layer has the data, and where in it", () => {
    const index = chain(
      { "old/f": file("1"), "old/g": file("2"), "old/sub/h": symlink("x") },
      {
        old: whiteout,
        new: directory({ xattrs: { "user.overlay.redirect": "/old" } }),
        "new/g": file("3"),
      },
      { "new/sub": directory({ mode: 0o700 }) },
    );
    const at = (path: string) => index.resolve(bytes(path));
    expect([index.layer(at("new/f")), index.contentPath(at("new/f"))]).toEqual([0, "old/f"]);
    expect([index.layer(at("new/g")), index.contentPath(at("new/g"))]).toEqual([1, "new/g"]);
    expect([index.layer(at("new/sub/h")), index.contentPath(at("new/sub/h"))]).toEqual([
      0,
      "old/sub/h",
    ]);
    expect([index.layer(at("new")), index.layer(at("new/sub"))]).toEqual([2, 2]);
    expect(index.symlinkTarget(at("new/sub/h"))).toBe("x");
    expect(index.symlinkTarget(at("new/f"))).toBe("");
    expect(at("old")).toBe(0);
    expect(index.layers).toEqual(["chain-0", "chain-1", "chain-2"]);
  });

  test("shows nothing of the overlay's own attributes", () => {
    const index = chain({
      d: opaque,
      f: file("", { xattrs: { "user.overlay.varve": "12345678", "user.x": "y" } }),
    });
    expect(index.xattrs(index.resolve(bytes("d")))).toEqual([]);
    expect(index.xattrs(index.resolve(bytes("f"))).map(({ name }) => name)).toEqual(["user.x"]);
  });

  test("honours the kernel's whiteouts by attribute only where the directory allows them", () => {
    const mark = file("", { xattrs: { "user.overlay.whiteout": "" } });
    const index = chain(
      { "d/f": file("1"), "e/f": file("1") },
      { d: directory({ xattrs: { "user.overlay.opaque": "x" } }), "d/f": mark, "e/f": mark },
    );
    expect(index.resolve(bytes("d/f"))).toBe(0);
    expect(index.resolve(bytes("e/f"))).toBeGreaterThan(0);
  });

  test("of a layer whose metacopy file has no data below is refused, and leaves no file", () => {
    const build = () => chain({ "d/f": file("", { xattrs: { "user.overlay.metacopy": "" } }) });
    expect(build).toThrowError(expect.objectContaining({ code: "CORRUPT_DATA" }));
    expect(() => openIndex(join(root, "index-0"))).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
  });

  test("built twice is the same but for what the disk says of times", () => {
    chain({ "a/b": file("x"), "a/c": hardlink("a/b") });
    const fsDir = join(root, "fs-0");
    const again = join(root, "again");
    buildIndex({
      chainId: "chain-0",
      fsDir,
      impliedDirectories: [],
      outputPath: again,
      privileged: false,
    });
    expect(readFileSync(again).length).toBe(readFileSync(join(root, "index-0")).length);
  });
});

describe("the empty index", () => {
  test("is a root directory and nothing else", () => {
    const index = emptyIndex();
    expect(index.inodeCount).toBe(1);
    expect(index.layers).toEqual([]);
    expect(index.mode(ROOT_INODE)).toBe(0o40755);
    expect(index.nlink(ROOT_INODE)).toBe(2);
    expect(index.firstEntry(ROOT_INODE)).toBe(index.endEntry(ROOT_INODE));
    expect(index.lookup(ROOT_INODE, bytes("x"))).toBe(0);
    expect(index.parent(ROOT_INODE)).toBe(ROOT_INODE);
    expect(index.name(ROOT_INODE)).toBe("");
    expect(index.names(ROOT_INODE)).toEqual([{ parent: ROOT_INODE, name: "" }]);
  });
});

describe("a damaged index file is refused by name", () => {
  const damaged = (change: (bytes: Buffer) => Buffer) => {
    rmSync(root, { recursive: true });
    mkdirSync(root);
    chain({ "a/b": file("x"), l: symlink("a") });
    const path = join(root, "damaged");
    writeFileSync(path, change(readFileSync(join(root, "index-0"))));
    const expected = expect.objectContaining({
      code: "CORRUPT_DATA",
      message: expect.stringContaining(path),
    });
    expect(() => openIndex(path)).toThrowError(expected);
  };

  test("when it is empty or cut short", () => {
    damaged(() => Buffer.alloc(0));
    damaged((bytes) => bytes.subarray(0, 100));
    damaged((bytes) => bytes.subarray(0, -8));
    damaged((bytes) => Buffer.concat([bytes, Buffer.alloc(8)]));
  });

  test("when it is something else, or another version", () => {
    damaged((bytes) => Buffer.alloc(bytes.length, 0x20));
    damaged((bytes) => {
      bytes.writeUInt32LE(99, 8);
      return bytes;
    });
  });

  test("when any single bit flipped", () => {
    chain({ "a/b": file("x") });
    const good = readFileSync(join(root, "index-0"));
    const path = join(root, "flipped");
    for (let position = 0; position < good.length; position += 5) {
      const bad = Buffer.from(good);
      bad[position]! ^= 1 << (position % 8);
      writeFileSync(path, bad);
      expect(() => openIndex(path), `byte ${position}`).toThrowError(
        expect.objectContaining({ code: "CORRUPT_DATA" }),
      );
    }
  });

  test("when it is not there, that is another error", () => {
    expect(() => openIndex(join(root, "none"))).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
  });
});
