import { linkSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { listChanges } from "../../../src/layers/changes.js";
import { LayerDiff } from "../../../src/layers/diff.js";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import type { ByteString } from "../../../src/system/bytes.js";
import {
  buildTree,
  directory,
  file,
  hardlink,
  type Node,
  opaque,
  symlink,
  whiteout,
} from "./tree-builder.js";

let root: string;
let index: FlatIndex;
let base: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "varve-changes-"));
  base = join(root, "base");
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

const BASE: Record<string, Node> = {
  "etc/passwd": file("root"),
  "etc/group": file("wheel"),
  "usr/lib/a": file("a"),
  "usr/lib/b": hardlink("usr/lib/a"),
  "usr/lib/deep/c": hardlink("usr/lib/a"),
  "usr/share/doc/x": file("x"),
  "usr/share/doc/y": file("y"),
  lib: symlink("usr/lib"),
  empty: directory(),
};

function view(upper: Record<string, Node>, lower: Record<string, Node> = BASE) {
  buildTree(base, lower);
  buildIndex({
    chainId: "c",
    fsDir: base,
    impliedDirectories: [],
    outputPath: join(root, "index"),
    privileged: false,
  });
  index = openIndex(join(root, "index"));
  buildTree(join(root, "upper"), upper);
  mkdirSync(join(root, "work/index"), { recursive: true });
  return {
    upperDir: join(root, "upper"),
    workDir: join(root, "work"),
    index,
    layerDirs: [base],
    privileged: false,
  };
}

type View = ReturnType<typeof view>;
const changes = (options: View) => listChanges(options).map(({ kind, path }) => `${kind} ${path}`);
const inode = (path: string) => index.resolve(path as ByteString);
const originOf = (path: string) => {
  const value = Buffer.alloc(8);
  value.writeBigUInt64LE(BigInt(inode(path)));
  return value;
};

/** The entries of the layer: path, and what it links to. */
function entries(options: View): string[] {
  const diff = new LayerDiff(options);
  try {
    return [...diff.entries()].map(({ entry, source }) => {
      const data = source === undefined ? "" : ` @${source.kind}`;
      return `${entry.path}${entry.type === "hardlink" ? ` = ${entry.linkTarget}` : ""}${data}`;
    });
  } finally {
    diff.close();
  }
}

describe("a change", () => {
  test("of nothing is nothing", () => {
    const options = view({});
    expect(changes(options)).toEqual([]);
    expect(entries(options)).toEqual([]);
  });

  test("that copied things up without changing them is nothing", () => {
    const options = view({
      "etc/passwd": file("root"),
      lib: symlink("usr/lib"),
      "usr/share": directory(),
    });
    expect(changes(options)).toEqual([]);
    expect(entries(options)).toEqual([]);
  });

  test("adds, changes and deletes, with the directories above", () => {
    const options = view({
      "etc/passwd": file("toor"),
      "etc/group": whiteout,
      "etc/new/file": file("n"),
      "usr/share/doc/none": whiteout,
      empty: directory({ mode: 0o700 }),
    });
    expect(changes(options)).toEqual([
      "C /empty",
      "C /etc",
      "D /etc/group",
      "A /etc/new",
      "A /etc/new/file",
      "C /etc/passwd",
    ]);
    expect(entries(options)).toEqual([
      "empty",
      "etc",
      "etc/.wh.group",
      "etc/new",
      "etc/new/file @upper",
      "etc/passwd @upper",
    ]);
  });

  test("of metadata alone counts", () => {
    const options = view({
      "etc/passwd": file("root", { mode: 0o600 }),
      "etc/group": file("wheel", { mtime: 5 }),
    });
    expect(changes(options)).toEqual(["C /etc", "C /etc/group", "C /etc/passwd"]);
  });

  test("replaces a directory by a file, and a file by a directory", () => {
    const options = view({ usr: file("no"), "etc/passwd/in": file("i") });
    expect(changes(options)).toEqual(["C /etc", "C /etc/passwd", "A /etc/passwd/in", "C /usr"]);
    expect(entries(options)).toEqual(["etc", "etc/passwd", "etc/passwd/in @upper", "usr @upper"]);
  });
});

