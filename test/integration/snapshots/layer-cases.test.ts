/**
 * Layers of every odd kind, unpacked as an image's: what our index and the kernel's overlayfs show of
 * them must be what umoci makes when it applies the same archives one after the other to one tree.
 */

import { execFileSync } from "node:child_process";
import { existsSync, linkSync, lstatSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Digest, digestOf } from "../../../src/content/digest.js";
import { openIndex } from "../../../src/layers/index-reader.js";
import type { LayerLimits } from "../../../src/layers/limits.js";
import type { LayerTasks } from "../../../src/snapshots/layer-tasks.js";
import type { SnapshotStore } from "../../../src/snapshots/snapshot-store.js";
import { type LayerToUnpack, Unpacker } from "../../../src/snapshots/unpacker.js";
import { compareTrees, readTree, type Tree } from "../../tools/tree.js";
import { KEPT_BY_UMOCI, umociTree } from "../../tools/umoci.js";
import {
  archive,
  bytes,
  directory,
  extended,
  file,
  hardlink,
  object,
  rawHeader,
  record,
  symlink,
} from "../../unit/layers/tar-fixture.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { Workbench } from "../layers/kernel-overlay.js";
import type { LayerArchives } from "./layer-archives.js";
import { openUnpacking, type Unpacking } from "./unpacking.js";

let bench: Workbench;
let unpacking: Unpacking;
let root: string;
let tasks: LayerTasks;
let archives: LayerArchives;
let snapshots: SnapshotStore;
let unpacker: Unpacker;

beforeEach(async () => {
  bench = new Workbench();
  unpacking = await openUnpacking("cases", 2);
  ({ root, tasks, archives, snapshots, unpacker } = unpacking);
});

afterEach(async () => {
  bench.dispose();
  await unpacking.close();
});

const layerOf = (tar: Buffer): LayerToUnpack => archives.store(gzipSync(tar), digestOf(tar));

async function mount(...tars: Buffer[]) {
  const chainId = await unpacker.unpack(tars.map(layerOf));
  const layerDirs = snapshots.layerDirs(chainId);
  return { chainId, layerDirs, mounted: bench.mount(layerDirs) };
}

interface Shown {
  readonly tree: Tree;
  readonly mounted: string;
}

/** Unpacks the archives; what overlayfs shows of them, which must be what the index says. */
async function unpack(...tars: Buffer[]): Promise<Shown> {
  const { chainId, layerDirs, mounted } = await mount(...tars);
  const options = { contents: true };
  const index = openIndex((await snapshots.readyIndex(chainId))!);
  expect(describeIndex(index, layerDirs, options)).toEqual(describeDisk(mounted, options));
  return { tree: readTree(mounted), mounted };
}

/** The same by umoci. */
const umoci = (...tars: Buffer[]): Tree => umociTree(tars, path.join(bench.path, "umoci"));

const CAPABILITY = {
  name: bytes("security.capability"),
  value: Buffer.from("0100000200200000000000000000000000000000", "hex"),
};
const opaque = (name: string) => file(`${name}/.wh..wh..opq`);
const whiteout = (name: string) => {
  const { dir, base } = path.parse(name);
  return file(path.join(dir, `.wh.${base}`));
};
// umoci ignores the headers of hard links, as long as they repeat those of their files we agree.
const OWNED = { uid: 5, mode: 0o755 };
const BASE = archive(
  directory("./"),
  directory("usr"),
  directory("usr/lib", { mode: 0o750, uid: 7, gid: 8 }),
  file("usr/lib/a", "lower a", OWNED),
  symlink("lib", "usr/lib"),
  directory("d"),
  file("d/one", "1"),
  file("d/two", "2"),
  directory("d/sub"),
  file("d/sub/deep", "deep"),
  file("f", "file"),
  symlink("link", "f"),
  // Out of the image's tree, where the store's own files lie, if anybody followed it there.
  symlink("out", "../../../../usr"),
  symlink("far", "/d/sub"),
);

