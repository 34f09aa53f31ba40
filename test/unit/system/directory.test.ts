import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, fromBuffer } from "../../../src/system/bytes.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import {
  type DirectoryListing,
  type DirectoryScan,
  STAT_ATIME_NSEC,
  STAT_ATIME_SEC,
  STAT_SLOTS,
} from "../../../src/system/native.js";
import {
  bytes,
  makeScratch,
  openDescriptor,
  run,
  type Scratch,
  statOf,
  writeFile,
} from "./scratch.js";

function read(fd: number): DirectoryListing {
  return E.must(sys.readDirectory(fd), "getdents64", "scratch");
}

function scan(fd: number): DirectoryScan {
  return E.must(sys.scanDirectory(fd), "getdents64", "scratch");
}

/** One of each kind that needs no privilege, with odd names and attributes. */
function makeZoo(): Scratch {
  const scratch = makeScratch();
  const { fd } = scratch;
  writeFile(fd, bytes("\xff\xfe"), "content");
  writeFile(fd, bytes("n".repeat(255)), "");
  writeFile(fd, bytes("..."), "");
  sys.mkdirat(fd, bytes("directory"), 0o2750);
  sys.symlinkat(bytes("to \xe9 nowhere"), fd, bytes("link"));
  sys.mknodat(fd, bytes("fifo"), C.S_IFIFO | 0o600, 0);
  sys.mknodat(fd, bytes("socket"), C.S_IFSOCK | 0o600, 0);
  sys.linkat(fd, bytes("..."), fd, bytes("hard link"), 0);
  for (const name of ["\xff\xfe", "directory"]) {
    sys.setxattrat(fd, bytes(name), bytes("user.one"), Buffer.from([0, 255]), 0);
    sys.setxattrat(fd, bytes(name), bytes("user.two"), Buffer.alloc(0), 0);
  }
  return scratch;
}

describe("readDirectory", () => {
  it("lists each name once with its type, and never the dots", () => {
    const { fd, path } = makeZoo();
    const { names, types } = read(fd);
    const shown = readdirSync(path, { encoding: "buffer" }).map((name) => fromBuffer(name));
    expect([...names].sort()).toEqual(shown.sort());
    expect(types).toHaveLength(names.length);
    names.forEach((name, i) => {
      expect(types[i]).toBe((statOf(fd, name)[1]! & C.S_IFMT) >> 12);
    });
  });

  it("starts from the beginning each time and sees what changed", () => {
    const { fd } = makeScratch();
    expect(read(fd).names).toEqual([]);
    writeFile(fd, bytes("a"), "");
    expect(read(fd).names).toEqual(["a"]);
    expect(read(fd)).toEqual(read(fd));
    sys.unlinkat(fd, bytes("a"), 0);
    expect(read(fd)).toEqual({ names: [], types: new Uint8Array() });
  });

  it("holds directories far larger than the kernel's buffer", () => {
    const { fd } = makeScratch();
    const all = Array.from({ length: 3000 }, (_, i) => bytes(`${i}-`.padEnd(200, "\xe4")));
    for (const name of all) sys.mknodat(fd, name, C.S_IFREG | 0o600, 0);
    expect([...read(fd).names].sort()).toEqual([...all].sort());
    const scanned = scan(fd);
    expect([...scanned.names].sort()).toEqual([...all].sort());
    expect(scanned.stats).toHaveLength(all.length * STAT_SLOTS);
  });

  it("agrees with ls on a directory whose types the kernel may not say (/proc)", () => {
    const fd = openDescriptor(C.AT_FDCWD, bytes("/proc/self/ns"), C.O_RDONLY | C.O_DIRECTORY);
    const { names, types } = read(fd);
    expect([...names].sort().join("\n")).toBe(
      run("sh", "-c", "ls /proc/self/ns | LC_ALL=C sort").trim(),
    );
    expect(new Set(types)).toEqual(new Set([C.DT_LNK]));
  });

  it("fails with an errno on what is no directory, or cannot be read", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("f"), "");
    const file = openDescriptor(fd, bytes("f"), C.O_RDONLY);
    const pathOnly = openDescriptor(fd, bytes("."), C.O_PATH);
    for (const call of [sys.readDirectory, sys.scanDirectory]) {
      expect(call(file)).toBe(-E.ENOTDIR);
      expect(call(pathOnly)).toBe(-E.EBADF);
      expect(call(9999)).toBe(-E.EBADF);
    }
  });
});

/** Reading a symlink may change its access time. */
function withoutAccessTime(stat: Float64Array): number[] {
  return [...stat].filter((_, slot) => slot !== STAT_ATIME_SEC && slot !== STAT_ATIME_NSEC);
}

/** The entry as the single calls tell it. */
function askOneByOne(fd: number, name: ByteString) {
  const target = sys.readlinkat(fd, name);
  const list = sys.listxattrat(fd, name) as Buffer;
  const attributes = fromBuffer(list).split("\0").slice(0, -1) as ByteString[];
  return {
    stat: withoutAccessTime(statOf(fd, name)),
    target: typeof target === "string" ? target : undefined,
    xattrs: attributes.length
      ? attributes.map((attribute) => [attribute, sys.getxattrat(fd, name, attribute)])
      : undefined,
  };
}

describe("scanDirectory", () => {
  it("tells of each entry what the single calls tell", () => {
    const { fd } = makeZoo();
    const { names, stats, targets, xattrs } = scan(fd);
    expect([...names].sort()).toEqual([...read(fd).names].sort());
    expect([stats.length / STAT_SLOTS, targets.length, xattrs.length]).toEqual([
      names.length,
      names.length,
      names.length,
    ]);
    names.forEach((name, i) => {
      const stat = withoutAccessTime(stats.subarray(i * STAT_SLOTS, (i + 1) * STAT_SLOTS));
      expect({ stat, target: targets[i], xattrs: xattrs[i] }).toEqual(askOneByOne(fd, name));
    });
    expect(xattrs.filter((one) => one !== undefined)).toHaveLength(2);
    expect(targets.filter((one) => one !== undefined)).toEqual(["to \xe9 nowhere"]);
  });

  it("of an empty directory is empty", () => {
    const { fd } = makeScratch();
    expect(scan(fd)).toEqual({ names: [], stats: new Float64Array(), targets: [], xattrs: [] });
  });

  it("takes a disk without extended attributes for one where nothing has any", () => {
    const fd = openDescriptor(C.AT_FDCWD, bytes("/proc/self/fdinfo"), C.O_RDONLY | C.O_DIRECTORY);
    const { names, xattrs } = scan(fd);
    expect(names.length).toBeGreaterThan(2);
    expect(xattrs.every((one) => one === undefined)).toBe(true);
  });

  it("keeps the largest attributes whole", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("f"), "");
    const big = Buffer.alloc(3000, 7);
    sys.setxattrat(fd, bytes("f"), bytes("user.big"), big, 0);
    expect(scan(fd).xattrs).toEqual([[["user.big", big]]]);
  });

  it("leaves no descriptor open", () => {
    const { fd } = makeZoo();
    const open = () => readdirSync("/proc/self/fd").length;
    const before = open();
    for (let i = 0; i < 10; i++) scan(fd);
    expect(open()).toBe(before);
  });
});
