import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { toBuffer, toBytes } from "../../../src/system/bytes.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import { STAT_INO, STAT_NLINK, STAT_SIZE } from "../../../src/system/native.js";
import { bytes, makeScratch, openDescriptor, run, statOf, writeFile } from "./scratch.js";

const notUtf8 = bytes("caf\xe9-\xff\xfe");
const long = bytes("\xe4".repeat(255));

describe("names", () => {
  it("reach the kernel as the bytes they are, UTF-8 or not, up to 255 of them", () => {
    const { fd, path } = makeScratch();
    for (const name of [notUtf8, long, toBytes("grüße"), bytes(" \n\t\\\"'*")]) {
      writeFile(fd, name, toBuffer(name));
      const onDisk = readdirSync(path, { encoding: "buffer" }).map((b) => b.toString("latin1"));
      expect(onDisk).toContain(name);
      expect(statOf(fd, name)[STAT_SIZE]).toBe(name.length);
    }
  });

  it("longer than the limits are ENAMETOOLONG, a component and a path alike", () => {
    const { fd } = makeScratch();
    const tooLong = [bytes("n".repeat(256)), bytes("a/".repeat(2048)), bytes("x".repeat(100_000))];
    for (const name of tooLong) {
      expect(sys.openat(fd, name, C.O_RDONLY, 0)).toBe(-E.ENAMETOOLONG);
      expect(sys.mkdirat(fd, name, 0o755)).toBe(-E.ENAMETOOLONG);
      expect(sys.readlinkat(fd, name)).toBe(-E.ENAMETOOLONG);
    }
  });

  it("of exactly PATH_MAX - 1 bytes still work", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("f"), "x");
    const path = bytes(`${"./".repeat(2047)}f`);
    expect(path.length).toBe(C.PATH_MAX - 1);
    expect(statOf(fd, path)[STAT_SIZE]).toBe(1);
    expect(sys.openat(fd, bytes(`./${path}`), C.O_RDONLY, 0)).toBe(-E.ENAMETOOLONG);
  });

  it("with a NUL are EINVAL instead of another file", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("a"), "x");
    const name = bytes("a\0b");
    expect(sys.openat(fd, name, C.O_RDONLY, 0)).toBe(-E.EINVAL);
    expect(sys.unlinkat(fd, name, 0)).toBe(-E.EINVAL);
    expect(sys.symlinkat(name, fd, bytes("l"))).toBe(-E.EINVAL);
    expect(sys.getxattrat(fd, bytes("a"), bytes("user.\0"))).toBe(-E.EINVAL);
    expect(statOf(fd, bytes("a"))[STAT_SIZE]).toBe(1);
  });
});