describe("an opaque directory", () => {
  test("deletes what did not come back", () => {
    const options = view({
      "usr/share/doc": opaque,
      "usr/share/doc/x": file("x"),
      "usr/share/doc/z": file("z"),
    });
    expect(changes(options)).toEqual([
      "C /usr",
      "C /usr/share",
      "C /usr/share/doc",
      "D /usr/share/doc/y",
      "A /usr/share/doc/z",
    ]);
    expect(entries(options)).toEqual([
      "usr",
      "usr/share",
      "usr/share/doc",
      "usr/share/doc/.wh..wh..opq",
      "usr/share/doc/x @upper",
      "usr/share/doc/z @upper",
    ]);
  });

  test("over nothing or an empty directory needs no marker", () => {
    const options = view({ new: opaque, "new/f": file("f"), empty: opaque, "empty/e": file("e") });
    expect(entries(options)).toEqual(["empty", "empty/e @upper", "new", "new/f @upper"]);
  });
});

describe("a moved directory", () => {
  test("is deleted there and added here with all that shows in it", () => {
    const options = view({
      "usr/share": whiteout,
      data: directory({ xattrs: { "user.overlay.redirect": "/usr/share" } }),
      "data/doc/y": whiteout,
      "data/doc/w": file("w"),
    });
    expect(changes(options)).toEqual([
      "A /data",
      "A /data/doc",
      "A /data/doc/w",
      "A /data/doc/x",
      "C /usr",
      "D /usr/share",
    ]);
    expect(entries(options)).toEqual([
      "data",
      "data/doc",
      "data/doc/w @upper",
      "data/doc/x @lower",
      "usr",
      "usr/.wh.share",
    ]);
  });

  test("over another directory hides that one", () => {
    const options = view({
      usr: directory({ xattrs: { "user.overlay.redirect": "/etc" } }),
      etc: whiteout,
    });
    expect(entries(options)).toEqual([
      ".wh.etc",
      "usr",
      "usr/.wh..wh..opq",
      "usr/group @lower",
      "usr/passwd @lower",
    ]);
    expect(changes(options)).toEqual([
      "D /etc",
      "C /usr",
      "A /usr/group",
      "D /usr/lib",
      "A /usr/passwd",
      "D /usr/share",
    ]);
  });

  test("brings the other names of its hard-linked files along", () => {
    const options = view({
      "usr/lib/deep": whiteout,
      gone: directory({ xattrs: { "user.overlay.redirect": "/usr/lib/deep" } }),
    });
    expect(entries(options)).toEqual([
      "gone",
      "gone/c @lower",
      "usr",
      "usr/lib",
      "usr/lib/a = gone/c",
      "usr/lib/b = gone/c",
      "usr/lib/.wh.deep",
    ]);
  });
});

