import { lstatSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import * as S from "../../../src/system/native.js";
import { bytes, makeScratch, openDescriptor, run, statOf, writeFile } from "./scratch.js";

describe("statx", () => {
  const FORMAT = "%i %f %h %u %g %s %b %o %X %Y %Z %W";

  function ours(record: Float64Array): string {
    const slots = [S.STAT_INO, S.STAT_MODE, S.STAT_NLINK, S.STAT_UID, S.STAT_GID, S.STAT_SIZE];
    slots.push(S.STAT_BLOCKS, S.STAT_BLKSIZE);
    slots.push(S.STAT_ATIME_SEC, S.STAT_MTIME_SEC, S.STAT_CTIME_SEC, S.STAT_BTIME_SEC);
    return slots.map((s) => record[s]!.toString(s === S.STAT_MODE ? 16 : 10)).join(" ");
  }

  it("agrees with stat(1) on every kind of file", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("file"), "x".repeat(70_000));
    sys.mkdirat(fd, bytes("dir"), 0o1755);
    sys.symlinkat(bytes("dangling"), fd, bytes("link"));
    sys.mknodat(fd, bytes("fifo"), C.S_IFIFO | 0o600, 0);
    for (const name of ["file", "dir", "link", "fifo"]) {
      const shown = run("stat", "-c", FORMAT, `${path}/${name}`).trim();
      expect(ours(statOf(fd, bytes(name)))).toBe(shown);
    }
    const followed = new Float64Array(S.STAT_SLOTS);
    sys.symlinkat(bytes("file"), fd, bytes("good"));
    expect(sys.statx(fd, bytes("good"), 0, followed)).toBe(0);
    expect(followed[S.STAT_SIZE]).toBe(70_000);
  });

  it("gives device numbers as the kernel encodes them", () => {
    const record = statOf(C.AT_FDCWD, bytes("/dev/null"));
    expect(record[S.STAT_RDEV]).toBe((1 << 8) | 3);
    const { fd, path } = makeScratch();
    const [major, minor] = run("stat", "-c", "%Hd %Ld", path).trim().split(" ").map(Number);
    expect(statOf(fd, bytes(""))[S.STAT_DEV]).toBe(
      ((minor! & 0xff) | (major! << 8) | ((minor! & ~0xff) << 12)) >>> 0,
    );
  });

  it("keeps nanoseconds, also of times before 1970", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("f"), "");
    expect(sys.utimensat(fd, bytes("f"), -1, 999_999_999, 1_234_567_890, 1, 0)).toBe(0);
    const record = statOf(fd, bytes("f"));
    expect([record[S.STAT_ATIME_SEC], record[S.STAT_ATIME_NSEC]]).toEqual([-1, 999_999_999]);
    expect([record[S.STAT_MTIME_SEC], record[S.STAT_MTIME_NSEC]]).toEqual([1_234_567_890, 1]);
    expect(lstatSync(`${path}/f`, { bigint: true }).mtimeNs).toBe(1_234_567_890_000_000_001n);
  });

  it("reads an O_PATH descriptor of a symlink itself", () => {
    const { fd } = makeScratch();
    sys.symlinkat(bytes("nowhere"), fd, bytes("l"));
    const link = openDescriptor(fd, bytes("l"), C.O_PATH | C.O_NOFOLLOW);
    expect(statOf(link, bytes(""))[S.STAT_MODE]! & C.S_IFMT).toBe(C.S_IFLNK);
  });

  it("tells mounts apart", () => {
    const root = statOf(C.AT_FDCWD, bytes("/"))[S.STAT_MNT_ID];
    const proc = statOf(C.AT_FDCWD, bytes("/proc"))[S.STAT_MNT_ID];
    expect(root).toBeGreaterThan(0);
    expect(proc).not.toBe(root);
  });

  it("fails with an errno, and EINVAL for an array that is too short", () => {
    const { fd } = makeScratch();
    const out = new Float64Array(S.STAT_SLOTS);
    expect(sys.statx(fd, bytes("absent"), 0, out)).toBe(-E.ENOENT);
    expect(sys.statx(9999, bytes("x"), 0, out)).toBe(-E.EBADF);
    expect(sys.statx(fd, bytes(""), 0, out)).toBe(-E.ENOENT);
    expect(sys.statx(fd, bytes("."), 0, new Float64Array(S.STAT_SLOTS - 1))).toBe(-E.EINVAL);
  });
});

