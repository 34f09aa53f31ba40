import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LayerTreeWriter, type WrittenTree } from "../../../src/layers/layer-tree-writer.js";
import type { TarEntry } from "../../../src/layers/tar-entry.js";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, toBytes } from "../../../src/system/bytes.js";
import { AT_FDCWD } from "../../../src/system/constants.js";
import { bytes, entryOf, thrownBy } from "./tar-fixture.js";

let scratch: string;
let root: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-tree-"));
  root = join(scratch, "fs");
  mkdirSync(root);
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const uid = process.geteuid?.() ?? 0;
const gid = process.getegid?.() ?? 0;

type Step = (writer: LayerTreeWriter) => void;
type More = Omit<Partial<TarEntry>, "path">;

const make =
  (path: string, type: TarEntry["type"], more: More = {}): Step =>
  (writer) =>
    writer.add(entryOf({ uid, gid, ...more, path, type }));
const file =
  (path: string, content = "", more: More = {}): Step =>
  (writer) => {
    writer.add(entryOf({ uid, gid, ...more, path, size: content.length }));
    if (content !== "") writer.write(Buffer.from(content));
  };
const dir = (path: string, mode = 0o755, more: More = {}): Step =>
  make(path, "directory", { mode, ...more });
const symlink = (path: string, target: string): Step =>
  make(path, "symlink", { linkTarget: bytes(target), mode: 0o777 });
const hardlink = (path: string, target: string, more: More = {}): Step =>
  make(path, "hardlink", { linkTarget: bytes(target), ...more });
const whiteout =
  (path: string): Step =>
  (writer) =>
    writer.whiteout(bytes(path));
const opaque =
  (path: string): Step =>
  (writer) =>
    writer.opaque(bytes(path));

function write(...steps: Step[]): WrittenTree {
  const writer = new LayerTreeWriter({ directory: root, privileged: false, subject: "layer test" });
  try {
    for (const step of steps) step(writer);
    return writer.finish();
  } finally {
    writer.abort();
  }
}

const read = (path: string): string => readFileSync(join(root, path), "utf8");
const isWhiteout = (path: string): boolean => {
  const stat = lstatSync(join(root, path));
  return stat.isCharacterDevice() && stat.rdev === 0;
};
const xattr = (path: string, name: string): string | undefined => {
  const value = sys.getxattrat(AT_FDCWD, toBytes(join(root, path)), bytes(name));
  return typeof value === "number" ? undefined : value.toString("latin1");
};
const isOpaque = (path: string): boolean => xattr(path, "user.overlay.opaque") === "y";