describe("hard links", () => {
  test("within the upper come out as links", () => {
    const options = view({ "new/a": file("n"), "new/b": hardlink("new/a") });
    expect(entries(options)).toEqual(["new", "new/a @upper", "new/b = new/a"]);
  });

  test("of a file that did not change bring it along", () => {
    const options = view({ "etc/passwd": file("root"), "etc/passwd2": hardlink("etc/passwd") });
    expect(entries(options)).toEqual(["etc", "etc/passwd @upper", "etc/passwd2 = etc/passwd"]);
  });

  test("that were copied up as they were are nothing", () => {
    const options = view({
      "usr/lib/a": file("a"),
      "usr/lib/b": hardlink("usr/lib/a"),
      "usr/lib/deep/c": hardlink("usr/lib/a"),
    });
    expect(entries(options)).toEqual([]);
    expect(changes(options)).toEqual([]);
  });

  test("stay together when one name of a lower file was copied up and changed", () => {
    const options = view({ "usr/lib/b": file("changed") });
    linkSync(join(root, "upper/usr/lib/b"), join(root, `work/index/${inode("usr/lib/a")}`));
    expect(entries(options)).toEqual([
      "usr",
      "usr/lib",
      "usr/lib/a @upper",
      "usr/lib/b = usr/lib/a",
      "usr/lib/deep",
      "usr/lib/deep/c = usr/lib/a",
    ]);
    expect(changes(options)).toEqual([
      "C /usr",
      "C /usr/lib",
      "C /usr/lib/a",
      "C /usr/lib/b",
      "C /usr/lib/deep",
      "C /usr/lib/deep/c",
    ]);
  });

  test("whose upper names are gone keep the changed content under the others", () => {
    const options = view({ "usr/lib/b": whiteout, "usr/lib/deep": whiteout });
    buildTree(join(root, "work/index"), { [String(inode("usr/lib/a"))]: file("changed") });
    expect(entries(options)).toEqual([
      "usr",
      "usr/lib",
      "usr/lib/a @work",
      "usr/lib/.wh.b",
      "usr/lib/.wh.deep",
    ]);
  });

  test("of a copied-up file follow its directories when those are moved", () => {
    const options = view({
      "usr/lib/b": file("changed"),
      "usr/lib/deep": whiteout,
      far: directory({ xattrs: { "user.overlay.redirect": "/usr/lib/deep" } }),
    });
    linkSync(join(root, "upper/usr/lib/b"), join(root, `work/index/${inode("usr/lib/a")}`));
    expect(entries(options)).toEqual([
      "far",
      "far/c @upper",
      "usr",
      "usr/lib",
      "usr/lib/a = far/c",
      "usr/lib/b = far/c",
      "usr/lib/.wh.deep",
    ]);
  });
});

describe("metacopy files", () => {
  test("take their data from the image", () => {
    const options = view({
      "etc/passwd": file("\0\0\0\0", { mode: 0o600, xattrs: { "user.overlay.metacopy": "" } }),
    });
    expect(entries(options)).toEqual(["etc", "etc/passwd @lower"]);
    buildTree(join(root, "upper"), { "etc/passwd": file("\0\0\0\0", { mode: 0o644 }) });
    expect(entries(options)).toEqual([]);
  });

  test("find it by the recorded origin", () => {
    const options = view({});
    buildTree(join(root, "upper"), {
      "etc/p": file("\0\0\0\0", {
        xattrs: { "user.overlay.metacopy": "", "user.overlay.varve": originOf("etc/passwd") },
      }),
    });
    expect(entries(options)).toEqual(["etc", "etc/p @lower"]);
  });

  test("without data anywhere are an error that names them", () => {
    const options = view({ "etc/p": file("", { xattrs: { "user.overlay.metacopy": "" } }) });
    expect(() => entries(options)).toThrowError(
      expect.objectContaining({ code: "CORRUPT_DATA", message: expect.stringContaining("etc/p") }),
    );
  });
});

test("names that mean deletions in a layer are left out with a warning", () => {
  const options = view({ "etc/.wh.passwd": file("x"), "etc/ok": file("o") });
  const diff = new LayerDiff(options);
  expect([...diff.entries()].map(({ entry }) => entry.path)).toEqual(["etc", "etc/ok"]);
  expect(diff.warnings).toEqual([expect.stringContaining("etc/.wh.passwd")]);
  diff.close();
});

test("times after the source date epoch become it", () => {
  const options = view({
    new: file("x", { mtime: 2_000_000_000 }),
    old: file("x", { mtime: 500 }),
  });
  const diff = new LayerDiff({ ...options, sourceDateEpoch: 1_500_000_000 });
  expect([...diff.entries()].map(({ entry }) => [entry.path, entry.mtimeSec])).toEqual([
    ["new", 1_500_000_000],
    ["old", 500],
  ]);
  diff.close();
});
