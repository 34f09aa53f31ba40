import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../../src/layers/limits.js";
import { bodySize, type SparseExtent, type TarEntry } from "../../../src/layers/tar-entry.js";
import { encodeEntryHeader, padding } from "../../../src/layers/tar-writer.js";
import {
  archive,
  entryOf,
  extended,
  file,
  type ParsedEntry,
  parse,
  parseOne,
  rawHeader,
  record,
  thrownBy,
} from "./tar-fixture.js";

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-sparse-"));
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const BLOCK = 64 * 1024;

/** A file with `runs` runs of data between holes, and a hole at its end. */
function makeSparse(path: string, runs: number): Buffer {
  const fd = openSync(path, "w");
  for (let run = 0; run < runs; run++) {
    writeSync(fd, Buffer.alloc(BLOCK, run + 1), 0, BLOCK, (2 * run + 1) * BLOCK);
  }
  ftruncateSync(fd, (2 * runs + 3) * BLOCK);
  closeSync(fd);
  return readFileSync(path);
}

function expand({ entry, body }: ParsedEntry): Buffer {
  const whole = Buffer.alloc(entry.size);
  let at = 0;
  for (const { offset, length } of entry.sparse ?? [{ offset: 0, length: entry.size }]) {
    body.copy(whole, offset, at, at + length);
    at += length;
  }
  return whole;
}

describe("sparse files from GNU tar", () => {
  const formats = [
    ["--format=oldgnu"],
    ["--format=gnu"],
    ["--format=pax", "--sparse-version=0.0"],
    ["--format=pax", "--sparse-version=0.1"],
    ["--format=pax", "--sparse-version=1.0"],
  ];
  for (const format of formats) {
    for (const runs of [0, 1, 3, 4, 5, 30, 60]) {
      it(`${format.join(" ")}, ${runs} runs`, () => {
        const content = makeSparse(join(scratch, "sparse"), runs);
        writeFileSync(join(scratch, "zlast"), "after");
        const args = ["--sparse", ...format, "-C", scratch, "-cf", "-", "sparse", "zlast"];
        const tar = execFileSync("tar", args, { maxBuffer: 1 << 28 });
        for (const chunkSize of [tar.length, 1000]) {
          const [sparse, last] = parse(tar, { chunkSize });
          expect(sparse?.entry.path).toBe("sparse");
          expect(sparse?.entry.size).toBe(content.length);
          expect(sparse?.entry.sparse).toHaveLength(runs);
          expect(expand(sparse!).equals(content)).toBe(true);
          expect(last?.body.toString()).toBe("after");
        }
      });
    }
  }
});

describe("sparse files for GNU tar", () => {
  it("are written as pax format 1.0 and come out with their holes", () => {
    const sparse: SparseExtent[] = [
      { offset: BLOCK, length: 1024 },
      { offset: 5 * BLOCK, length: 1000 },
    ];
    const entry = entryOf({ path: "holes", size: 16 * BLOCK, sparse });
    const body = Buffer.alloc(2024, "d");
    const tar = archive(encodeEntryHeader(entry), body, padding(body.length), file("next", "n"));
    writeFileSync(join(scratch, "a.tar"), tar);
    execFileSync("tar", ["-C", scratch, "-xf", join(scratch, "a.tar")]);
    const content = readFileSync(join(scratch, "holes"));
    expect(content.equals(expand({ entry, body }))).toBe(true);
    expect(statSync(join(scratch, "holes")).blocks * 512).toBeLessThan(4 * BLOCK);
    expect(readFileSync(join(scratch, "next"), "utf8")).toBe("n");
  });

  it("make the round trip, an empty map too", () => {
    for (const sparse of [[], [{ offset: 0, length: 3 }], [{ offset: 7, length: 3 }]]) {
      const entry: TarEntry = entryOf({ path: "s", size: 10, sparse });
      const body = Buffer.alloc(bodySize(entry), "x");
      const found = parseOne(archive(encodeEntryHeader(entry), body, padding(body.length)));
      expect(found.entry).toEqual(entry);
      expect(found.body).toEqual(body);
    }
  });
});

describe("hostile sparse maps", () => {
  const sparse01 = (map: string, size = "100") =>
    archive(
      extended("x", record("GNU.sparse.map", map) + record("GNU.sparse.size", size)),
      file("s", "0123456789"),
    );
  const sparse10 = (body: string) => {
    const records = ["major=1", "minor=0", "name=s", "realsize=100"].map((item) => {
      const [key, value] = item.split("=") as [string, string];
      return record(`GNU.sparse.${key}`, value);
    });
    return archive(extended("x", records.join("")), file("s", body));
  };

  it.each([
    ["whose runs overlap", sparse01("0,5,3,5")],
    ["that go backwards", sparse01("50,5,0,5")],
    ["that reach beyond the file", sparse01("95,10")],
    ["with an odd number of numbers", sparse01("0,5,10")],
    ["with other than numbers", sparse01("0,5,a,5")],
    ["that describe more than the body", sparse01("0,5,10,10")],
    ["that describe less than the body", sparse01("0,5")],
    ["of text without numbers", sparse10("hello\n".padEnd(600))],
    ["of text longer than the entry", sparse10("200\n")],
    ["of text with an endless line", sparse10("1".repeat(1024))],
    ["of text with runs that overlap", sparse10(`2\n0\n5\n3\n5\n`.padEnd(522, "\0"))],
  ])("%s are corrupt", (_, tar) => {
    expect(thrownBy(() => parse(tar))).toMatchObject({ code: "CORRUPT_DATA" });
  });

  it("with more runs than the limit are refused", () => {
    const limits = { ...DEFAULT_LIMITS, sparseExtents: 2 };
    const tar = sparse01("0,1,2,1,4,8");
    expect(thrownBy(() => parse(tar, { limits }))).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(thrownBy(() => parse(sparse10("3\n"), { limits }))).toMatchObject({
      code: "CORRUPT_DATA",
    });
  });

  it("of an unknown version are not supported", () => {
    const records = record("GNU.sparse.major", "2") + record("GNU.sparse.minor", "0");
    const tar = archive(extended("x", records), rawHeader({}));
    expect(thrownBy(() => parse(tar))).toMatchObject({ code: "UNSUPPORTED" });
  });
});
