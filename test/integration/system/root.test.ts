import { readFileSync, statSync } from "node:fs";
import { describe, expect, it, onTestFinished } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import * as S from "../../../src/system/native.js";
import {
  bytes,
  makeScratch,
  openDescriptor,
  run,
  statOf,
  writeFile,
} from "../../unit/system/scratch.js";

const none = bytes("");
const value = Buffer.from([1, 0, 2]);

describe("as root", () => {
  it("trusted attributes stay on the symlink, by name, by O_PATH descriptor and in a scan", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("f"), "");
    sys.symlinkat(bytes("f"), fd, bytes("l"));
    const attribute = bytes("trusted.varve");
    const link = openDescriptor(fd, bytes("l"), C.O_PATH | C.O_NOFOLLOW);
    expect(sys.setxattrat(fd, bytes("l"), attribute, value, 0)).toBe(0);
    expect(sys.getxattrat(link, none, attribute)).toEqual(value);
    expect(sys.setxattrat(link, none, bytes("trusted.more"), value, 0)).toBe(0);
    expect(
      run("getfattr", "-h", "--absolute-names", "-m", "-", "-e", "hex", "-d", `${path}/l`),
    ).toBe(`# file: ${path}/l\ntrusted.more=0x010002\ntrusted.varve=0x010002\n\n`);
    const scan = E.must<S.DirectoryScan>(sys.scanDirectory(fd), "getdents64", path);
    const found = Object.fromEntries(scan.names.map((name, i) => [name, scan.xattrs[i]?.length]));
    expect(found).toEqual({ f: undefined, l: 2 });
    expect(sys.removexattrat(link, none, bytes("trusted.more"))).toBe(0);
    expect(sys.listxattrat(fd, bytes("l"))).toEqual(Buffer.from("trusted.varve\0"));
    expect(run("getfattr", "-d", "-m", "-", "--absolute-names", `${path}/f`)).toBe("");
  });

  it("device nodes keep large numbers, and 0:0 is a whiteout", () => {
    const { fd, path } = makeScratch();
    const encode = (major: number, minor: number) =>
      ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
    const devices: [string, number, number, number][] = [
      ["c", C.S_IFCHR, 4095, 1_048_575],
      ["b", C.S_IFBLK, 259, 70_000],
      ["w", C.S_IFCHR, 0, 0],
    ];
    for (const [name, type, major, minor] of devices) {
      expect(sys.mknodat(fd, bytes(name), type | 0o600, encode(major, minor))).toBe(0);
      expect(run("stat", "-c", "%Hr %Lr", `${path}/${name}`).trim()).toBe(`${major} ${minor}`);
      expect(statOf(fd, bytes(name))[S.STAT_RDEV]).toBe(encode(major, minor));
      expect(statOf(fd, bytes(name))[S.STAT_MODE]! & C.S_IFMT).toBe(type);
    }
  });

  it("RENAME_WHITEOUT leaves a character device 0:0 behind", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("a"), "A");
    expect(sys.renameat2(fd, bytes("a"), fd, bytes("b"), C.RENAME_WHITEOUT)).toBe(0);
    expect(run("stat", "-c", "%F %Hr:%Lr", `${path}/a`).trim()).toBe("character special file 0:0");
    expect(readFileSync(`${path}/b`, "utf8")).toBe("A");
  });

  it("owners of 32 bits reach files, symlinks and O_PATH descriptors", () => {
    const { fd, path } = makeScratch();
    writeFile(fd, bytes("f"), "");
    sys.symlinkat(bytes("f"), fd, bytes("l"));
    expect(sys.fchownat(fd, bytes("l"), 4_294_967_294, 70_000, C.AT_SYMLINK_NOFOLLOW)).toBe(0);
    const link = openDescriptor(fd, bytes("l"), C.O_PATH | C.O_NOFOLLOW);
    expect(sys.fchownat(link, none, -1, 5_000_000, C.AT_EMPTY_PATH)).toBe(0);
    expect(run("stat", "-c", "%u %g", `${path}/l`).trim()).toBe("4294967294 5000000");
    expect(statOf(fd, bytes("l"))[S.STAT_UID]).toBe(4_294_967_294);
    expect(run("stat", "-c", "%u %g", `${path}/f`).trim()).toBe(
      `${process.getuid!()} ${process.getgid!()}`,
    );
  });

  it("mount and umount2 make, bind, change and remove mounts", () => {
    const { fd, path } = makeScratch();
    sys.mkdirat(fd, bytes("caf\xe9"), 0o755);
    sys.mkdirat(fd, bytes("bind"), 0o755);
    const target = bytes(`${path}/caf\xe9`);
    const bind = toBytes(`${path}/bind`);
    const flags = C.MS_NOSUID | C.MS_NODEV;
    onTestFinished(() => {
      sys.umount2(bind, C.MNT_DETACH);
      sys.umount2(target, C.MNT_DETACH);
    });
    expect(sys.mount(bytes("varve-test"), target, bytes("tmpfs"), flags, bytes("size=1m"))).toBe(0);
    const mounted = openDescriptor(C.AT_FDCWD, target, C.O_RDONLY | C.O_DIRECTORY);
    expect((sys.fstatfs(mounted) as number[])[8]).toBe(C.TMPFS_MAGIC);
    writeFile(mounted, bytes("f"), "x");
    expect(sys.mount(target, bind, none, C.MS_BIND, none)).toBe(0);
    expect(sys.mount(none, bind, none, C.MS_REMOUNT | C.MS_BIND | C.MS_RDONLY, none)).toBe(0);
    expect(statSync(`${path}/bind/f`).size).toBe(1);
    expect(sys.open(bytes(`${bind}/new`), C.O_CREAT | C.O_WRONLY, 0o600)).toBe(-E.EROFS);
    expect(sys.umount2(bind, 0)).toBe(0);
    expect(sys.umount2(target, 0)).toBe(-E.EBUSY);
    expect(sys.umount2(target, C.MNT_DETACH | C.UMOUNT_NOFOLLOW)).toBe(0);
    expect(sys.umount2(target, 0)).toBe(-E.EINVAL);
    expect(readFileSync("/proc/self/mountinfo", "latin1")).not.toContain(path);
  });

  it("mount says what is wrong", () => {
    const { path } = makeScratch();
    const target = toBytes(path);
    expect(sys.mount(none, target, bytes("no-such-fs"), 0, none)).toBe(-E.ENODEV);
    expect(sys.mount(none, bytes("/nowhere"), bytes("tmpfs"), 0, none)).toBe(-E.ENOENT);
    expect(sys.umount2(target, 0)).toBe(-E.EINVAL);
  });

  it("directories on tmpfs read and scan as on a disk", () => {
    const { path } = makeScratch();
    const target = toBytes(path);
    onTestFinished(() => void sys.umount2(target, C.MNT_DETACH));
    expect(sys.mount(none, target, bytes("tmpfs"), 0, none)).toBe(0);
    const fd = openDescriptor(C.AT_FDCWD, target, C.O_RDONLY | C.O_DIRECTORY);
    sys.symlinkat(bytes("x"), fd, bytes("l"));
    sys.setxattrat(fd, bytes("l"), bytes("trusted.t"), value, 0);
    sys.mkdirat(fd, bytes("d"), 0o755);
    const listing = E.must<S.DirectoryListing>(sys.readDirectory(fd), "getdents64", path);
    const types = Object.fromEntries(listing.names.map((name, i) => [name, listing.types[i]]));
    expect(types).toEqual({ d: C.DT_DIR, l: C.DT_LNK });
    const scan = E.must<S.DirectoryScan>(sys.scanDirectory(fd), "getdents64", path);
    expect(scan.xattrs[scan.names.indexOf(bytes("l"))]).toEqual([["trusted.t", value]]);
  });
});
