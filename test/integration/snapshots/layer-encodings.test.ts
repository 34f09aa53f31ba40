/**
 * The many ways to spell one layer: what becomes of an archive's headers must be what GNU tar makes
 * of them, and of a blob's compression what gzip and zstd do.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { digestOf } from "../../../src/content/digest.js";
import type { SnapshotStore } from "../../../src/snapshots/snapshot-store.js";
import type { Unpacker } from "../../../src/snapshots/unpacker.js";
import { compareTrees, readTree, type Tree } from "../../tools/tree.js";
import {
  archive,
  directory,
  extended,
  file,
  hardlink,
  object,
  rawHeader,
  record,
  symlink,
} from "../../unit/layers/tar-fixture.js";
import type { LayerArchives } from "./layer-archives.js";
import { openUnpacking, type Unpacking } from "./unpacking.js";

let unpacking: Unpacking;
let root: string;
let archives: LayerArchives;
let snapshots: SnapshotStore;
let unpacker: Unpacker;

beforeEach(async () => {
  unpacking = await openUnpacking("encodings", 1);
  ({ root, archives, snapshots, unpacker } = unpacking);
});

afterEach(async () => {
  await unpacking.close();
});

/** Unpacks a blob as the only layer of an image: its directory. */
async function unpack(blob: Buffer, tar: Buffer): Promise<string> {
  const chainId = await unpacker.unpack([archives.store(blob, digestOf(tar))]);
  return snapshots.layerDirs(chainId)[0]!;
}

/** What GNU tar makes of an archive. */
function gnuTar(tar: Buffer): Tree {
  const target = path.join(root, "gnu");
  mkdirSync(target, { mode: 0o755 });
  const options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", "-"];
  execFileSync("tar", ["-C", target, ...options], { input: tar, stdio: ["pipe", "pipe", "pipe"] });
  return readTree(target);
}

const ROOT = directory("./");
/** A pax header and the entry that it describes. */
const pax = (records: Readonly<Record<string, string>>, entry: Buffer, flag = "x") =>
  Buffer.concat([
    extended(
      flag,
      Object.entries(records)
        .map(([key, value]) => record(key, value))
        .join(""),
    ),
    entry,
  ]);
const base256 = (value: bigint, length: number) => {
  const field = Buffer.alloc(length);
  for (let at = length - 1, rest = value; at >= 0; at--, rest >>= 8n)
    field[at] = Number(rest & 255n);
  field[0]! |= 0x80;
  return field;
};
const LONG = `${"directory-of-a-long-name/".repeat(9)}${"n".repeat(200)}`;
const time = (mtimeSec: number, mtimeNsec = 0) => ({ mtimeSec, mtimeNsec });