const AGREED: readonly [string, ...Buffer[][]][] = [
  ["a hard link to a file of a lower layer", [hardlink("b", "usr/lib/a", OWNED)]],
  [
    "several hard links to one lower file, and links to these",
    [hardlink("b", "f"), hardlink("c", "b"), hardlink("new/e", "f")],
  ],
  ["a hard link to a lower file through a lower symlink", [hardlink("b", "lib/a", OWNED)]],
  ["a hard link to a lower symlink", [hardlink("link2", "link", { mode: 0o777 })]],
  [
    "a hard link to a lower file that this layer then replaces",
    [hardlink("b", "f"), file("f", "new")],
  ],
  ["a hard link to a lower file that is replaced itself", [hardlink("b", "f"), file("b", "own")]],
  [
    "a hard link to a lower file whose directory is replaced",
    [directory("x"), hardlink("x/b", "f"), file("x", "file")],
  ],
  ["a hard link two layers up", [file("other", "o")], [hardlink("b", "usr/lib/a", OWNED)]],
  ["a file below a lower symlink to a directory", [file("lib/new", "n"), file("lib/deep/er", "d")]],
  [
    "thin layers between which one needs to know what lies below",
    [file("d/x", "x"), whiteout("d/one")],
    [file("lib/new", "n"), hardlink("b", "d/x"), hardlink("c", "usr/lib/a", OWNED)],
    [file("usr/lib/newer", "n"), whiteout("d/two")],
    [directory("d"), file("d/two", "again"), whiteout("b")],
  ],
  ["a whiteout below a lower symlink to a directory", [whiteout("lib/a")]],
  ["a directory over a lower symlink, by name", [directory("lib"), file("lib/x", "x")]],
  ["a lower symlink replaced by a directory", [directory("link"), file("link/in", "in")]],
  [
    "a lower symlink replaced by a directory and, a layer later, by a symlink",
    [directory("link"), file("link/in", "in")],
    [symlink("link", "d")],
  ],
  ["files below lower symlinks that lead out", [file("out/x", "x"), file("far/y", "y")]],
  ["a lower directory replaced by a file", [file("d", "now a file")]],
  [
    "a lower directory replaced by a file and, a layer later, by a directory",
    [file("d")],
    [directory("d")],
  ],
  ["a lower file replaced by a directory", [directory("f"), file("f/in", "in")]],
  [
    "a directory over a file over a lower directory",
    [file("d"), directory("d"), file("d/new", "n")],
  ],
  ["a whiteout and the same name again", [whiteout("d"), directory("d"), file("d/three", "3")]],
  ["an opaque directory, marker first", [directory("d"), opaque("d"), file("d/n", "n")]],
  ["whiteouts of names that are not there", [whiteout("nothing"), whiteout("d/sub/nothing")]],
  [
    "an owner above 2^21 and a time after 2038",
    [file("late", "x", { uid: 3e6, mtimeSec: 2 ** 33 })],
  ],
  ["whiteouts of files and directories", [whiteout("f"), whiteout("d/one"), whiteout("d/sub")]],
  ["a link over a directory and back", [symlink("d", "usr")], [directory("d"), file("d/n", "n")]],
  [
    "the same entry twice",
    [file("t", "first"), file("t", "second"), file("f", "x"), file("f", "y")],
  ],
  ["an empty layer", []],
  [
    "names with newlines, spaces, quotes and bytes that are no UTF-8",
    [file("new\nline"), file(" sp ace "), file("q'\""), file("\xff\xfe"), file("u\xc3\xa9")],
  ],
  ["a name of 255 bytes", [file("n".repeat(255), "long")]],
  [
    "odd spellings of paths",
    [file(".//x"), file("/abs//y"), directory("./dir/./"), file("dir//z")],
  ],
];

describe("umoci agrees on", () => {
  it.each(AGREED)("%s", async (_, ...layers) => {
    const tars = [BASE, ...layers.map((parts) => archive(...parts))];
    const { mounted } = await unpack(...tars);
    expect(compareTrees(readTree(mounted, KEPT_BY_UMOCI), umoci(...tars))).toEqual([]);
  });
});

