import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Digest } from "../../../src/content/digest.js";
import { type AppliedLayer, type ApplyOptions, applyLayer } from "../../../src/layers/apply.js";
import {
  archive,
  directory,
  extended,
  file,
  hardlink,
  object,
  rawHeader,
  record,
} from "./tar-fixture.js";

let scratch: string;
let root: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-apply-"));
  root = join(scratch, "fs");
  mkdirSync(root);
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const digest = (data: Buffer) =>
  `sha256:${createHash("sha256").update(data).digest("hex")}` as Digest;

function apply(data: Buffer, more: Partial<ApplyOptions> = {}): Promise<AppliedLayer> {
  const blobPath = join(scratch, "blob");
  writeFileSync(blobPath, data);
  return applyLayer({
    blobPath,
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    targetDir: root,
    privileged: false,
    subject: "layer test",
    ...more,
  });
}

const isWhiteout = (path: string) => lstatSync(join(root, path)).isCharacterDevice();

describe("a layer", () => {
  it("is unpacked, hashed and counted in one pass", async () => {
    const tar = archive(
      directory("./"),
      directory("d/"),
      file("d/f", "content"),
      hardlink("l", "d/f"),
    );
    const expectedDiffId = digest(tar);
    const seen: number[] = [];
    const onProgress = (bytes: number) => seen.push(bytes);
    const applied = await apply(gzipSync(tar), { expectedDiffId, onProgress });
    expect(applied).toEqual({
      diffId: expectedDiffId,
      tarBytes: tar.length,
      entries: 4,
      impliedDirectories: [],
      lowerLinks: [],
      warnings: [],
    });
    expect(readFileSync(join(root, "l"), "utf8")).toBe("content");
    expect(seen.at(-1)).toBe(statSync(join(scratch, "blob")).size);
  });

  it("without a root entry, or without any, leaves an ordinary root", async () => {
    const applied = await apply(Buffer.alloc(1024));
    expect(applied).toMatchObject({ entries: 0, impliedDirectories: [""] });
    expect(statSync(root).mode & 0o7777).toBe(0o755);
  });

  it("whose diff ID is another is corrupt", async () => {
    const tar = archive(file("f", "x"));
    const expectedDiffId = digest(Buffer.from("other"));
    await expect(apply(tar, { expectedDiffId })).rejects.toMatchObject({
      code: "CORRUPT_DATA",
      message: `layer test: diff ID is ${digest(tar)}, the config says ${expectedDiffId}`,
    });
  });

  it("hashes what follows the archive's end, too", async () => {
    const tar = Buffer.concat([archive(file("f", "x")), Buffer.alloc(100_000, 3)]);
    expect((await apply(gzipSync(tar), { expectedDiffId: digest(tar) })).entries).toBe(1);
  });

  it("that is truncated names layer and entry", async () => {
    const tar = archive(file("usr/lib/big", "y".repeat(100_000)));
    await expect(apply(gzipSync(tar.subarray(0, 50_000)))).rejects.toMatchObject({
      code: "CORRUPT_DATA",
      message:
        'layer test: truncated tar archive: ends inside entry "usr/lib/big" after 50000 bytes',
    });
  });

  it("that cannot be opened, or is no layer, says so", async () => {
    await expect(apply(Buffer.alloc(0), { blobPath: join(scratch, "none") })).rejects.toMatchObject(
      { code: "ENOENT" },
    );
    await expect(apply(Buffer.from("#!/bin/sh\n".repeat(200)))).rejects.toMatchObject({
      code: "CORRUPT_DATA",
    });
    await expect(apply(Buffer.alloc(0), { mediaType: "application/json" })).rejects.toMatchObject({
      code: "UNSUPPORTED",
      message: 'layer media type "application/json" is not supported',
    });
  });

  it("may be cancelled", async () => {
    const controller = new AbortController();
    const tar = archive(file("f", Buffer.alloc(8 << 20)));
    const onProgress = () => controller.abort();
    await expect(apply(tar, { signal: controller.signal, onProgress })).rejects.toMatchObject({
      code: "CANCELLED",
    });
  });

  it("leaves no descriptor open, after success or failure", async () => {
    const before = readdirSync("/proc/self/fd").length;
    await apply(archive(file("a/b/c", "x")));
    await expect(apply(archive(file("../x", "x")))).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    await expect(apply(file("y", "x".repeat(9999)).subarray(0, 5000))).rejects.toMatchObject({
      code: "CORRUPT_DATA",
    });
    expect(readdirSync("/proc/self/fd").length).toBe(before);
  });
});