const SPELLINGS: readonly [string, Buffer[]][] = [
  [
    "pax paths and link targets",
    [
      pax({ path: LONG }, file("short", "x")),
      pax({ linkpath: LONG, mtime: "1600000000" }, rawHeader({ name: "hard", type: "1" })),
      pax({ linkpath: "t".repeat(300) }, rawHeader({ name: "soft", type: "2" })),
    ],
  ],
  [
    "pax sizes, owners and names that are no UTF-8",
    [
      pax(
        { size: "5" },
        Buffer.concat([rawHeader({ name: "sized" }), Buffer.from("12345".padEnd(512, "\0"))]),
      ),
      pax({ uid: "3000000", gid: "4294967293" }, file("owned")),
      file("\xff\xfe\x80"),
    ],
  ],
  [
    "pax times: before 1970, after 2038, with nanoseconds",
    [
      pax({ mtime: "-12345.678901234" }, file("past")),
      pax({ mtime: "4294967297.000000001" }, file("future")),
      pax({ mtime: "1.5" }, directory("d")),
      file("d/child", "times of directories are kept"),
    ],
  ],
  [
    "attributes in Schily's spelling, binary ones and capabilities",
    [
      pax(
        {
          "SCHILY.xattr.user.text": "value",
          "SCHILY.xattr.user.binary": "\0\x01\xff\n=",
          "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        },
        file("program", "x", { mode: 0o755 }),
      ),
    ],
  ],
  [
    "a global header, which a local one overrides",
    [
      pax({ uid: "77", mtime: "1000000000" }, Buffer.alloc(0), "g"),
      file("first"),
      pax({ uid: "78" }, file("second")),
      file("third"),
    ],
  ],
  [
    "GNU long names and links",
    [
      extended("L", `${LONG}\0`),
      rawHeader({ name: "cut", magic: "ustar  \0" }),
      extended("K", `${LONG}\0`),
      rawHeader({ name: "soft", type: "2", magic: "ustar  \0" }),
    ],
  ],
  [
    "base-256 numbers",
    [
      rawHeader({ name: "owned", uid: base256(3_000_000n, 8), gid: base256(2n ** 31n, 8) }),
      rawHeader({ name: "timed", mtime: base256(2n ** 33n, 12), magic: "ustar  \0" }),
      rawHeader({ name: "old", mtime: Buffer.alloc(12, 0xff), magic: "ustar  \0" }),
    ],
  ],
  [
    "devices, fifos, set-id and sticky modes",
    [
      object("null", "character", { rdev: 0x103, mode: 0o666 }),
      object("disk", "block", { rdev: 0x801, mode: 0o660, gid: 6 }),
      object("pipe", "fifo", { mode: 0o4711 }),
      directory("tmp", { mode: 0o1777 }),
      directory("shared", { mode: 0o2775, gid: 50 }),
      file("su", "x", { mode: 0o4755, uid: 9 }),
    ],
  ],
  [
    "directories' times after their children",
    [
      directory("a", time(1_000_000_000, 7)),
      directory("a/b", time(1_100_000_000)),
      file("a/b/c", "x", time(1_200_000_000)),
      symlink("a/l", "b"),
      hardlink("a/h", "a/b/c", time(1_200_000_000)),
    ],
  ],
  [
    "old headers: v7, no magic, times of zero",
    [
      rawHeader({ name: "v7", magic: Buffer.alloc(8) }),
      rawHeader({
        name: "v7-directory/",
        magic: Buffer.alloc(8),
        type: Buffer.from([0]),
        mode: "0000755\0",
      }),
    ],
  ],
  [
    "empty files, and bodies of a block and one byte more",
    [file("e"), file("b", "x".repeat(512)), file("c", "x".repeat(513)), file("d", "x".repeat(511))],
  ],
];

describe("GNU tar agrees on", () => {
  it.each(SPELLINGS)("%s", async (_, parts) => {
    const tar = archive(ROOT, ...parts);
    const ours = readTree(await unpack(gzipSync(tar), tar));
    const theirs = new Map(gnuTar(tar));
    // Parents that no entry names get the time of their making from tar, and 0 from us.
    const named = ([name, entry]: [
      string,
      Tree extends ReadonlyMap<string, infer E> ? E : never,
    ]) => entry.type !== "directory" || !LONG.startsWith(name) || name === "";
    expect(
      compareTrees(new Map([...ours].filter(named)), new Map([...theirs].filter(named))),
    ).toEqual([]);
  });

  it("an archive without its end blocks", async () => {
    const tar = Buffer.concat([ROOT, file("f", "whole")]);
    expect(compareTrees(readTree(await unpack(gzipSync(tar), tar)), gnuTar(tar))).toEqual([]);
  });
});

it("libarchive's attributes are taken, as bsdtar writes them", async () => {
  const records = {
    "LIBARCHIVE.xattr.user.name%20with%3Dsigns": Buffer.from("\0value").toString("base64"),
  };
  const tar = archive(ROOT, pax(records, file("f")));
  const tree = readTree(await unpack(gzipSync(tar), tar));
  expect(tree.get("f")?.xattrs).toBe("user.name with\\075signs=0x0076616c7565");
  const target = path.join(root, "bsdtar");
  mkdirSync(target, { mode: 0o755 });
  execFileSync("bsdtar", ["-C", target, "--numeric-owner", "--xattrs", "-xpf", "-"], {
    input: tar,
  });
  expect(readTree(target).get("f")).toEqual(tree.get("f"));
});

describe("compression:", () => {
  const tar = archive(ROOT, file("f", "x".repeat(100_000)), file("g", "y"));
  const middle = 51_200;
  const zstd = (data: Buffer) => execFileSync("zstd", ["-q", "-c"], { input: data });
  const skippable = Buffer.from("502a4d1803000000aabbcc", "hex");
  const GOOD: readonly [string, Buffer][] = [
    ["gzip in one member", gzipSync(tar)],
    [
      "gzip in several members, an empty one too",
      Buffer.concat([
        gzipSync(tar.subarray(0, middle)),
        gzipSync(Buffer.alloc(0)),
        gzipSync(tar.subarray(middle)),
      ]),
    ],
    ["gzip with zeros behind it", Buffer.concat([gzipSync(tar), Buffer.alloc(512)])],
    ["gzip with garbage behind it", Buffer.concat([gzipSync(tar), Buffer.from("garbage")])],
    [
      "zstd in several frames with skippable ones between",
      Buffer.concat([
        skippable,
        zstd(tar.subarray(0, middle)),
        skippable,
        zstd(tar.subarray(middle)),
        skippable,
      ]),
    ],
    ["none", tar],
  ];

  it.each(GOOD)("%s", async (_, blob) => {
    const names = readdirSync(await unpack(blob, tar));
    expect(names.sort()).toEqual(["f", "g"]);
  });

  it("the program gzip reads these members too", () => {
    for (const [name, blob] of GOOD.filter(([name]) => name.startsWith("gzip"))) {
      const run = spawnSync("gzip", ["-dc"], { input: blob, maxBuffer: 1 << 24 });
      expect([name, run.stdout.equals(tar)]).toEqual([name, true]);
    }
  });

  const flipped = (blob: Buffer, at: number) => {
    const copy = Buffer.from(blob);
    copy[copy.length + at]! ^= 1;
    return copy;
  };
  const BAD: readonly [string, Buffer][] = [
    ["gzip without its last bytes", gzipSync(tar).subarray(0, -3)],
    ["gzip cut in the middle", gzipSync(tar).subarray(0, 100)],
    ["gzip with a wrong CRC", flipped(gzipSync(tar), -8)],
    ["gzip with a wrong length", flipped(gzipSync(tar), -1)],
    [
      "gzip whose second member is damaged",
      flipped(Buffer.concat([gzipSync(tar), gzipSync(tar)]), -8),
    ],
    ["zstd without its last bytes", zstd(tar).subarray(0, -3)],
    ["zstd with a wrong checksum", flipped(zstd(tar), -1)],
    ["a tar that ends within a file", gzipSync(tar.subarray(0, middle))],
    [
      "a tar with bytes more than its config knows",
      gzipSync(Buffer.concat([tar, Buffer.alloc(512)])),
    ],
  ];

  it.each(BAD)("%s is refused whole, by the layer's digest", async (_, blob) => {
    const layer = archives.store(blob, digestOf(tar));
    await expect(unpacker.unpack([layer])).rejects.toMatchObject({
      code: "CORRUPT_DATA",
      message: expect.stringContaining(layer.descriptor.digest),
    });
    expect(readdirSync(path.join(root, "snapshots"))).toEqual([]);
    expect(snapshots.list()).toEqual([]);
  });

  it("a layer's bytes are the archive's, to the last", async () => {
    const directoryOfLayer = await unpack(gzipSync(tar), tar);
    expect(readFileSync(path.join(directoryOfLayer, "f"), "utf8")).toBe("x".repeat(100_000));
  });
});