describe("open and openat", () => {
  it("answer a negative errno for each failure", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("file"), "x");
    expect(sys.openat(fd, bytes("absent"), C.O_RDONLY, 0)).toBe(-E.ENOENT);
    expect(sys.openat(fd, bytes("file/x"), C.O_RDONLY, 0)).toBe(-E.ENOTDIR);
    expect(sys.openat(fd, bytes("file"), C.O_CREAT | C.O_EXCL, 0o600)).toBe(-E.EEXIST);
    expect(sys.openat(fd, bytes("file"), C.O_DIRECTORY, 0)).toBe(-E.ENOTDIR);
    expect(sys.openat(fd, bytes("."), C.O_WRONLY, 0)).toBe(-E.EISDIR);
    expect(sys.openat(9999, bytes("file"), C.O_RDONLY, 0)).toBe(-E.EBADF);
    expect(sys.close(9999)).toBe(-E.EBADF);
  });

  it("make descriptors that children do not inherit", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("file"), "x");
    const made = [
      sys.open(toBytes(`${path}/file`), C.O_RDONLY, 0),
      sys.openat(fd, bytes("file"), C.O_RDONLY, 0),
      sys.openat2(fd, bytes("file"), C.O_RDONLY, 0, 0),
    ];
    for (const one of made) {
      const flags = /flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${one}`, "utf8"))?.[1];
      expect(Number.parseInt(flags!, 8) & C.O_CLOEXEC).toBe(C.O_CLOEXEC);
      expect(sys.close(one)).toBe(0);
    }
  });

  it("make a nameless file that linkat names later", () => {
    const { fd, path } = makeScratch();
    const file = openDescriptor(fd, bytes("."), C.O_TMPFILE | C.O_RDWR, 0o600);
    expect(readdirSync(path)).toEqual([]);
    expect(statOf(file, bytes(""))[STAT_NLINK]).toBe(0);
    const magic = bytes(`/proc/self/fd/${file}`);
    expect(sys.linkat(C.AT_FDCWD, magic, fd, bytes("named"), C.AT_SYMLINK_FOLLOW)).toBe(0);
    expect(readdirSync(path)).toEqual(["named"]);
  });
});

describe("openat2", () => {
  function escapes() {
    const { fd, path } = makeScratch();
    sys.mkdirat(fd, bytes("jail"), 0o755);
    sys.mkdirat(fd, bytes("jail/sub"), 0o755);
    writeFile(fd, bytes("secret"), "s");
    writeFile(fd, bytes("jail/file"), "f");
    sys.symlinkat(bytes("../secret"), fd, bytes("jail/up"));
    sys.symlinkat(toBytes(`${path}/secret`), fd, bytes("jail/absolute"));
    sys.symlinkat(bytes("file"), fd, bytes("jail/inside"));
    sys.symlinkat(bytes("/file"), fd, bytes("jail/rooted"));
    return openDescriptor(fd, bytes("jail"), C.O_PATH | C.O_DIRECTORY);
  }
  const open = (jail: number, name: string, resolve: number) => {
    const fd = sys.openat2(jail, bytes(name), C.O_RDONLY, 0, resolve);
    if (fd >= 0) sys.close(fd);
    return Math.min(fd, 0);
  };

  it("with RESOLVE_BENEATH refuses every way out, and nothing else", () => {
    const jail = escapes();
    for (const name of ["../secret", "sub/../../secret", "up", "absolute", "/etc/passwd"]) {
      expect(open(jail, name, C.RESOLVE_BENEATH)).toBe(-E.EXDEV);
    }
    for (const name of ["file", "sub/../file", "inside"]) {
      expect(open(jail, name, C.RESOLVE_BENEATH)).toBe(0);
    }
  });

  it("with RESOLVE_NO_SYMLINKS refuses symlinks in every place", () => {
    const jail = escapes();
    sys.symlinkat(bytes("sub"), jail, bytes("subLink"));
    for (const name of ["inside", "up", "absolute", "subLink/../file"]) {
      expect(open(jail, name, C.RESOLVE_NO_SYMLINKS)).toBe(-E.ELOOP);
    }
    expect(open(jail, "file", C.RESOLVE_NO_SYMLINKS | C.RESOLVE_BENEATH)).toBe(0);
  });

  it("with RESOLVE_IN_ROOT takes the directory for the root", () => {
    const jail = escapes();
    expect(open(jail, "rooted", C.RESOLVE_IN_ROOT)).toBe(0);
    expect(open(jail, "/../../file", C.RESOLVE_IN_ROOT)).toBe(0);
    expect(open(jail, "up", C.RESOLVE_IN_ROOT)).toBe(-E.ENOENT);
  });

  it("creates with the mode given, and ignores it where nothing is created", () => {
    const { fd, path } = makeScratch();
    const made = sys.openat2(fd, bytes("n"), C.O_CREAT | C.O_RDWR, C.S_IFREG | 0o600, 0);
    expect(made).toBeGreaterThan(0);
    expect(sys.close(made)).toBe(0);
    expect(lstatSync(`${path}/n`).mode & 0o7777).toBe(0o600);
    expect(sys.close(sys.openat2(fd, bytes("n"), C.O_RDONLY, 0o644, 0))).toBe(0);
    expect(sys.openat2(fd, bytes("n"), C.O_RDONLY, 0, 0x4000_0000)).toBe(-E.EINVAL);
  });
});

describe("linking, renaming and removing", () => {
  it("symlinkat and readlinkat keep the target's bytes, up to PATH_MAX - 1", () => {
    const { fd, path } = makeScratch();
    const targets = [notUtf8, bytes("/"), bytes("t".repeat(C.PATH_MAX - 1))];
    targets.forEach((target, i) => {
      expect(sys.symlinkat(target, fd, bytes(`l${i}`))).toBe(0);
      expect(sys.readlinkat(fd, bytes(`l${i}`))).toBe(target);
      expect(readlinkSync(`${path}/l${i}`, "latin1")).toBe(target);
    });
    expect(sys.symlinkat(bytes(""), fd, bytes("empty"))).toBe(-E.ENOENT);
    expect(sys.readlinkat(fd, bytes("."))).toBe(-E.EINVAL);
    const link = openDescriptor(fd, bytes("l0"), C.O_PATH | C.O_NOFOLLOW);
    expect(sys.readlinkat(link, bytes(""))).toBe(notUtf8);
  });

  it("linkat makes a second name of one inode, of a symlink too", () => {
    const { fd } = makeScratch();
    writeFile(fd, bytes("a"), "x");
    sys.symlinkat(bytes("a"), fd, bytes("s"));
    expect(sys.linkat(fd, bytes("a"), fd, notUtf8, 0)).toBe(0);
    expect(sys.linkat(fd, bytes("s"), fd, bytes("s2"), 0)).toBe(0);
    expect(statOf(fd, notUtf8)[STAT_INO]).toBe(statOf(fd, bytes("a"))[STAT_INO]);
    expect(statOf(fd, bytes("a"))[STAT_NLINK]).toBe(2);
    expect(sys.readlinkat(fd, bytes("s2"))).toBe("a");
    expect(sys.linkat(fd, bytes("a"), fd, bytes("s"), 0)).toBe(-E.EEXIST);
  });

  it("unlinkat removes files, and directories only with AT_REMOVEDIR and when empty", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, long, "x");
    sys.mkdirat(fd, bytes("d"), 0o755);
    writeFile(fd, bytes("d/f"), "x");
    expect(sys.unlinkat(fd, bytes("d"), 0)).toBe(-E.EISDIR);
    expect(sys.unlinkat(fd, bytes("d"), C.AT_REMOVEDIR)).toBe(-E.ENOTEMPTY);
    expect(sys.unlinkat(fd, bytes("d/f"), C.AT_REMOVEDIR)).toBe(-E.ENOTDIR);
    expect(sys.unlinkat(fd, bytes("d/f"), 0)).toBe(0);
    expect(sys.unlinkat(fd, bytes("d"), C.AT_REMOVEDIR)).toBe(0);
    expect(sys.unlinkat(fd, long, 0)).toBe(0);
    expect(sys.unlinkat(fd, long, 0)).toBe(-E.ENOENT);
    expect(readdirSync(path)).toEqual([]);
  });

  it("renameat2 replaces, refuses with NOREPLACE and swaps with EXCHANGE", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("a"), "A");
    writeFile(fd, bytes("b"), "B");
    expect(sys.renameat2(fd, bytes("a"), fd, bytes("b"), C.RENAME_NOREPLACE)).toBe(-E.EEXIST);
    expect(sys.renameat2(fd, bytes("a"), fd, bytes("b"), C.RENAME_EXCHANGE)).toBe(0);
    expect(run("cat", `${path}/a`, `${path}/b`)).toBe("BA");
    expect(sys.renameat2(fd, bytes("a"), fd, bytes("z"), C.RENAME_EXCHANGE)).toBe(-E.ENOENT);
    expect(sys.renameat2(fd, bytes("a"), fd, bytes("b"), 0)).toBe(0);
    expect(existsSync(`${path}/a`)).toBe(false);
    expect(run("cat", `${path}/b`)).toBe("B");
    expect(sys.renameat2(fd, bytes("b"), fd, bytes("c"), 0x80)).toBe(-E.EINVAL);
  });

  it("mkdirat and mknodat make what their mode says, less the umask", () => {
    const { fd, path } = makeScratch();
    const before = sys.umask(0o027);
    try {
      expect(sys.mkdirat(fd, bytes("d"), 0o777)).toBe(0);
      expect(sys.mknodat(fd, bytes("fifo"), C.S_IFIFO | 0o666, 0)).toBe(0);
      expect(sys.mknodat(fd, bytes("file"), C.S_IFREG | 0o666, 0)).toBe(0);
      expect(sys.mknodat(fd, bytes("sock"), C.S_IFSOCK | 0o666, 0)).toBe(0);
    } finally {
      expect(sys.umask(before)).toBe(0o027);
    }
    const shown = run(
      "stat",
      "-c",
      "%n %A",
      ...["d", "fifo", "file", "sock"].map((n) => `${path}/${n}`),
    );
    expect(shown.replaceAll(`${path}/`, "")).toBe(
      "d drwxr-x---\nfifo prw-r-----\nfile -rw-r-----\nsock srw-r-----\n",
    );
    expect(sys.mkdirat(fd, bytes("d"), 0o777)).toBe(-E.EEXIST);
  });
});
