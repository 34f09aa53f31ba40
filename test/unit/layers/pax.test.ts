import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../../src/layers/limits.js";
import { encodePaxRecord, formatPaxTime, parsePaxTime } from "../../../src/layers/pax-records.js";
import { encodeEntryHeader } from "../../../src/layers/tar-writer.js";
import {
  archive,
  bytes,
  entryOf,
  extended,
  parse,
  parseOne,
  rawHeader,
  record,
  thrownBy,
} from "./tar-fixture.js";

const withRecords = (...records: string[]): Buffer =>
  archive(extended("x", records.join("")), rawHeader({}));

describe("a local pax header", () => {
  it("overrides the fields of the next entry only", () => {
    const records = [
      record("path", "caf\xe9/\xff"),
      record("uid", "5000000"),
      record("gid", "6000000"),
      record("mtime", "4102444800.123456789"),
      record("atime", "1"),
      record("uname", "somebody"),
      record("comment", "nothing"),
      record("VENDOR.unknown", "ignored"),
    ];
    const tar = archive(
      extended("x", records.join("")),
      rawHeader({}),
      rawHeader({ name: "next" }),
    );
    const [first, next] = parse(tar);
    expect(first?.entry).toMatchObject({
      path: "caf\xe9/\xff",
      uid: 5_000_000,
      gid: 6_000_000,
      mtimeSec: 4_102_444_800,
      mtimeNsec: 123_456_789,
    });
    expect(next?.entry).toMatchObject({ path: "next", uid: 0, mtimeSec: 0, mtimeNsec: 0 });
  });

  it("gives the size of the body", () => {
    const body = Buffer.alloc(512, "z");
    const tar = archive(extended("x", record("size", "5")), rawHeader({}), body);
    expect(parseOne(tar).body.toString()).toBe("zzzzz");
  });

  it("gives device numbers beyond the header's", () => {
    const records = record("SCHILY.devmajor", "4095") + record("SCHILY.devminor", "1048575");
    const tar = archive(extended("x", records), rawHeader({ type: "3" }));
    expect(parseOne(tar).entry.rdev).toBe(0xffffffff | 0);
    const tooLarge = record("SCHILY.devmajor", "4096");
    const bad = archive(extended("x", tooLarge), rawHeader({ type: "3" }));
    expect(thrownBy(() => parse(bad)).message).toContain("device number 4096:0 out of range");
  });

  it("is also known by the type that Solaris gives it", () => {
    const tar = archive(extended("X", record("path", "p")), rawHeader({}));
    expect(parseOne(tar).entry.path).toBe("p");
  });

  it("may be padded with NULs", () => {
    expect(parseOne(withRecords(record("path", "p"), "\0\0\0")).entry.path).toBe("p");
  });

  for (const [what, body] of [
    ["without a length", "x path=p\n"],
    ["with a length of zero", "0 path=p\n"],
    ["longer than the header", "99 path=p\n"],
    ["not ended by a newline", "9 path=pX"],
    ["without an equals sign", "9 pathpp\n"],
    ["without a key", "6 =pp\n"],
    ["with a NUL in the path", record("path", "a\0b")],
    ["with a negative size", record("size", "-1")],
    ["with a size beyond 2^53", record("size", "99999999999999999")],
    ["with a time of letters", record("mtime", "soon")],
  ] as const) {
    it(`with a record ${what} is corrupt`, () => {
      expect(thrownBy(() => parse(withRecords(body)))).toMatchObject({ code: "CORRUPT_DATA" });
    });
  }

  it("larger than the limit is refused before it is read", () => {
    const limits = { ...DEFAULT_LIMITS, paxHeaderBytes: 600 };
    const tar = withRecords(record("comment", "c".repeat(700)));
    expect(thrownBy(() => parse(tar, { limits }))).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });
});

