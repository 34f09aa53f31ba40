import { mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FATTR_MODE, FATTR_MTIME, FATTR_SIZE } from "../../../src/fuse/file-system.js";
import { overlayAttributes } from "../../../src/overlay/format.js";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, toBytes } from "../../../src/system/bytes.js";
import { S_IFCHR, S_IFDIR, S_IFMT, S_IFREG } from "../../../src/system/constants.js";
import {
  EEXIST,
  EINVAL,
  ENAMETOOLONG,
  ENODATA,
  ENOENT,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
  EROFS,
  ESTALE,
} from "../../../src/system/errno.js";
import { STAT_BLOCKS, STAT_INO, STAT_MTIME_SEC, STAT_SLOTS } from "../../../src/system/native.js";
import {
  CALLER,
  change,
  isRoot,
  ListingSink,
  newAttributes,
  newEntry,
  ViewDriver,
} from "./view-driver.js";

const BIG = 1 << 20;

function populate(directory: string): void {
  mkdirSync(join(directory, "d/sub/deeper"), { recursive: true });
  mkdirSync(join(directory, "empty"));
  for (let i = 0; i < 20; i++) writeFileSync(join(directory, `d/f${i}`), `content ${i}`);
  writeFileSync(join(directory, "big"), Buffer.alloc(BIG, "b"));
  writeFileSync(join(directory, "small"), "small");
  symlinkSync("small", join(directory, "link"));
}

let view: ViewDriver;
beforeEach(() => {
  view = new ViewDriver().addLayer(populate).open();
});
afterEach(() => view.dispose());

/** statx of a path below the upper directory. */
function upperStat(path: string): Float64Array | number {
  const stat = new Float64Array(STAT_SLOTS);
  const result = sys.statx(-100, toBytes(join(view.upperDir, path)), 0x100, stat);
  return result < 0 ? result : stat;
}

describe("an untouched view", () => {
  it("creates nothing in the upper directory by being read", () => {
    view.tree();
    expect(readdirSync(view.upperDir)).toEqual([]);
  });

  it("has the root of the image, not of the upper directory", () => {
    view.dispose();
    view = new ViewDriver()
      .addLayer((directory) => {
        populate(directory);
        sys.fchmodat(-100, toBytes(directory), 0o750);
        sys.utimensat(-100, toBytes(directory), 5, 6, 7, 8, 0);
      })
      .open();
    const root = view.attributes(1);
    expect([root.mode, root.mtimeSec, root.mtimeNsec]).toEqual([S_IFDIR | 0o750, 7, 8]);
  });

  it("answers ESTALE for nodes that nobody handed out", () => {
    const unknown = 2 ** 48 + 12345;
    expect(view.fs.getattr(unknown, newAttributes())).toBe(-ESTALE);
    expect(view.fs.lookup(unknown, toBytes("x"), newEntry())).toBe(-ESTALE);
    expect(view.fs.read(unknown, 0, 0, Buffer.alloc(1))).toBe(-ESTALE);
    expect(view.fs.write(10_000_000, 0, 0, Buffer.alloc(1), 0)).toBe(-ESTALE);
    expect(view.fs.readdir(unknown, 0, 0, true, new ListingSink())).toBe(-ESTALE);
    expect(view.fs.readlink(unknown)).toBe(-ESTALE);
    expect(view.fs.getxattr(unknown, toBytes("user.x"))).toBe(-ESTALE);
    expect(view.fs.setattr(CALLER, unknown, change({ valid: 0 }), newAttributes())).toBe(-ESTALE);
    expect(view.fs.mknod(CALLER, unknown, toBytes("x"), S_IFREG, 0, 0, newEntry())).toBe(-ESTALE);
    expect(view.fs.rename(unknown, toBytes("x"), 1, toBytes("y"), 0)).toBe(-ESTALE);
  });

  it("refuses names longer than 255 bytes and takes those of 255", () => {
    expect(view.lookup(1, "x".repeat(256))).toBe(-ENAMETOOLONG);
    expect(view.create("x".repeat(256))).toBe(-ENAMETOOLONG);
    expect(view.create("x".repeat(255))).toBeGreaterThan(0);
    expect(view.unlink("x".repeat(255))).toBe(0);
  });
});