describe("limits", () => {
  it("stop a decompression bomb by its ratio", async () => {
    const bomb = gzipSync(archive(file("zeros", Buffer.alloc(16 << 20))));
    const limits = { ratio: 100, ratioFreeBytes: 1 << 20 };
    await expect(apply(bomb, { limits })).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: `layer test: decompresses to more than 100 times its ${bomb.length} bytes (max_layer_ratio)`,
    });
  });

  it("stop a layer by its size and number of entries", async () => {
    const tar = archive(file("a", "x"), file("b", "y"));
    await expect(apply(tar, { limits: { tarBytes: 1000 } })).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
    });
    await expect(apply(tar, { limits: { entries: 1 } })).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
    });
  });
});

describe("reserved names", () => {
  it(".wh.NAME hides a lower name, also with a body and under a path that needs cleaning", async () => {
    const tar = archive(file("./a/.wh.gone", "body"), file(".wh.top"), file("a/stays", "x"));
    const applied = await apply(tar);
    expect(isWhiteout("a/gone")).toBe(true);
    expect(isWhiteout("top")).toBe(true);
    expect(readdirSync(join(root, "a")).sort()).toEqual(["gone", "stays"]);
    expect(applied.entries).toBe(3);
  });

  it("of aufs are no files", async () => {
    const tar = archive(
      directory(".wh..wh.aufs"),
      directory(".wh..wh.orph/"),
      file(".wh..wh.orph/x", "x"),
      file("d/.wh..wh.other", "x"),
      file("d/f", "x"),
    );
    await apply(tar);
    expect(readdirSync(root)).toEqual(["d"]);
    expect(readdirSync(join(root, "d"))).toEqual(["f"]);
  });

  it("of aufs for hard links serve as targets and then vanish", async () => {
    const tar = archive(
      directory(".wh..wh.plnk/"),
      file(".wh..wh.plnk/10.20", "shared"),
      hardlink("a", ".wh..wh.plnk/10.20"),
      hardlink("b", ".wh..wh.plnk/10.20"),
    );
    const applied = await apply(tar);
    expect(readdirSync(root).sort()).toEqual(["a", "b"]);
    expect(statSync(join(root, "a")).ino).toBe(statSync(join(root, "b")).ino);
    expect(statSync(join(root, "a")).nlink).toBe(2);
    expect(applied.impliedDirectories).toEqual([""]);
  });

  it.each([".wh.", "d/.wh..", ".wh...", ".wh.dir/file"])("%s is refused", async (path) => {
    await expect(apply(archive(file(path, "x")))).rejects.toMatchObject({ code: "CORRUPT_DATA" });
  });

  it("may stand inside other names", async () => {
    await apply(archive(file("a.wh.b", "x"), file("d.wh.e/f", "y")));
    expect(readdirSync(root).sort()).toEqual(["a.wh.b", "d.wh.e"]);
  });
});

describe("hostile layers", () => {
  it.each([
    ["climb out", archive(file("a/../../escaped", "x"))],
    [
      "climb out by a pax path",
      archive(extended("x", record("path", "../escaped")), rawHeader({})),
    ],
    ["link out", archive(hardlink("x", "../../../etc/passwd"))],
    ["make whiteouts of devices", archive(object("x", "character"))],
  ])("that %s are refused", async (_, tar) => {
    await expect(apply(tar)).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    expect(existsSync(join(scratch, "escaped"))).toBe(false);
  });

  it("that link to a host file get an empty file, for lower layers to fill", async () => {
    const applied = await apply(archive(hardlink("x", "/etc/passwd")));
    expect(applied.lowerLinks).toMatchObject([{ path: "x", target: "etc/passwd" }]);
    expect(statSync(join(root, "x"))).toMatchObject({ size: 0, nlink: 1 });
  });

  it("that overwrite through a symlink change nothing outside", async () => {
    const victim = join(scratch, "victim");
    writeFileSync(victim, "safe");
    const link = object("x", "symlink", { linkTarget: scratch as never });
    await apply(archive(link, file("x/victim", "overwritten")));
    expect(readFileSync(victim, "utf8")).toBe("safe");
  });
});
