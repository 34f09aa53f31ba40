/** What extended attributes must do, whichever system calls the addon chose. */

import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import { bytes, makeScratch, openDescriptor, run, writeFile } from "./scratch.js";

const attribute = bytes("user.varve");
const value = Buffer.from([0, 255, 10, 128, 0]);

export function describeXattrs(kernel: string): void {
  describe(`extended attributes on ${kernel}`, () => {
    it("written by setfattr read the same, and the other way round", () => {
      const { fd, path } = makeScratch();
      writeFile(fd, bytes("f"), "");
      run("setfattr", "-n", "user.theirs", "-v", "0x00ff0a8000", `${path}/f`);
      expect(sys.getxattrat(fd, bytes("f"), bytes("user.theirs"))).toEqual(value);
      expect(sys.setxattrat(fd, bytes("f"), attribute, value, 0)).toBe(0);
      const shown = run("getfattr", "--absolute-names", "-e", "hex", "-n", attribute, `${path}/f`);
      expect(shown).toContain(`${attribute}=0x00ff0a8000`);
    });

    it("are listed as names each followed by NUL, and no longer once removed", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      expect(sys.listxattrat(fd, bytes("f"))).toEqual(Buffer.alloc(0));
      sys.setxattrat(fd, bytes("f"), bytes("user.a"), value, 0);
      sys.setxattrat(fd, bytes("f"), bytes("user.b\xff"), value, 0);
      const listed = (sys.listxattrat(fd, bytes("f")) as Buffer).toString("latin1");
      expect(listed.split("\0").sort()).toEqual(["", "user.a", "user.b\xff"]);
      expect(sys.removexattrat(fd, bytes("f"), bytes("user.a"))).toBe(0);
      expect(sys.removexattrat(fd, bytes("f"), bytes("user.a"))).toBe(-E.ENODATA);
      expect(sys.getxattrat(fd, bytes("f"), bytes("user.a"))).toBe(-E.ENODATA);
    });

    it("obey XATTR_CREATE and XATTR_REPLACE, and may be empty", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      const empty = Buffer.alloc(0);
      expect(sys.setxattrat(fd, bytes("f"), attribute, value, C.XATTR_REPLACE)).toBe(-E.ENODATA);
      expect(sys.setxattrat(fd, bytes("f"), attribute, value, C.XATTR_CREATE)).toBe(0);
      expect(sys.setxattrat(fd, bytes("f"), attribute, value, C.XATTR_CREATE)).toBe(-E.EEXIST);
      expect(sys.setxattrat(fd, bytes("f"), attribute, empty, C.XATTR_REPLACE)).toBe(0);
      expect(sys.getxattrat(fd, bytes("f"), attribute)).toEqual(empty);
    });

    it("of every length come whole, and so do long lists of names", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      for (const length of [1023, 1024, 1025, 2000]) {
        const content = Buffer.alloc(length, length);
        expect(sys.setxattrat(fd, bytes("f"), attribute, content, 0)).toBe(0);
        expect(sys.getxattrat(fd, bytes("f"), attribute)).toEqual(content);
      }
      sys.removexattrat(fd, bytes("f"), attribute);
      const names = Array.from({ length: 9 }, (_, i) => `user.${String(i).padEnd(200, "n")}`);
      for (const name of names) sys.setxattrat(fd, bytes("f"), bytes(name), Buffer.alloc(0), 0);
      const listed = (sys.listxattrat(fd, bytes("f")) as Buffer).toString().split("\0");
      expect(listed.filter((name) => name !== "").sort()).toEqual(names);
    });

    it("work through every kind of descriptor with an empty name", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      sys.mkdirat(fd, bytes("d"), 0o755);
      const descriptors = [
        openDescriptor(fd, bytes("f"), C.O_RDWR),
        openDescriptor(fd, bytes("f"), C.O_PATH),
        openDescriptor(fd, bytes("d"), C.O_RDONLY | C.O_DIRECTORY),
        openDescriptor(fd, bytes("d"), C.O_PATH),
      ];
      for (const one of descriptors) {
        expect(sys.setxattrat(one, bytes(""), attribute, value, C.XATTR_CREATE)).toBe(0);
        expect(sys.getxattrat(one, bytes(""), attribute)).toEqual(value);
        expect(sys.listxattrat(one, bytes(""))).toEqual(Buffer.from(`${attribute}\0`));
        expect(sys.removexattrat(one, bytes(""), attribute)).toBe(0);
      }
    });

    it("work by name below an O_PATH directory, names of any 255 bytes", () => {
      const { fd } = makeScratch();
      const long = bytes("\xfe".repeat(255));
      writeFile(fd, long, "");
      const directory = openDescriptor(fd, bytes("."), C.O_PATH | C.O_DIRECTORY);
      expect(sys.setxattrat(directory, long, attribute, value, 0)).toBe(0);
      expect(sys.getxattrat(directory, long, attribute)).toEqual(value);
    });

    it("never reach through a symlink", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      sys.setxattrat(fd, bytes("f"), attribute, value, 0);
      sys.symlinkat(bytes("f"), fd, bytes("l"));
      const link = openDescriptor(fd, bytes("l"), C.O_PATH | C.O_NOFOLLOW);
      // The kernel keeps user.* off symlinks: EPERM to write, ENODATA to read.
      expect(sys.setxattrat(fd, bytes("l"), attribute, value, 0)).toBe(-E.EPERM);
      expect(sys.setxattrat(link, bytes(""), attribute, value, 0)).toBe(-E.EPERM);
      expect(sys.getxattrat(fd, bytes("l"), attribute)).toBe(-E.ENODATA);
      expect(sys.getxattrat(link, bytes(""), attribute)).toBe(-E.ENODATA);
      expect(sys.listxattrat(fd, bytes("l"))).toEqual(Buffer.alloc(0));
      expect(sys.listxattrat(link, bytes(""))).toEqual(Buffer.alloc(0));
    });

    it("fail with an errno", () => {
      const { fd } = makeScratch();
      writeFile(fd, bytes("f"), "");
      const tooBig = Buffer.alloc(C.XATTR_SIZE_MAX + 1);
      expect(sys.getxattrat(fd, bytes("absent"), attribute)).toBe(-E.ENOENT);
      expect(sys.getxattrat(9999, bytes("f"), attribute)).toBe(-E.EBADF);
      expect(sys.listxattrat(9999, bytes("f"))).toBe(-E.EBADF);
      expect(sys.setxattrat(fd, bytes("f"), bytes("nonsense"), value, 0)).toBe(-E.EOPNOTSUPP);
      expect(sys.setxattrat(fd, bytes("f"), attribute, tooBig, 0)).toBe(-E.E2BIG);
      expect(sys.setxattrat(fd, bytes("f"), bytes(`user.${"x".repeat(256)}`), value, 0)).toBe(
        -E.ERANGE,
      );
    });
  });
}