describe("utimensat", () => {
  it("sets a symlink's own times and leaves its target's alone", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("t"), "");
    sys.symlinkat(bytes("t"), fd, bytes("l"));
    const before = statSync(`${path}/t`, { bigint: true }).mtimeNs;
    expect(sys.utimensat(fd, bytes("l"), 5, 6, 7, 8, C.AT_SYMLINK_NOFOLLOW)).toBe(0);
    expect(lstatSync(`${path}/l`, { bigint: true }).mtimeNs).toBe(7_000_000_008n);
    expect(statSync(`${path}/t`, { bigint: true }).mtimeNs).toBe(before);
  });

  it("takes UTIME_OMIT, UTIME_NOW and O_PATH descriptors", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("t"), "");
    sys.symlinkat(bytes("t"), fd, bytes("l"));
    for (const name of ["t", "l"]) {
      const file = openDescriptor(fd, bytes(name), C.O_PATH | C.O_NOFOLLOW);
      expect(sys.utimensat(file, bytes(""), 1, 2, 3, 4, C.AT_EMPTY_PATH)).toBe(0);
      expect(sys.utimensat(file, bytes(""), 0, C.UTIME_NOW, 0, C.UTIME_OMIT, C.AT_EMPTY_PATH)).toBe(
        0,
      );
      const record = statOf(fd, bytes(name));
      expect(record[S.STAT_ATIME_SEC]).toBeGreaterThan(1_600_000_000);
      expect([record[S.STAT_MTIME_SEC], record[S.STAT_MTIME_NSEC]]).toEqual([3, 4]);
    }
    expect(sys.utimensat(fd, bytes("t"), 0, 1_000_000_000, 0, 0, 0)).toBe(-E.EINVAL);
  });
});

describe("fchownat", () => {
  it("with -1 leaves an owner alone, and reaches symlinks and O_PATH descriptors", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("f"), "");
    sys.symlinkat(bytes("f"), fd, bytes("l"));
    const gid = process.getgid!();
    expect(sys.fchownat(fd, bytes("l"), -1, gid, C.AT_SYMLINK_NOFOLLOW)).toBe(0);
    const path = openDescriptor(fd, bytes("f"), C.O_PATH);
    expect(sys.fchownat(path, bytes(""), -1, -1, C.AT_EMPTY_PATH)).toBe(0);
    expect(statOf(fd, bytes("f"))[S.STAT_UID]).toBe(process.getuid!());
    expect(sys.fchownat(fd, bytes("absent"), -1, -1, 0)).toBe(-E.ENOENT);
  });
});

describe("nameToHandleAt", () => {
  it("gives one handle to all names of a file and another to each other file", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("a"), "");
    writeFile(fd, bytes("c"), "");
    sys.linkat(fd, bytes("a"), fd, bytes("b"), 0);
    const handle = (name: string) => {
      const result = sys.nameToHandleAt(fd, bytes(name), 0);
      if (typeof result === "number") throw new Error(`errno ${result}`);
      return `${result.type} ${result.mountId} ${result.handle.toString("hex")}`;
    };
    expect(handle("a")).toBe(handle("b"));
    expect(handle("a")).not.toBe(handle("c"));
    expect(sys.nameToHandleAt(fd, bytes("absent"), 0)).toBe(-E.ENOENT);
  });
});

describe("fstatfs", () => {
  it("agrees with stat -f", () => {
    const { path } = makeScratch();
    const fd = openDescriptor(C.AT_FDCWD, toBytes(path), C.O_PATH);
    const [blocks, files, bsize, namelen, type] = run("stat", "-f", "-c", "%b %c %S %l %t", path)
      .trim()
      .split(" ");
    const ours = sys.fstatfs(fd);
    if (typeof ours === "number") throw new Error(`errno ${ours}`);
    expect(ours).toHaveLength(9);
    expect([ours[0], ours[3], ours[7], ours[6]]).toEqual(
      [blocks, files, bsize, namelen].map(Number),
    );
    expect(ours[8]!.toString(16)).toBe(type);
    expect(sys.fstatfs(9999)).toBe(-E.EBADF);
  });
});