describe("objects", () => {
  it("of every type are made with exact modes and times, whatever the umask", () => {
    const before = process.umask(0o077);
    try {
      const time = { mtimeSec: 1_500_000_000, mtimeNsec: 123_456_789 };
      write(
        dir("", 0o751, time),
        dir("d", 0o3777, time),
        file("d/f", "x", { mode: 0o666, ...time }),
        file("suid", "x", { mode: 0o4755, ...time }),
        file("none", "", { mode: 0, ...time }),
        (writer) => {
          symlink("link", "to")(writer);
          writer.add(
            entryOf({ uid, gid, path: "l2", type: "symlink", linkTarget: bytes("x"), ...time }),
          );
        },
        make("pipe", "fifo", { mode: 0o622, ...time }),
      );
    } finally {
      process.umask(before);
    }
    const modes = ["", "d", "d/f", "suid", "none", "pipe"].map((path) =>
      (statSync(join(root, path)).mode & 0o7777).toString(8),
    );
    expect(modes).toEqual(["751", "3777", "666", "4755", "0", "622"]);
    for (const path of ["", "d", "d/f", "suid", "none", "pipe", "l2"]) {
      const { mtimeNs } = lstatSync(join(root, path), { bigint: true });
      expect([path, mtimeNs]).toEqual([path, 1_500_000_000_123_456_789n]);
    }
    expect(readlinkSync(join(root, "link"))).toBe("to");
  });

  it("of negative time are older than 1970", () => {
    write(file("old", "", { mtimeSec: -2, mtimeNsec: 500_000_000 }));
    expect(lstatSync(join(root, "old"), { bigint: true }).mtimeNs).toBe(-1_500_000_000n);
  });

  it("have names of any bytes and of 255 of them", () => {
    write(file("caf\xe9", "1"), file("n".repeat(255), "2"));
    const names = readdirSync(root, "buffer").map((name) => name.toString("latin1"));
    expect(names.sort()).toEqual(["caf\xe9", "n".repeat(255)]);
  });

  it("carry extended attributes, but none that an overlay would obey", () => {
    const pair = (name: string) => ({ name: bytes(name), value: Buffer.from("\0\xff", "latin1") });
    const xattrs = ["user.mine", "user.overlay.opaque", "trusted.overlay.redirect"].map(pair);
    write(dir("d", 0o755, { xattrs }), file("f", "x", { xattrs, mode: 0o444 }));
    for (const path of ["d", "f"]) {
      expect(xattr(path, "user.mine")).toBe("\0\xff");
      expect(xattr(path, "user.overlay.opaque")).toBeUndefined();
      expect(xattr(path, "trusted.overlay.redirect")).toBeUndefined();
    }
  });

  it("in directories without write permission are made all the same", () => {
    write(dir("ro", 0o555), file("ro/f", "x"), dir("ro/sub", 0o500), file("ro/sub/g", "y"));
    expect(read("ro/sub/g")).toBe("y");
    expect(lstatSync(join(root, "ro")).mode & 0o7777).toBe(0o555);
  });

  it("that cannot be made without root are left out with a warning", () => {
    if (uid === 0) {
      const { warnings } = write(make("dev", "character", { rdev: 0x103, mode: 0o666 }));
      expect(warnings).toEqual([]);
      return;
    }
    const { warnings } = write(make("dev", "character", { rdev: 0x103, mode: 0o666 }));
    expect(warnings).toHaveLength(1);
    expect(lstatSync(join(root, "dev")).isFile()).toBe(true);
  });
});

describe("parents that no entry named", () => {
  it("are made and reported, parents first, and not when an entry follows", () => {
    const tree = write(file("a/b/c/f", "x"), dir("a/b", 0o700), file("z/f"));
    expect(tree.impliedDirectories).toEqual(["", "z", "a", "a/b/c"]);
    expect(statSync(join(root, "a")).mode & 0o7777).toBe(0o755);
    expect(statSync(join(root, "a/b")).mode & 0o7777).toBe(0o700);
    expect(statSync(join(root, "a")).mtimeMs).toBe(0);
  });

  it("do not include the root when the archive described it", () => {
    expect(write(dir("./", 0o711)).impliedDirectories).toEqual([]);
    expect(statSync(root).mode & 0o7777).toBe(0o711);
  });
});

describe("the spelling of paths", () => {
  it("is cleaned: leading and doubled slashes, dots, trailing slash", () => {
    write(
      file("/abs", "1"),
      file("./dot", "2"),
      file("a//b/./c", "3"),
      dir("d/"),
      file("a/../e", "4"),
    );
    expect([read("abs"), read("dot"), read("a/b/c"), read("e")]).toEqual(["1", "2", "3", "4"]);
    expect(statSync(join(root, "d")).isDirectory()).toBe(true);
  });

  it.each(["..", "../x", "a/../../x", "/../x", "./../x"])("%s leads out and is refused", (path) => {
    expect(thrownBy(() => write(file(path, "x")))).toMatchObject({
      code: "CORRUPT_DATA",
      message: `layer test: entry ${JSON.stringify(path)}: ".." leads out of the layer`,
    });
    expect(existsSync(join(scratch, "x"))).toBe(false);
  });

  it("must not have names that no directory can hold, or name the root for a file", () => {
    const error = thrownBy(() => write(file("n".repeat(256))));
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect(error.message).toContain("a name longer than 255 bytes");
    expect(thrownBy(() => write(file(".", "x"))).message).toContain("the root must be a directory");
  });
});

