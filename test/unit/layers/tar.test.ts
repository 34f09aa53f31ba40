import { execFileSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../../src/layers/limits.js";
import { bodySize, encodeDevice } from "../../../src/layers/tar-entry.js";
import { TarReader } from "../../../src/layers/tar-reader.js";
import { encodeEntryHeader, padding } from "../../../src/layers/tar-writer.js";
import {
  archive,
  bytes,
  directory,
  entryOf,
  extended,
  file,
  hardlink,
  object,
  parse,
  parseOne,
  rawHeader,
  record,
  symlink,
  thrownBy,
  withChecksum,
} from "./tar-fixture.js";

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-tar-"));
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const LONG = `${"d".repeat(120)}/${"e".repeat(120)}/${"f".repeat(200)}`;

describe("reading what GNU tar writes", () => {
  function buildTree(root: string, withLongNames: boolean): void {
    mkdirSync(root);
    writeFileSync(join(root, "plain"), "hello\n", { mode: 0o640 });
    writeFileSync(join(root, "big"), Buffer.alloc(70_001, 7));
    writeFileSync(Buffer.from(`${root}/caf\xe9`, "latin1"), "latin1 name");
    symlinkSync("plain", join(root, "link"));
    linkSync(join(root, "plain"), join(root, "plain-too"));
    mkdirSync(join(root, "dir"), { mode: 0o750 });
    if (!withLongNames) return;
    execFileSync("mkfifo", [join(root, "fifo")]);
    mkdirSync(join(root, LONG.slice(0, 241)), { recursive: true });
    writeFileSync(join(root, LONG), "long");
    symlinkSync(`/${"t".repeat(300)}`, join(root, "long-link"));
  }

  for (const format of ["v7", "ustar", "oldgnu", "gnu", "pax"]) {
    it(`--format=${format}`, () => {
      const root = join(scratch, "tree");
      const withLongNames = !["v7", "ustar"].includes(format);
      buildTree(root, withLongNames);
      utimesSync(join(root, "plain"), 1, 1_234_567_890.25);
      const args = ["--sort=name", `--format=${format}`, "-C", root, "-cf", "-", "."];
      const tar = execFileSync("tar", args, { maxBuffer: 1 << 26 });
      for (const chunkSize of [tar.length, 10_000, 333]) {
        const found = new Map(parse(tar, { chunkSize }).map((item) => [item.entry.path, item]));
        const get = (name: string) => found.get(bytes(name))!;
        expect(get("./").entry.type).toBe("directory");
        expect(get("./dir/").entry).toMatchObject({ type: "directory", mode: 0o750 });
        expect(get("./plain").body.toString()).toBe("hello\n");
        expect(get("./plain").entry).toMatchObject({ type: "file", mode: 0o640, size: 6 });
        expect(get("./plain").entry.mtimeSec).toBe(1_234_567_890);
        expect(get("./plain").entry.mtimeNsec).toBe(format === "pax" ? 250_000_000 : 0);
        expect(get("./plain-too").entry).toMatchObject({ type: "hardlink", linkTarget: "./plain" });
        expect(get("./big").body.equals(Buffer.alloc(70_001, 7))).toBe(true);
        expect(get("./caf\xe9").body.toString()).toBe("latin1 name");
        expect(get("./link").entry).toMatchObject({ type: "symlink", linkTarget: "plain" });
        if (withLongNames) {
          expect(get("./fifo").entry.type).toBe("fifo");
          expect(get(`./${LONG}`).body.toString()).toBe("long");
          expect(get("./long-link").entry.linkTarget).toBe(`/${"t".repeat(300)}`);
        }
      }
    });
  }
});

describe("GNU tar reads what we write", () => {
  it("names, links, devices and times of every kind", () => {
    const header = (partial: Parameters<typeof entryOf>[0]) => encodeEntryHeader(entryOf(partial));
    const tar = archive(
      directory("dir"),
      file("dir/plain", "hello\n"),
      file(LONG, "long"),
      file("caf\xe9", "x"),
      file(`${"\xe9".repeat(200)}`, "y"),
      symlink("link", "t".repeat(300)),
      hardlink("again", "dir/plain"),
      header({ path: "null", type: "character", rdev: encodeDevice(1, 3), uid: 3_000_000 }),
      header({ path: "loop", type: "block", rdev: encodeDevice(7, 0x12345), gid: 4_000_000 }),
      object("fifo", "fifo"),
      header({ path: "future", mtimeSec: 2 ** 33 + 1, mtimeNsec: 1 }),
    );
    writeFileSync(join(scratch, "a.tar"), tar);
    const env = { ...process.env, TZ: "UTC", LC_ALL: "C" };
    const args = ["--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf"];
    const list = execFileSync("tar", [...args, join(scratch, "a.tar")], { env })
      .toString("latin1")
      .trimEnd()
      .split("\n")
      .map((line) => line.replace(/(:\d\d) +/, "$1 "));
    expect(list).toEqual([
      "drwxr-xr-x 0/0               0 2020-09-13 12:26:40 dir/",
      "-rw-r--r-- 0/0               6 2020-09-13 12:26:40 dir/plain",
      `-rw-r--r-- 0/0               4 2020-09-13 12:26:40 ${LONG}`,
      "-rw-r--r-- 0/0               1 2020-09-13 12:26:40 caf\xe9",
      `-rw-r--r-- 0/0               1 2020-09-13 12:26:40 ${"\xe9".repeat(200)}`,
      `lrwxrwxrwx 0/0               0 2020-09-13 12:26:40 link -> ${"t".repeat(300)}`,
      "hrw-r--r-- 0/0               0 2020-09-13 12:26:40 again link to dir/plain",
      "crw-r--r-- 3000000/0       1,3 2020-09-13 12:26:40 null",
      "brw-r--r-- 0/4000000   7,74565 2020-09-13 12:26:40 loop",
      "prw-r--r-- 0/0               0 2020-09-13 12:26:40 fifo",
      "-rw-r--r-- 0/0               0 2242-03-16 12:56:33.000000001 future",
    ]);
  });
});

describe("the writer", () => {
  it("needs one block for a plain entry and is deterministic", () => {
    const plain = encodeEntryHeader(entryOf({ path: "etc/passwd", size: 5 }));
    expect(plain.length).toBe(512);
    const fancy = entryOf({
      path: "x",
      mtimeNsec: 5,
      xattrs: [
        { name: bytes("user.b"), value: Buffer.from([0, 255]) },
        { name: bytes("user.a"), value: Buffer.from("1") },
      ],
    });
    const reordered = { ...fancy, xattrs: [...fancy.xattrs].reverse() };
    expect(encodeEntryHeader(fancy).equals(encodeEntryHeader(reordered))).toBe(true);
  });

  it("splits a path of up to 255 bytes over name and prefix instead of a pax header", () => {
    const path = `${"a".repeat(150)}/${"b".repeat(99)}`;
    const header = encodeEntryHeader(entryOf({ path }));
    expect(header.length).toBe(512);
    expect(parseOne(archive(header)).entry.path).toBe(path);
  });

  it("puts a size beyond 8 GiB into a pax record", () => {
    const entry = entryOf({ path: "huge", size: 2 ** 40 });
    const header = encodeEntryHeader(entry);
    expect(header.length).toBe(3 * 512);
    expect(bodySize(entry)).toBe(2 ** 40);
    expect(padding(513).length).toBe(511);
    expect(padding(512).length).toBe(0);
  });
});

describe("header blocks", () => {
  it("accept checksums of tars whose char was signed", () => {
    const block = rawHeader({ name: "caf\xe9" });
    let sum = 8 * 32;
    block.forEach((byte, at) => {
      if (at < 148 || at >= 156) sum += byte > 127 ? byte - 256 : byte;
    });
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    expect(parseOne(archive(block)).entry.path).toBe("caf\xe9");
  });

  it("with a wrong checksum are corrupt", () => {
    const block = rawHeader({});
    block[0] = 0x5a;
    expect(thrownBy(() => parse(archive(block)))).toMatchObject({
      code: "CORRUPT_DATA",
      message: "layer test, entry 1: not a tar header (checksum mismatch)",
    });
  });

  it("hold base-256 numbers, negative ones too", () => {
    const uid = Buffer.from("8000000000989680", "hex");
    const mtime = Buffer.from("fffffffffffffffffffffffe", "hex");
    const { entry } = parseOne(archive(rawHeader({ uid, mtime })));
    expect(entry).toMatchObject({ uid: 10_000_000, mtimeSec: -2 });
  });

  it("with numbers of spaces, or full to the last byte, are read", () => {
    const { entry } = parseOne(
      archive(rawHeader({ mode: "   755 \0", uid: "        ", gid: "00001751" })),
    );
    expect(entry).toMatchObject({ mode: 0o755, uid: 0, gid: 0o1751 });
  });

  it("with letters for numbers are corrupt", () => {
    expect(thrownBy(() => parse(archive(rawHeader({ uid: "12x4567\0" })))).message).toBe(
      "layer test, entry 1: tar header: bad uid field",
    );
  });

  it("of v7 mark directories by a trailing slash, and have no prefix", () => {
    const { entry } = parseOne(
      archive(rawHeader({ name: "dir/", type: "\0", magic: "", prefix: "no" })),
    );
    expect(entry).toMatchObject({ path: "dir/", type: "directory" });
  });

  it("of star keep times behind a shorter prefix", () => {
    const prefix = Buffer.alloc(155);
    prefix.write("some/where", 0);
    prefix.write("12345670123", 131);
    const block = rawHeader({ name: "file", prefix });
    block.write("tar\0", 508, "latin1");
    expect(parseOne(archive(withChecksum(block))).entry.path).toBe("some/where/file");
  });

  it("of contiguous files are files", () => {
    expect(parseOne(archive(rawHeader({ type: "7" }))).entry.type).toBe("file");
  });

  it("of links and directories have no body, whatever size they state", () => {
    const size = "00000001000\0";
    const tar = archive(rawHeader({ type: "1", linkName: "x", size }), file("next", "n"));
    expect(parse(tar).map(({ entry }) => entry.path)).toEqual(["raw", "next"]);
  });

  it("of unknown type are refused by name", () => {
    expect(thrownBy(() => parse(archive(rawHeader({ name: "odd", type: "V" }))))).toMatchObject({
      code: "UNSUPPORTED",
      message: 'layer test: entry "odd": tar entry type "V" is not supported',
    });
  });

  it("with owners that chown(2) would misread are refused", () => {
    const uid = Buffer.from("80000000ffffffff", "hex");
    expect(thrownBy(() => parse(archive(rawHeader({ uid })))).code).toBe("CORRUPT_DATA");
  });
});

describe("GNU long names", () => {
  it("apply to the next entry only", () => {
    const tar = archive(
      extended("L", `${"n".repeat(300)}\0`),
      extended("K", `${"t".repeat(200)}\0`),
      rawHeader({ name: "n".repeat(100), type: "2" }),
      rawHeader({ name: "short" }),
    );
    const [first, second] = parse(tar);
    expect(first?.entry.path).toBe("n".repeat(300));
    expect(first?.entry.linkTarget).toBe("t".repeat(200));
    expect(second?.entry.path).toBe("short");
  });

  it("beyond PATH_MAX are refused before they are read", () => {
    const size = "77777777777\0";
    const error = thrownBy(() => parse(rawHeader({ type: "L", size })));
    expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(error.message).toContain("exceeds the limit of 4097");
  });
});

describe("the end of an archive", () => {
  it("may lack its zero blocks", () => {
    expect(parse(file("a", "x")).length).toBe(1);
    expect(parse(Buffer.alloc(0)).length).toBe(0);
  });

  it("may be followed by anything", () => {
    expect(parse(Buffer.concat([archive(file("a", "x")), Buffer.alloc(9999, 1)])).length).toBe(1);
  });

  it("is no end after one zero block only", () => {
    const tar = Buffer.concat([file("a"), Buffer.alloc(512), file("b")]);
    expect(thrownBy(() => parse(tar))).toMatchObject({ code: "CORRUPT_DATA" });
  });

  it("inside an entry is corrupt and names the entry", () => {
    const tar = file("usr/bin/tool", "x".repeat(2000));
    for (const length of [512, 513, 1500, 2512]) {
      expect(thrownBy(() => parse(tar.subarray(0, length)))).toMatchObject({
        code: "CORRUPT_DATA",
        message: `layer test: truncated tar archive: ends inside entry "usr/bin/tool" after ${length} bytes`,
      });
    }
  });

  it("inside a header, or between an extended header and its entry, is corrupt", () => {
    const inHeader = thrownBy(() => parse(file("a", "x").subarray(0, 100)));
    expect(inHeader.message).toContain("ends inside a header after 100 bytes");
    const afterPax = extended("x", record("path", "p"));
    expect(thrownBy(() => parse(afterPax)).code).toBe("CORRUPT_DATA");
    expect(thrownBy(() => parse(afterPax.subarray(0, 600))).message).toContain(
      "an extended header",
    );
  });
});

describe("limits", () => {
  it("bound the number of entries", () => {
    const tar = archive(file("a"), file("b"), file("c"));
    const limits = { ...DEFAULT_LIMITS, entries: 2 };
    expect(thrownBy(() => parse(tar, { limits }))).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: "layer test: more than 2 entries",
    });
  });

  it("bound paths and link targets", () => {
    const path = record("path", "p/".repeat(2100));
    expect(thrownBy(() => parse(archive(extended("x", path), rawHeader({})))).code).toBe(
      "CORRUPT_DATA",
    );
    const link = record("linkpath", "l".repeat(4096));
    const tar = archive(extended("x", link), rawHeader({ type: "2" }));
    expect(thrownBy(() => parse(tar)).message).toContain("longer than 4095 bytes");
  });
});

it("bodies are handed out as ranges of the chunk they came in", () => {
  const tar = archive(file("a", "y".repeat(5000)));
  const seen: unknown[] = [];
  const sink = { entry: () => {}, data: (...args: unknown[]) => seen.push(...args) };
  new TarReader(sink, { subject: "layer test" }).write(tar);
  expect(seen[0]).toBe(tar);
  expect(seen.slice(1)).toEqual([512, 5512]);
});