describe("a global pax header", () => {
  it("applies to all that follow, a local one wins, and an empty value takes it back", () => {
    const tar = archive(
      extended("g", record("uid", "7") + record("mtime", "100.5")),
      rawHeader({ name: "one" }),
      extended("x", record("uid", "8")),
      rawHeader({ name: "two" }),
      extended("x", record("uid", "")),
      rawHeader({ name: "three" }),
      rawHeader({ name: "four" }),
    );
    const owners = parse(tar).map(({ entry }) => [entry.path, entry.uid, entry.mtimeSec]);
    expect(owners).toEqual([
      ["one", 7, 100],
      ["two", 8, 100],
      ["three", 0, 100],
      ["four", 7, 100],
    ]);
  });
});

describe("extended attributes", () => {
  it("are bytes, in Schily's spelling", () => {
    const value = "\x00\x01\xff=\n";
    const { entry } = parseOne(withRecords(record("SCHILY.xattr.security.capability", value)));
    expect(entry.xattrs).toEqual([
      { name: "security.capability", value: Buffer.from(value, "latin1") },
    ]);
  });

  it("are base64 under an escaped name in libarchive's, where Schily's wins", () => {
    const records = [
      record("LIBARCHIVE.xattr.user.a%25b", Buffer.from("libarchive").toString("base64")),
      record("LIBARCHIVE.xattr.user.both", Buffer.from("other").toString("base64")),
      record("SCHILY.xattr.user.both", "schily"),
    ];
    const { entry } = parseOne(withRecords(...records));
    expect(entry.xattrs.map(({ name, value }) => [name, value.toString()])).toEqual([
      ["user.a%b", "libarchive"],
      ["user.both", "schily"],
    ]);
  });

  it("keep names with '=' and '%'", () => {
    const xattrs = [{ name: bytes("user.a=b%3D"), value: Buffer.from("v") }];
    const header = encodeEntryHeader(entryOf({ path: "f", xattrs }));
    expect(parseOne(archive(header)).entry.xattrs).toEqual(xattrs);
  });

  it("survive Python's tarfile and come from it", () => {
    const script = `
import io, sys, tarfile
source = tarfile.open(fileobj=sys.stdin.buffer, mode="r|", encoding="latin1")
member = source.next()
target = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT, encoding="latin1")
again = tarfile.TarInfo(member.name)
again.pax_headers = {k: v for k, v in member.pax_headers.items() if k.startswith("SCHILY")}
target.addfile(again)
target.close()
`;
    const xattrs = [{ name: bytes("user.text"), value: Buffer.from("value") }];
    const input = archive(encodeEntryHeader(entryOf({ path: "f", xattrs })));
    const output = execFileSync("python3", ["-c", script], { input });
    expect(parseOne(output).entry.xattrs).toEqual(xattrs);
  });
});

describe("times", () => {
  it.each([
    ["0", 0, 0],
    ["1", 1, 0],
    ["1.5", 1, 500_000_000],
    ["1.000000001", 1, 1],
    ["-1", -1, 0],
    ["-1.5", -2, 500_000_000],
    ["-0.25", -1, 750_000_000],
    ["253402300800.999999999", 253_402_300_800, 999_999_999],
  ])("%s", (text, sec, nsec) => {
    expect(parsePaxTime(text, "")).toEqual({ sec, nsec });
    expect(formatPaxTime(sec, nsec)).toBe(text);
  });

  it("finer than nanoseconds are cut", () => {
    expect(parsePaxTime("1.1234567899", "")).toEqual({ sec: 1, nsec: 123_456_789 });
    expect(parsePaxTime("2.", "")).toEqual({ sec: 2, nsec: 0 });
  });
});

it("a record counts the digits of its own length", () => {
  for (let length = 0; length < 1200; length++) {
    const encoded = encodePaxRecord("k", "v".repeat(length));
    expect(Number.parseInt(encoded.toString(), 10)).toBe(encoded.length);
  }
});