describe("symlinks as parents", () => {
  it("of this layer are followed inside the tree", () => {
    write(dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/f", "x"));
    expect(read("usr/lib/f")).toBe("x");
    expect(lstatSync(join(root, "lib")).isSymbolicLink()).toBe(true);
  });

  it("that point outside stay inside, as in a chroot", () => {
    const outside = join(scratch, "outside");
    mkdirSync(outside);
    write(
      symlink("up", "../../outside"),
      file("up/f", "1"),
      symlink("abs", outside),
      file("abs/g", "2"),
      symlink("self", "/"),
      file("self/h", "3"),
    );
    expect(readdirSync(outside)).toEqual([]);
    expect(read("outside/f")).toBe("1");
    expect(read(join(outside, "g"))).toBe("2");
    expect(read("h")).toBe("3");
  });

  it("that go in circles are refused", () => {
    const error = thrownBy(() => write(symlink("a", "b"), symlink("b", "a"), file("a/f")));
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect(error.message).toContain("too many symlinks");
  });

  it("are not followed as the last name: the entry replaces them", () => {
    const outside = join(scratch, "outside");
    writeFileSync(outside, "safe");
    write(symlink("f", outside), file("f", "new"), symlink("d", "/usr"), dir("d"), file("d/x"));
    expect(readFileSync(outside, "utf8")).toBe("safe");
    expect(read("f")).toBe("new");
    expect(lstatSync(join(root, "d")).isDirectory()).toBe(true);
  });

  it("a file as parent is refused", () => {
    expect(thrownBy(() => write(file("f", "x"), file("f/g", "y")))).toMatchObject({
      code: "CORRUPT_DATA",
      message: 'layer test: entry "f/g": "f" is no directory',
    });
  });
});

describe("entries of one name", () => {
  it("the last one wins, and a directory over a directory keeps its children", () => {
    write(
      file("f", "one"),
      file("f", "two"),
      dir("d", 0o700),
      file("d/keep", "k"),
      dir("d", 0o711),
      file("x", "file"),
      dir("x"),
      file("x/in", "i"),
      dir("y"),
      dir("y/sub"),
      file("y/sub/deep", "gone"),
      file("y", "file"),
      dir("z"),
      file("z/in"),
      symlink("z", "elsewhere"),
    );
    expect(read("f")).toBe("two");
    expect(read("d/keep")).toBe("k");
    expect(statSync(join(root, "d")).mode & 0o777).toBe(0o711);
    expect(read("x/in")).toBe("i");
    expect([isOpaque("x"), isOpaque("d")]).toEqual([true, false]);
    expect(read("y")).toBe("file");
    expect(readlinkSync(join(root, "z"))).toBe("elsewhere");
  });

  it("a removed directory is forgotten as a parent", () => {
    write(file("a/b/f", "1"), file("a", "file"), dir("a"), file("a/b/g", "2"));
    expect(readdirSync(join(root, "a/b"))).toEqual(["g"]);
  });
});

describe("hard links", () => {
  it("share the inode of an earlier name, through cleaned and linked paths", () => {
    write(
      file("a", "x"),
      hardlink("b", "./a"),
      hardlink("d/c", "/a"),
      dir("real"),
      symlink("alias", "real"),
      file("real/f", "y"),
      hardlink("g", "alias/f"),
      symlink("s", "nowhere"),
      hardlink("s2", "s"),
    );
    const ino = (path: string) => lstatSync(join(root, path)).ino;
    expect([ino("b"), ino("d/c")]).toEqual([ino("a"), ino("a")]);
    expect(ino("g")).toBe(ino("real/f"));
    expect(ino("s2")).toBe(ino("s"));
  });

  it("take over an existing name, and to oneself change nothing", () => {
    write(file("a", "x"), file("b", "y"), hardlink("b", "a"), hardlink("a", "a"));
    expect(read("b")).toBe("x");
    expect(statSync(join(root, "a")).nlink).toBe(2);
  });

  it("describe the inode when they differ, as the last entry of it", () => {
    write(file("a", "x", { mode: 0o644 }), hardlink("b", "a", { mode: 0o600, mtimeSec: 5 }));
    expect(statSync(join(root, "a")).mode & 0o777).toBe(0o600);
    expect(statSync(join(root, "a")).mtimeMs).toBe(5000);
  });

  it.each([
    ["nothing", [hardlink("b", "missing")], "which is not in the layer"],
    ["nothing in a missing directory", [hardlink("b", "no/such")], "which is not in the layer"],
    ["a whiteout", [whiteout("w"), hardlink("b", "w")], "which is not in the layer"],
    ["a directory", [dir("d"), hardlink("b", "d")], "hard link to the directory"],
    ["what it replaces", [file("d/e/f"), hardlink("d", "d/e/f")], "which it replaces"],
    ["the root", [hardlink("b", "/")], "which is not in the layer"],
    ["outside", [hardlink("b", "../../etc/passwd")], '".." leads out'],
  ] as [string, Step[], string][])("to %s are refused", (_, steps, reason) => {
    const error = thrownBy(() => write(...steps));
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect(error.message).toContain(reason);
  });

  it("do not make directories while they look for their target", () => {
    thrownBy(() => write(hardlink("b", "no/such")));
    expect(existsSync(join(root, "no"))).toBe(false);
  });

  it("to what only lower layers can have are reported, and stay so until they are replaced", () => {
    const writer = new LayerTreeWriter({ directory: root, privileged: false, mayLinkBelow: true });
    const below = ["bin/tool", "again", "gone", "dir/gone"];
    for (const path of below) hardlink(path, path === "again" ? "bin/tool" : "usr/tool")(writer);
    for (const step of [file("gone", "own"), file("dir", "own")]) step(writer);
    const tree = writer.finish();
    expect(tree.lowerLinks.map(({ path, target }) => [path, target])).toEqual([
      ["bin/tool", "usr/tool"],
      ["again", "usr/tool"],
    ]);
    expect(tree.impliedDirectories).toEqual(["", "bin"]);
    expect(read("gone")).toBe("own");
  });
});

describe("whiteouts", () => {
  it("are character devices 0:0", () => {
    const tree = write(whiteout("gone"), whiteout("a/b/gone"), whiteout("gone"));
    expect(isWhiteout("gone")).toBe(true);
    expect(isWhiteout("a/b/gone")).toBe(true);
    expect(tree.impliedDirectories).toEqual(["", "a", "a/b"]);
  });

  it("do not touch what this layer creates, before or after", () => {
    write(
      file("a", "x"),
      whiteout("a"),
      whiteout("b"),
      file("b", "y"),
      whiteout("c"),
      symlink("c", "t"),
    );
    expect([read("a"), read("b")]).toEqual(["x", "y"]);
    expect(readlinkSync(join(root, "c"))).toBe("t");
  });

  it("of a directory that this layer creates make it opaque, before or after", () => {
    const tree = write(
      dir("a"),
      file("a/f", "x"),
      whiteout("a"),
      whiteout("b"),
      dir("b"),
      file("b/f", "y"),
      whiteout("c"),
      file("c/f", "z"),
      dir("plain"),
    );
    expect(["a", "b", "c", "plain"].map(isOpaque)).toEqual([true, true, true, false]);
    expect([read("a/f"), read("b/f"), read("c/f")]).toEqual(["x", "y", "z"]);
    // A directory made anew has no lower one to take its attributes from.
    expect(tree.impliedDirectories).toEqual([""]);
  });

  it("in the guise of a device are refused", () => {
    const error = thrownBy(() => write(make("x", "character", { rdev: 0 })));
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect(error.message).toContain("character device 0:0 is reserved");
  });
});

it("an opaque mark keeps the siblings of this layer, wherever it stands", () => {
  const tree = write(
    dir("a"),
    file("a/before"),
    opaque("a"),
    file("a/after"),
    opaque("b"),
    opaque(""),
  );
  expect(["a", "b", ""].map(isOpaque)).toEqual([true, true, true]);
  expect(readdirSync(join(root, "a")).sort()).toEqual(["after", "before"]);
  expect(tree.impliedDirectories).toEqual(["", "b"]);
});

describe("bodies", () => {
  it("come in pieces, and sparse ones leave holes", () => {
    const sparse = [
      { offset: 1 << 20, length: 3 },
      { offset: 2 << 20, length: 4 },
    ];
    write((writer) => {
      writer.add(entryOf({ uid, gid, path: "s", size: 3 << 20, sparse }));
      for (const piece of ["a", "bcd", "efg"]) writer.write(Buffer.from(piece));
    });
    const content = readFileSync(join(root, "s"));
    expect(content.length).toBe(3 << 20);
    expect(content.toString("latin1", 1 << 20, (1 << 20) + 3)).toBe("abc");
    expect(content.toString("latin1", 2 << 20, (2 << 20) + 4)).toBe("defg");
    expect(statSync(join(root, "s")).blocks * 512).toBeLessThan(1 << 20);
  });

  it("that stop short are an error, at the next entry or at the end", () => {
    const short = file("short", "", {});
    const begin: Step = (writer) => writer.add(entryOf({ uid, gid, path: "short", size: 5 }));
    expect(thrownBy(() => write(begin, short))).toMatchObject({ code: "CORRUPT_DATA" });
    expect(thrownBy(() => write(begin)).message).toContain("its data is incomplete");
  });

  it("are copied from another file with its holes", () => {
    const source = join(scratch, "source");
    const fd = openSync(source, "w+");
    writeSync(fd, "tail", 5 << 20);
    ftruncateSync(fd, 8 << 20);
    write((writer) =>
      writer.addFile(entryOf({ uid, gid, path: "a/copy", size: 8 << 20, mode: 0o4711 }), fd),
    );
    closeSync(fd);
    const copy = statSync(join(root, "a/copy"));
    expect(copy.mode & 0o7777).toBe(0o4711);
    expect(copy.blocks * 512).toBeLessThan(1 << 20);
    execFileSync("cmp", [source, join(root, "a/copy")]);
  });

  it("shorter than promised are an error of the copy", () => {
    const source = join(scratch, "source");
    writeFileSync(source, "short");
    const fd = openSync(source, "r");
    const error = thrownBy(() =>
      write((writer) => writer.addFile(entryOf({ path: "c", size: 100 }), fd)),
    );
    closeSync(fd);
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
  });
});

it("more directories than descriptors may be open at once, and deep ones", () => {
  const steps: Step[] = [];
  for (let n = 0; n < 300; n++) steps.push(file(`d${n}/sub/f`, `${n}`));
  for (let n = 0; n < 300; n++) steps.push(file(`d${n}/sub/g`, `${n}`));
  const deep = Array.from({ length: 400 }, () => "x").join("/");
  steps.push(file(`${deep}/f`, "deep"), dir("x"), whiteout("x"));
  const before = readdirSync("/proc/self/fd").length;
  write(...steps);
  expect(readdirSync("/proc/self/fd").length).toBe(before);
  expect(read("d123/sub/g")).toBe("123");
  expect(read(`${deep}/f`)).toBe("deep");
});

it("a discarded directory is gone without a trace", () => {
  const tree = write(file("keep/f"), file("tmp/a/b", "x"), hardlink("link", "tmp/a/b"), (writer) =>
    writer.discard("tmp" as ByteString),
  );
  expect(readdirSync(root).sort()).toEqual(["keep", "link"]);
  expect(tree.impliedDirectories).toEqual(["", "keep"]);
});
