/** What changing a mode must do, whichever system call the addon chose. */

import { lstatSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import * as C from "../../../src/system/constants.js";
import * as E from "../../../src/system/errno.js";
import { bytes, makeScratch, openDescriptor, writeFile } from "./scratch.js";

export function describeModes(kernel: string): void {
  describe(`fchmod and fchmodat on ${kernel}`, () => {
    it("set all twelve bits by name, by descriptor and by O_PATH descriptor", () => {
      const { fd, path } = makeScratch();
      const name = bytes("f\xff");
      writeFile(fd, name, "");
      const mode = () => lstatSync(Buffer.from(`${path}/${name}`, "latin1")).mode & 0o7777;
      expect(sys.fchmodat(fd, name, 0o1751)).toBe(0);
      expect(mode()).toBe(0o1751);
      const file = openDescriptor(fd, name, C.O_RDONLY);
      expect(sys.fchmod(file, 0o4700)).toBe(0);
      expect(mode()).toBe(0o4700);
      const pathOnly = openDescriptor(fd, name, C.O_PATH);
      expect(sys.fchmodat(pathOnly, bytes(""), 0o640)).toBe(0);
      expect(mode()).toBe(0o640);
      expect(sys.fchmod(pathOnly, 0o600)).toBe(-E.EBADF);
    });

    it("reach a fifo, which an open would block on", () => {
      const { fd, path } = makeScratch();
      sys.mknodat(fd, bytes("p"), C.S_IFIFO | 0o600, 0);
      expect(sys.fchmodat(fd, bytes("p"), 0o644)).toBe(0);
      expect(lstatSync(`${path}/p`).mode & 0o7777).toBe(0o644);
    });

    it("follow no symlink", () => {
      const { fd, path } = makeScratch();
      writeFile(fd, bytes("f"), "");
      sys.fchmodat(fd, bytes("f"), 0o600);
      sys.symlinkat(bytes("f"), fd, bytes("l"));
      expect(sys.fchmodat(fd, bytes("l"), 0o777)).toBe(-E.ENOTSUP);
      expect(statSync(`${path}/f`).mode & 0o7777).toBe(0o600);
      expect(sys.fchmodat(fd, bytes("absent"), 0o777)).toBe(-E.ENOENT);
    });
  });
}