describe("hard links to lower files", () => {
  it("keep attributes and capabilities that the link does not repeat", async () => {
    const base = archive(file("ping", "x", { uid: 3, mode: 0o755, xattrs: [CAPABILITY] }));
    const { tree } = await unpack(base, archive(hardlink("p", "ping", { uid: 4, mode: 0o711 })));
    expect(tree.get("ping")).toMatchObject({ owner: "4:0", mode: "711", linkGroup: "p" });
    expect(tree.get("ping")?.xattrs).toContain("security.capability");
  });

  it("leave directories their times", async () => {
    const time = { mtimeSec: 1_234_567_890, mtimeNsec: 5 };
    const base = archive(directory("./", time), directory("d", time), file("d/f", "x"));
    const { tree } = await unpack(base, archive(directory("n", time), hardlink("n/l", "d/f")));
    for (const name of ["d", "n"]) expect(tree.get(name)?.mtime).toBe("1234567890000000005");
  });

  it("keep holes and every byte of a large file", async () => {
    const big = Buffer.alloc(3_000_001, "ab");
    const { mounted } = await unpack(archive(file("big", big)), archive(hardlink("l", "big")));
    expect(readFileSync(path.join(mounted, "l")).equals(big)).toBe(true);
    expect(lstatSync(path.join(mounted, "big")).nlink).toBe(2);
  });
});

describe("where umoci does otherwise, we follow the specification:", () => {
  it("an opaque marker keeps what its own layer brought, before or after it", async () => {
    const layer = archive(file("d/before", "b"), opaque("d"), file("d/after", "a"));
    const { tree } = await unpack(BASE, layer);
    const names = [...tree.keys()].filter((name) => name.startsWith("d/"));
    expect(names).toEqual(["d/after", "d/before"]);
  });

  it("a whiteout hides lower layers only, before or after its own layer's file", async () => {
    const layer = archive(whiteout("f"), file("f", "new"), file("d/one", "new"), whiteout("d/one"));
    const { mounted } = await unpack(BASE, layer);
    expect(readFileSync(path.join(mounted, "f"), "utf8")).toBe("new");
    expect(readFileSync(path.join(mounted, "d/one"), "utf8")).toBe("new");
  });

  it("directories that no entry names keep owner, mode and time of the lower ones", async () => {
    const { tree } = await unpack(BASE, archive(file("usr/lib/new", "n")));
    expect(tree.get("usr/lib")).toMatchObject({
      mode: "750",
      owner: "7:8",
      mtime: "1600000000000000000",
    });
  });

  it("an entry below a lower file has a directory in that one's place", async () => {
    const { tree, mounted } = await unpack(BASE, archive(file("f/in", "in")));
    expect(tree.get("f")).toMatchObject({ type: "directory", mode: "755", owner: "0:0" });
    expect(readFileSync(path.join(mounted, "f/in"), "utf8")).toBe("in");
  });

  it("attributes of an overlay in a layer do nothing", async () => {
    const value = (text: string) => Buffer.from(text);
    const xattrs = [
      { name: bytes("trusted.overlay.opaque"), value: value("y") },
      { name: bytes("trusted.overlay.redirect"), value: value("/usr") },
      { name: bytes("user.overlay.opaque"), value: value("y") },
      { name: bytes("trusted.overlay.metacopy"), value: value("") },
      { name: bytes("trusted.overlay.whiteout"), value: value("") },
    ];
    const layer = archive(directory("d", { xattrs }), file("d/one", "own", { xattrs }));
    const { tree, mounted } = await unpack(BASE, layer);
    expect(tree.has("d/two")).toBe(true);
    for (const name of ["d", "d/one"]) expect(tree.get(name)?.xattrs).toBe("");
    expect(readFileSync(path.join(mounted, "d/one"), "utf8")).toBe("own");
  });
});