describe("a read-only view", () => {
  it("refuses every change with EROFS and reads everything", () => {
    view.fs.destroy();
    view.open(true);
    expect(view.read("d/f3")).toBe("content 3");
    expect(view.create("n")).toBe(-EROFS);
    expect(view.create("n", S_IFDIR)).toBe(-EROFS);
    expect(view.symlink("n", "x")).toBe(-EROFS);
    expect(view.unlink("small")).toBe(-EROFS);
    expect(view.rmdir("empty")).toBe(-EROFS);
    expect(view.rename("small", "n")).toBe(-EROFS);
    expect(view.link("small", "n")).toBe(-EROFS);
    expect(view.write("small", "x")).toBe(-EROFS);
    const small = view.walk("small");
    const set = change({ valid: FATTR_MODE, mode: 0 });
    expect(view.fs.setattr(CALLER, small, set, newAttributes())).toBe(-EROFS);
    expect(view.fs.setxattr(CALLER, small, toBytes("user.x"), Buffer.from("1"), 0, false)).toBe(
      -EROFS,
    );
    expect(view.fs.fallocate(small, 0, 0, 0, 10, false)).toBe(-EROFS);
    expect(view.fs.fsync(small, false)).toBe(0);
  });
});

describe("copy-up", () => {
  it("leaves the data of a big file alone when only its metadata changes", () => {
    const big = view.walk("big");
    const out = newAttributes();
    expect(view.fs.setattr(CALLER, big, change({ valid: FATTR_MODE, mode: 0o600 }), out)).toBe(0);
    expect([out.ino, out.size, out.mode]).toEqual([big, BIG, S_IFREG | 0o600]);
    expect(out.blocks).toBeGreaterThanOrEqual(BIG / 512);
    expect((upperStat("big") as Float64Array)[STAT_BLOCKS]).toBeLessThan(64);
    expect(view.read("big")).toBe("b".repeat(BIG));
    view.remount();
    expect(view.read("big")).toBe("b".repeat(BIG));
    expect(view.write("big", "X", 10)).toBe(1);
    expect(view.read("big")).toBe(`${"b".repeat(10)}X${"b".repeat(BIG - 11)}`);
    view.remount();
    expect(view.walk("big")).toBe(big);
    expect(view.attributes(big).mode).toBe(S_IFREG | 0o600);
  });

  it("copies no more data than a truncation keeps", () => {
    const big = view.walk("big");
    const set = change({ valid: FATTR_SIZE, size: 3 });
    expect(view.fs.setattr(CALLER, big, set, newAttributes())).toBe(0);
    expect(view.read("big")).toBe("bbb");
    expect(
      view.fs.setattr(CALLER, big, change({ valid: FATTR_SIZE, size: 5 }), newAttributes()),
    ).toBe(0);
    expect(view.read("big")).toBe("bbb\0\0");
  });

  it("keeps holes", () => {
    view.dispose();
    view = new ViewDriver()
      .addLayer((directory) => {
        writeFileSync(join(directory, "s"), "start");
        truncateSync(join(directory, "s"), 3 << 20);
      })
      .open();
    expect(view.write("s", "x", 2 << 20)).toBe(1);
    expect((upperStat("s") as Float64Array)[STAT_BLOCKS]).toBeLessThan(64);
    expect(view.attributes(view.walk("s")).size).toBe(3 << 20);
  });

  it("does not change the times of the file or of its directory", () => {
    const set = change({ valid: FATTR_MTIME, mtimeSec: 1000, mtimeNsec: 1 });
    expect(view.fs.setattr(CALLER, view.walk("d"), set, newAttributes())).toBe(0);
    const before = view.attributes(view.walk("d/f1"));
    view.fs.setattr(
      CALLER,
      view.walk("d/f1"),
      change({ valid: FATTR_MODE, mode: 0o600 }),
      newAttributes(),
    );
    const after = view.attributes(view.walk("d/f1"));
    expect([after.mtimeSec, after.mtimeNsec]).toEqual([before.mtimeSec, before.mtimeNsec]);
    expect((upperStat("d") as Float64Array)[STAT_MTIME_SEC]).toBe(1000);
  });

  it("keeps node IDs through copy-up, forgetting and remount", () => {
    const ids = ["d/f2", "link", "empty", "d/sub/deeper"].map((path) => view.walk(path));
    expect(view.write("d/f2", "y")).toBe(1);
    expect(view.rename("link", "moved-link")).toBe(0);
    expect(view.rename("empty", "d/e")).toBe(0);
    expect(view.rename("d/sub", "s")).toBe(0);
    view.forgetAll();
    const paths = ["d/f2", "moved-link", "d/e", "s/deeper"];
    // Without root, a symlink cannot carry the record of its number.
    const numbers = () => paths.map((path, at) => (isRoot || at !== 1 ? view.walk(path) : ids[at]));
    expect(numbers()).toEqual(ids);
    view.remount();
    expect(numbers()).toEqual(ids);
  });
});

