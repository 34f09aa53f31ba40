import { execFileSync } from "node:child_process";
import { readFileSync, statSync, writeSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import { bytes, makeScratch, openDescriptor, run, writeFile } from "./scratch.js";

const KEEP_PUNCH = C.FALLOC_FL_PUNCH_HOLE | C.FALLOC_FL_KEEP_SIZE;

function makeFile(content: string) {
  const { fd, path } = makeScratch();
  writeFile(fd, bytes("f"), content);
  return { fd: openDescriptor(fd, bytes("f"), C.O_RDWR), dirfd: fd, path: `${path}/f` };
}

describe("pread and pwrite", () => {
  it("move exactly the part of the buffer that was named", () => {
    const { fd, path } = makeFile("0123456789");
    const target = Buffer.alloc(8, "-");
    expect(sys.pread(fd, target, 2, 4, 3)).toBe(4);
    expect(target.toString()).toBe("--3456--");
    expect(sys.pread(fd, target, 0, 8, 7)).toBe(3);
    expect(sys.pread(fd, target, 0, 8, 10)).toBe(0);
    expect(sys.pwrite(fd, Buffer.from("abcdef"), 1, 3, 8)).toBe(3);
    expect(readFileSync(path, "utf8")).toBe("01234567bcd");
  });

  it("reach offsets beyond 32 bits, up to 2^53", () => {
    const { fd, path } = makeFile("");
    const offset = 5 * 2 ** 30 + 1;
    expect(sys.pwrite(fd, Buffer.from("x"), 0, 1, offset)).toBe(1);
    expect(statSync(path).size).toBe(offset + 1);
    expect(sys.lseek(fd, 0, C.SEEK_END)).toBe(offset + 1);
    const target = Buffer.alloc(1);
    expect(sys.pread(fd, target, 0, 1, offset)).toBe(1);
    expect(target.toString()).toBe("x");
    expect(sys.lseek(fd, 2 ** 53, C.SEEK_SET)).toBeTypeOf("number");
  });

  it("take empty buffers and empty parts", () => {
    const { fd } = makeFile("x");
    expect(sys.pread(fd, Buffer.alloc(0), 0, 0, 0)).toBe(0);
    expect(sys.pwrite(fd, Buffer.from("abc"), 3, 0, 0)).toBe(0);
  });

  it("throw a RangeError rather than touch memory outside the buffer", () => {
    const { fd } = makeFile("0123456789");
    const b = Buffer.alloc(4);
    const ranges: [number, number][] = [
      [0, 5],
      [1, 4],
      [5, 0],
      [-1, 2],
      [0, -1],
      [2 ** 40, 1],
    ];
    ranges.push([Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]);
    for (const [start, length] of ranges) {
      expect(() => sys.pread(fd, b, start, length, 0)).toThrow(RangeError);
      expect(() => sys.pwrite(fd, b, start, length, 0)).toThrow(RangeError);
      expect(() => sys.read(fd, b, start, length)).toThrow(RangeError);
    }
  });

  it("answer negative errnos", () => {
    const { fd, dirfd } = makeFile("x");
    const b = Buffer.alloc(4);
    expect(sys.pread(9999, b, 0, 4, 0)).toBe(-E.EBADF);
    expect(sys.pread(dirfd, b, 0, 4, 0)).toBe(-E.EISDIR);
    expect(sys.pread(fd, b, 0, 4, -1)).toBe(-E.EINVAL);
    expect(sys.pwrite(openDescriptor(dirfd, bytes("f"), C.O_RDONLY), b, 0, 4, 0)).toBe(-E.EBADF);
  });
});

describe("pipe", () => {
  it("carries bytes from its second end to its first, and ends when that is closed", () => {
    const [reader, writer] = sys.pipe() as [number, number];
    expect(sys.pwrite(writer, Buffer.from("x"), 0, 1, 0)).toBe(-E.ESPIPE);
    expect(writeSync(writer, "through")).toBe(7);
    const target = Buffer.alloc(10);
    expect(sys.read(reader, target, 0, 10)).toBe(7);
    expect(target.toString("latin1", 0, 7)).toBe("through");
    sys.close(writer);
    expect(sys.read(reader, target, 0, 10)).toBe(0);
    sys.close(reader);
  });
});

describe("read", () => {
  it("takes what a fifo has, EAGAIN when it has nothing, 0 at its end", () => {
    const { fd } = makeScratch();
    sys.mknodat(fd, bytes("p"), C.S_IFIFO | 0o600, 0);
    const reader = openDescriptor(fd, bytes("p"), C.O_RDONLY | C.O_NONBLOCK);
    const b = Buffer.alloc(8);
    expect(sys.read(reader, b, 0, 8)).toBe(0);
    const writer = sys.openat(fd, bytes("p"), C.O_WRONLY | C.O_NONBLOCK, 0);
    expect(sys.read(reader, b, 0, 8)).toBe(-E.EAGAIN);
    expect(sys.pwrite(writer, Buffer.from("x"), 0, 1, 0)).toBe(-E.ESPIPE);
    expect(sys.setPipeSize(writer, 100_000)).toBe(131_072);
    sys.close(writer);
    expect(sys.read(reader, b, 0, 8)).toBe(0);
    expect(sys.setPipeSize(fd, 4096)).toBe(-E.EBADF);
  });
});

describe("size and holes", () => {
  it("ftruncate grows with zeros and cuts", () => {
    const { fd, path } = makeFile("abc");
    expect(sys.ftruncate(fd, 2 ** 33)).toBe(0);
    expect(statSync(path).size).toBe(2 ** 33);
    expect(sys.ftruncate(fd, 1)).toBe(0);
    expect(readFileSync(path, "utf8")).toBe("a");
    expect(sys.ftruncate(fd, -1)).toBe(-E.EINVAL);
  });

  it("SEEK_DATA and SEEK_HOLE find what fallocate punched", () => {
    const { fd, path } = makeFile("x".repeat(3 * 65_536));
    sys.fsync(fd);
    expect(sys.lseek(fd, 0, C.SEEK_HOLE)).toBe(3 * 65_536);
    expect(sys.fallocate(fd, KEEP_PUNCH, 65_536, 65_536)).toBe(0);
    expect(sys.lseek(fd, 0, C.SEEK_HOLE)).toBe(65_536);
    expect(sys.lseek(fd, 65_536, C.SEEK_DATA)).toBe(2 * 65_536);
    expect(sys.lseek(fd, 3 * 65_536, C.SEEK_DATA)).toBe(-E.ENXIO);
    const content = readFileSync(path);
    expect(content.subarray(65_536, 131_072).equals(Buffer.alloc(65_536))).toBe(true);
    expect(Number(run("stat", "-c", "%b", path)) * 512).toBe(2 * 65_536);
  });

  it("fallocate reserves space, with the size or without", () => {
    const { fd, path } = makeFile("");
    expect(sys.fallocate(fd, C.FALLOC_FL_KEEP_SIZE, 0, 65_536)).toBe(0);
    expect(statSync(path).size).toBe(0);
    expect(statSync(path).blocks * 512).toBe(65_536);
    expect(sys.fallocate(fd, 0, 0, 65_536)).toBe(0);
    expect(statSync(path).size).toBe(65_536);
    expect(sys.fallocate(fd, 0, 0, 0)).toBe(-E.EINVAL);
  });
});

describe("copying between files", () => {
  it("copyFileRange copies once what one call can, and says how much", () => {
    const { fd, dirfd, path } = makeFile("0123456789");
    const to = openDescriptor(dirfd, bytes("copy"), C.O_RDWR | C.O_CREAT);
    expect(sys.copyFileRange(fd, 2, to, 1, 5)).toBe(5);
    expect(sys.copyFileRange(fd, 8, to, 6, 100)).toBe(2);
    expect(sys.copyFileRange(fd, 10, to, 0, 1)).toBe(0);
    expect(readFileSync(path.replace(/f$/, "copy"), "latin1")).toBe("\x002345689");
    expect(sys.lseek(fd, 0, C.SEEK_CUR)).toBe(0);
    expect(sys.copyFileRange(fd, 0, to, 0, -1)).toBe(-E.EINVAL);
    expect(sys.copyFileRange(fd, 0, dirfd, 0, 1)).toBe(-E.EISDIR);
  });

  it("ficlone shares blocks or says that this disk cannot", () => {
    const { fd, dirfd, path } = makeFile("clone me");
    const to = openDescriptor(dirfd, bytes("clone"), C.O_RDWR | C.O_CREAT);
    const result = sys.ficlone(to, fd);
    if (result === 0) expect(readFileSync(path.replace(/f$/, "clone"), "utf8")).toBe("clone me");
    else expect([-E.EOPNOTSUPP, -E.EINVAL, -E.EXDEV]).toContain(result);
    expect(sys.ficlone(to, 9999)).toBe(-E.EBADF);
  });
});

describe("flushing", () => {
  it("works on this thread and on the pool", async () => {
    const { fd, dirfd } = makeFile("x");
    expect([sys.fsync(fd), sys.fdatasync(fd), sys.syncfs(dirfd), sys.fsync(dirfd)]).toEqual([
      0, 0, 0, 0,
    ]);
    const all = [sys.syncAsync("fsync", fd), sys.syncAsync("fdatasync", fd)];
    all.push(sys.syncAsync("syncfs", dirfd));
    expect(await Promise.all(all)).toEqual([0, 0, 0]);
  });

  it("resolves with a negative errno instead of rejecting", async () => {
    expect(sys.fsync(9999)).toBe(-E.EBADF);
    expect(await sys.syncAsync("fsync", 9999)).toBe(-E.EBADF);
    expect(await sys.syncAsync("syncfs", 9999)).toBe(-E.EBADF);
  });
});

describe("flock", () => {
  it("excludes another open of the file, in this process and in others", () => {
    const { fd, dirfd, path } = makeFile("");
    const other = openDescriptor(dirfd, bytes("f"), C.O_RDONLY);
    const probe = () => {
      try {
        execFileSync("flock", ["--nonblock", path, "true"], { stdio: "ignore" });
        return "free";
      } catch {
        return "taken";
      }
    };
    expect(sys.flock(fd, C.LOCK_EX | C.LOCK_NB)).toBe(0);
    expect(sys.flock(other, C.LOCK_SH | C.LOCK_NB)).toBe(-E.EAGAIN);
    expect(probe()).toBe("taken");
    expect(sys.flock(fd, C.LOCK_UN)).toBe(0);
    expect(probe()).toBe("free");
  });
});