it("a layer of no bytes at all is an empty one", async () => {
  const { tree } = await unpack(BASE, Buffer.alloc(0));
  expect(tree).toEqual((await unpack(BASE)).tree);
});

describe("the same layer", () => {
  it("may stand in a chain twice", async () => {
    const layer = archive(file("x", "x"), whiteout("f"));
    const { tree } = await unpack(BASE, layer, archive(file("f", "again")), layer);
    expect(tree.has("f")).toBe(false);
    expect(tree.has("x")).toBe(true);
  });
});

describe("sparse files", () => {
  const formats = [
    "--format=gnu",
    "--sparse-version=0.0",
    "--sparse-version=0.1",
    "--sparse-version=1.0",
  ];
  it.each(formats)("by GNU tar's %s keep size, data and holes", async (format) => {
    const source = bench.directory("sparse");
    const name = path.join(source, "file");
    // 10 GB with data at the start, in the middle and before the end.
    execFileSync("bash", [
      "-euc",
      `truncate -s 10G "$0"
       for at in 0 5000000000 9999999000; do printf data | dd of="$0" bs=1 seek=$at conv=notrunc status=none; done`,
      name,
    ]);
    linkSync(name, path.join(source, "hard"));
    const sparse = format.startsWith("--format") ? [format] : ["--format=posix", format];
    const tar = execFileSync("tar", [...sparse, "-S", "-C", source, "-cf", "-", "."]);
    const { mounted } = await mount(tar);
    const copy = path.join(mounted, "file");
    const { size, blocks, nlink } = lstatSync(copy);
    expect([size, nlink]).toEqual([10 * 1024 ** 3, 2]);
    expect(blocks).toBeLessThan(1000);
    const at = (offset: number) =>
      execFileSync("dd", [`if=${copy}`, "bs=1", `skip=${offset}`, "count=4", "status=none"], {
        encoding: "utf8",
      });
    for (const offset of [0, 5_000_000_000, 9_999_999_000]) expect(at(offset)).toBe("data");
  });
});

const REFUSED: readonly [string, readonly (Buffer | string)[]][] = [
  ["leads out", [file("a/../../x"), '"a/../../x"']],
  ["hard link out", [hardlink("b", "../x"), '"../x"']],
  [
    "hard link to a name that comes later",
    [hardlink("b", "z"), file("z"), '"b"', '"z"', "neither"],
  ],
  ["hard link to nothing", [hardlink("b", "missing"), '"b"', '"missing"']],
  ["hard link to itself", [hardlink("f", "f"), '"f"']],
  ["hard link to what this layer has whited out", [whiteout("f"), hardlink("b", "f"), '"f"']],
  ["hard link into what this layer has hidden", [opaque("d"), hardlink("b", "d/sub/deep"), '"b"']],
  ["hard link to a lower directory", [hardlink("b", "d"), "directory"]],
  ["entry below a file", [file("x"), file("x/y"), '"x" is no directory']],
  ["component too long", [file("n".repeat(256)), "longer than 255 bytes"]],
  ["path too long", [file(`${"d/".repeat(2100)}f`), "longer than 4095 bytes"]],
  ["whiteout of no file", [file("d/.wh."), '"d/.wh."']],
  ["whiteout in the guise of a device", [object("x", "character"), "0:0"]],
  ["owner of -1", [extended("x", record("uid", "4294967295")), rawHeader({}), "uid 4294967295"]],
  ["owner of 2^32", [extended("x", record("gid", "4294967296")), rawHeader({}), "gid 4294967296"]],
  [
    "device number out of range",
    [extended("x", record("SCHILY.devmajor", "4096")), rawHeader({ type: "3" }), "4096:0"],
  ],
  ["type of no file", [rawHeader({ type: "M" }), 'type "M"']],
  ["a name of nothing", [file(""), "root"]],
  ["a size below zero", [rawHeader({ name: "x", size: Buffer.alloc(12, 0xff) }), "negative size"]],
  [
    "a size that is larger than the archive",
    [rawHeader({ name: "x", size: "77777777777\0" }), '"x"'],
  ],
  [
    "a size that no number holds",
    [extended("x", record("size", "9".repeat(20))), rawHeader({}), "size"],
  ],
];