describe("names", () => {
  it("are hidden by whiteouts and come back as new objects", () => {
    expect(view.unlink("d/f5")).toBe(0);
    expect(view.walk("d/f5")).toBe(-ENOENT);
    expect(view.names("d")).not.toContain("f5");
    view.remount();
    expect(view.walk("d/f5")).toBe(-ENOENT);
    expect(view.create("d/f5")).toBeGreaterThan(2 ** 48);
    expect(view.read("d/f5")).toBe("");
    expect(view.create("d/f5")).toBe(-EEXIST);
  });

  it("are hidden by links to one whiteout, and by another when that can have no more", () => {
    expect(view.unlink("d/f1")).toBe(0);
    expect(view.write("d/f2", "copied up")).toBe(9);
    expect(view.unlink("d/f2")).toBe(0);
    expect(view.rmdir("empty")).toBe(0);
    const inode = (path: string) => (upperStat(path) as Float64Array)[STAT_INO]!;
    expect([inode("d/f2"), inode("empty")]).toEqual([inode("d/f1"), inode("d/f1")]);
    const many = join(view.path, "many");
    mkdirSync(many);
    for (let i = 0, linked = 0; linked === 0 && i < 66000; i++) {
      const name = toBytes(join(many, String(i)));
      linked = sys.linkat(-100, toBytes(join(view.upperDir, "d/f1")), -100, name, 0);
    }
    expect(view.unlink("d/f3")).toBe(0);
    expect([view.walk("d/f1"), view.walk("d/f3")]).toEqual([-ENOENT, -ENOENT]);
    view.remount();
    expect(view.unlink("d/f4")).toBe(0);
    expect(["f1", "f2", "f3", "f4"].filter((name) => view.names("d").includes(name))).toEqual([]);
    expect(readdirSync(join(view.workDir, "orphans"))).toEqual([]);
  });

  it("of a removed directory do not show through a new one", () => {
    for (const name of view.names("d/sub")) expect(view.rmdir(`d/sub/${name}`)).toBe(0);
    expect(view.rmdir("d/sub")).toBe(0);
    expect(view.create("d/sub", S_IFDIR | 0o755)).toBeGreaterThan(0);
    expect(view.names("d/sub")).toEqual([]);
    view.remount();
    expect(view.names("d/sub")).toEqual([]);
  });

  it("move with their directory, whose lower part follows", () => {
    expect(view.rename("d", "e")).toBe(0);
    expect(view.walk("d")).toBe(-ENOENT);
    expect(view.read("e/f7")).toBe("content 7");
    expect(view.create("d", S_IFDIR | 0o755)).toBeGreaterThan(0);
    expect(view.names("d")).toEqual([]);
    view.remount();
    expect(view.read("e/f7")).toBe("content 7");
    expect(view.names("d")).toEqual([]);
  });

  it("refuse what rename(2) refuses", () => {
    expect(view.rename("d", "d/sub/x")).toBe(-EINVAL);
    expect(view.rename("small", "big", 1)).toBe(-EEXIST);
    expect(view.rename("small", "none", 2)).toBe(-ENOENT);
    expect(view.rename("empty", "d")).toBe(-ENOTEMPTY);
    expect(view.rmdir("d")).toBe(-ENOTEMPTY);
  });

  it("can be devices 0:0 of the user's making, which hide nothing", () => {
    const out = newEntry();
    const made = view.fs.mknod(CALLER, 1, toBytes("w"), S_IFCHR | 0o600, 0, 0, out);
    expect(made).toBe(isRoot ? 0 : -EPERM);
    expect(view.rename("small", "d/moved", 4)).toBe(isRoot ? 0 : -EINVAL);
    if (!isRoot) return;
    view.remount();
    for (const name of ["w", "small"]) {
      expect(view.attributes(view.walk(name)).mode & S_IFMT).toBe(S_IFCHR);
      expect(view.attributes(view.walk(name)).rdev).toBe(0);
      expect(view.names("")).toContain(name);
      expect(view.fs.listxattr(view.walk(name)).toString()).toBe("");
    }
    expect(view.read("d/moved")).toBe("small");
    expect(view.unlink("small")).toBe(0);
    expect(view.unlink("w")).toBe(0);
    view.remount();
    expect(view.names("")).not.toContain("small");
    expect(view.names("")).not.toContain("w");
  });
});

describe("a file without names", () => {
  it("waits among the orphans until the last reference goes", () => {
    const node = view.create("n");
    view.write("n", "data");
    expect(view.unlink("n")).toBe(0);
    expect(view.attributes(node).nlink).toBe(0);
    expect(view.readNode(node).toString()).toBe("data");
    expect(readdirSync(join(view.workDir, "orphans"))).toEqual([String(node)]);
    view.forgetAll();
    expect(readdirSync(join(view.workDir, "orphans"))).toEqual([]);
    expect(view.fs.getattr(node, newAttributes())).toBe(-ESTALE);
  });

  it("of the image can still be read and written", () => {
    const node = view.walk("small");
    expect(view.unlink("small")).toBe(0);
    expect(view.readNode(node).toString()).toBe("small");
    expect(view.attributes(node).nlink).toBe(0);
    expect(view.fs.write(node, 0, 0, Buffer.from("S"), 0)).toBe(1);
    expect(view.readNode(node).toString()).toBe("Small");
    view.forgetAll();
    expect(readdirSync(join(view.workDir, "orphans"))).toEqual([]);
    expect(view.walk("small")).toBe(-ENOENT);
  });

  it("is swept at the next start when the process died", () => {
    view.create("n");
    view.unlink("n");
    writeFileSync(join(view.workDir, "tmp/left"), "x");
    mkdirSync(join(view.workDir, "orphans/dir"));
    writeFileSync(join(view.workDir, "orphans/dir/w"), "x");
    // A second file system on the same directories: the first one never ends in order.
    const dead = view.fs;
    view.open();
    expect(readdirSync(join(view.workDir, "orphans"))).toEqual([]);
    expect(readdirSync(join(view.workDir, "tmp"))).toEqual([]);
    dead.destroy();
  });

  it("gets a name by LINK when it was made without one", () => {
    const out = newEntry();
    const open = { handle: 9, openFlags: 9, backingId: 9 };
    expect(view.fs.tmpfile(CALLER, 1, S_IFREG | 0o640, 0, 0, out, open)).toBe(0);
    expect([open.handle, out.attributes.nlink]).toEqual([0, 0]);
    const node = view.hold(out.node);
    expect(view.fs.link(node, 1, toBytes("named"), out)).toBe(0);
    view.hold(node);
    expect(out.attributes.nlink).toBe(1);
    view.forgetAll();
    expect(view.walk("named")).toBe(node);
    expect(view.attributes(node).nlink).toBe(1);
  });
});