describe("refused whole, by name of layer, entry and rule, with the store as before:", () => {
  it.each(REFUSED)("%s", async (_, parts) => {
    const base = await unpacker.unpack([layerOf(BASE)]);
    const before = readdirSync(path.join(root, "snapshots")).sort();
    const tar = archive(...parts.filter((part) => typeof part !== "string"));
    const bad = layerOf(tar);
    const error = await unpacker.unpack([layerOf(BASE), bad]).then(
      () => undefined,
      (reason: unknown) => reason as Error & { code: string },
    );
    expect(["CORRUPT_DATA", "UNSUPPORTED"]).toContain(error?.code);
    expect(error?.message).toContain(bad.descriptor.digest);
    expect(error?.message).toMatch(/entry/);
    for (const part of parts) if (typeof part === "string") expect(error?.message).toContain(part);
    expect(readdirSync(path.join(root, "snapshots")).sort()).toEqual(before);
    expect(snapshots.list().map((row) => row.name)).toEqual([base]);
    expect(existsSync(path.join(root, "x"))).toBe(false);
  });

  it("a diff ID that is wrong in its last digit", async () => {
    const tar = archive(file("f", "x"));
    const diffId = digestOf(tar);
    const last = diffId.endsWith("0") ? "1" : "0";
    const wrong = (diffId.slice(0, -1) + last) as Digest;
    const layer = archives.store(gzipSync(tar), wrong);
    await expect(unpacker.unpack([layer])).rejects.toMatchObject({
      code: "CORRUPT_DATA",
      message: expect.stringContaining(`${layer.descriptor.digest}: diff ID is ${diffId}`),
    });
    expect(readdirSync(path.join(root, "snapshots"))).toEqual([]);
  });
});

it("decompression bombs are stopped by the configured limits", async () => {
  const tar = archive(file("zeros", Buffer.alloc(4 << 20)));
  const bomb = layerOf(tar);
  const bounded = (limits: Partial<LayerLimits>) =>
    new Unpacker({ snapshots, blobs: archives, tasks, privileged: true, limits }).unpack([bomb]);
  for (const limits of [{ tarBytes: 1 << 20 }, { ratio: 100, ratioFreeBytes: 1 << 20 }]) {
    await expect(bounded(limits)).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: expect.stringContaining(bomb.descriptor.digest),
    });
    expect(readdirSync(path.join(root, "snapshots"))).toEqual([]);
  }
});

it("a blob that was made here is unpacked whatever its ratio", async () => {
  const tar = archive(file("zeros", Buffer.alloc(4 << 20)));
  const limits = { ratio: 100, ratioFreeBytes: 1 << 20 };
  const bounded = new Unpacker({ snapshots, blobs: archives, tasks, privileged: true, limits });
  await bounded.unpack([{ ...layerOf(tar), isKnown: () => true }]);
  expect(snapshots.list()).toHaveLength(1);
});

describe("a media type that lies", () => {
  const tar = archive(file("f", "told otherwise"));
  const type = (suffix: string) => `application/vnd.oci.image.layer.v1.tar${suffix}`;
  it.each([
    ["gzip under the plain type", type(""), gzipSync(tar)],
    ["plain under the gzip type", type("+gzip"), tar],
    ["plain under the zstd type", type("+zstd"), tar],
    ["gzip under the zstd type", type("+zstd"), gzipSync(tar)],
  ])("is overruled by the first bytes: %s", async (_, mediaType, blob) => {
    const layer = archives.store(blob, digestOf(tar));
    const descriptor = { ...layer.descriptor, mediaType };
    const chainId = await unpacker.unpack([{ ...layer, descriptor }]);
    const [directory] = snapshots.layerDirs(chainId);
    expect(readFileSync(path.join(directory!, "f"), "utf8")).toBe("told otherwise");
  });
});