describe("READDIR", () => {
  it("continues at a cookie whatever came and went", () => {
    for (let i = 0; i < 30; i++) view.create(`d/n${i}`);
    const node = view.walk("d");
    const all = view.list(node);
    for (let i = 0; i < 20; i += 2) view.unlink(`d/f${i}`);
    for (let i = 0; i < 30; i += 3) view.unlink(`d/n${i}`);
    view.create("d/late");
    for (const [at, { cookie }] of all.entries()) {
      const sink = new ListingSink();
      view.fs.readdir(node, 0, cookie, false, sink);
      const gone = /^(f[02468]|f1[02468]|n(0|3|6|9|12|15|18|21|24|27))$/;
      const rest = all.slice(at + 1).filter(({ name }) => !gone.test(name));
      // What came is where its name puts it, before the cookie or behind it.
      const listed = sink.entries.map(({ name }) => name).filter((name) => name !== "late");
      expect(listed).toEqual(rest.map(({ name }) => name));
    }
  });

  it("gives the same entries in any portion, with and without lookups", () => {
    for (let i = 0; i < 10; i++) view.create(`d/n${i}`);
    view.write("d/f1", "z");
    const node = view.walk("d");
    const all = view.list(node);
    for (const portion of [1, 2, 3, 7]) {
      expect(view.list(node, portion)).toEqual(all);
      expect(view.list(node, portion, true)).toEqual(all);
    }
    view.remount();
    expect(view.list(view.walk("d"))).toEqual(all);
  });

  it("keeps a name's cookie while thousands of others come and go", () => {
    const node = view.walk("empty");
    view.create("empty/stays");
    const stays = () => view.list(node).find(({ name }) => name === "stays");
    const before = stays();
    for (let i = 0; i < 3000; i++) {
      view.create(`empty/x${i}`);
      if (i % 500 === 0) expect(stays()).toEqual(before);
      view.unlink(`empty/x${i}`);
    }
    expect(view.names("empty")).toEqual(["stays"]);
  });
});

describe("extended attributes", () => {
  it("of the overlay itself are not there for users", () => {
    const { varve } = overlayAttributes(isRoot);
    const small = view.walk("small");
    view.write("small", "x");
    expect(view.fs.getxattr(small, varve)).toBe(-ENODATA);
    expect(view.fs.removexattr(CALLER, small, varve)).toBe(-ENODATA);
    expect(view.fs.listxattr(small).toString()).not.toContain("overlay");
    const foreign = toBytes("user.fuseoverlayfs.opaque");
    expect(view.fs.setxattr(CALLER, small, foreign, Buffer.from("y"), 0, false)).toBe(-EOPNOTSUPP);
  });

  it("of an overlay inside the view are kept for it, and mean nothing to the view", () => {
    const { opaque, prefix, redirect } = overlayAttributes(isRoot);
    const before = view.names("d");
    const directory = view.walk("d");
    const set = (name: ByteString, value: string) =>
      view.fs.setxattr(CALLER, directory, name, Buffer.from(value), 0, false);
    expect([set(opaque, "y"), set(redirect, "/elsewhere")]).toEqual([0, 0]);
    view.forgetAll();
    view.remount();
    expect(view.names("d")).toEqual(before);
    const again = view.walk("d");
    expect(view.fs.getxattr(again, opaque)?.toString()).toBe("y");
    const names = view.fs.listxattr(again).toString().split("\0").sort();
    expect(names).toEqual(["", opaque, redirect]);
    expect(view.fs.removexattr(CALLER, again, opaque)).toBe(0);
    expect(view.fs.getxattr(again, opaque)).toBe(-ENODATA);
    const below = toBytes(`${prefix}overlay.opaque`);
    expect(view.fs.setxattr(CALLER, again, below, Buffer.from("deeper"), 0, false)).toBe(0);
    expect(view.fs.listxattr(again).toString()).toContain(below);
  });

  it("copy nothing up when they change nothing", () => {
    const small = view.walk("small");
    const name = toBytes("user.none");
    expect(view.fs.removexattr(CALLER, small, name)).toBe(-ENODATA);
    expect(view.fs.setxattr(CALLER, small, name, Buffer.from("y"), 2, false)).toBe(-ENODATA);
    expect(view.fs.getxattr(small, name)).toBe(-ENODATA);
    expect(readdirSync(view.upperDir)).toEqual([]);
    expect(view.fs.setxattr(CALLER, small, name, Buffer.from("y"), 1, false)).toBe(0);
    expect(view.fs.setxattr(CALLER, small, name, Buffer.from("y"), 1, false)).toBe(-EEXIST);
    expect(view.fs.listxattr(small).toString()).toBe("user.none\0");
  });
});

describe("an image without layers", () => {
  it("is an empty root that takes files", () => {
    view.dispose();
    view = new ViewDriver().open();
    expect(view.names("")).toEqual([]);
    expect(view.create("a")).toBeGreaterThan(0);
    expect(view.names("")).toEqual(["a"]);
    expect(view.attributes(1).mode & S_IFMT).toBe(S_IFDIR);
  });
});
