import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type Compression,
  compressionOf,
  detectCompression,
  fastestGunzip,
} from "../../../src/layers/compression.js";
import { DecompressedBlob, type DecompressOptions } from "../../../src/layers/decompressed-blob.js";
import { LayerCompressor } from "../../../src/layers/layer-compressor.js";
import { findProgram } from "../../../src/system/programs.js";

let scratch: string;
let environment: NodeJS.ProcessEnv;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-compression-"));
  environment = { ...process.env };
});
afterEach(() => {
  process.env = environment;
  rmSync(scratch, { recursive: true, force: true });
});

const GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";

/** Text that compresses, but not to nothing, and is large enough for a child process. */
const CONTENT = Buffer.from(randomBytes(600_000).toString("base64"));

async function read(data: Buffer, mediaType = GZIP, signal?: AbortSignal): Promise<Buffer> {
  const blobPath = join(scratch, "blob");
  writeFileSync(blobPath, data);
  const blob = new DecompressedBlob({ blobPath, mediaType, subject: "layer test", signal });
  const chunks: Buffer[] = [];
  for await (const chunk of blob.chunks()) chunks.push(Buffer.from(chunk));
  const whole = Buffer.concat(chunks);
  expect(blob.diffId()).toBe(hash(whole));
  return whole;
}

const open = (options: DecompressOptions) => new DecompressedBlob(options).chunks();
const hash = (data: Buffer) => `sha256:${createHash("sha256").update(data).digest("hex")}`;

/** A PATH on which only the named programs are found. */
function onlyPrograms(...names: string[]): void {
  const bin = join(scratch, "bin");
  mkdirSync(bin);
  for (const name of names) symlinkSync(findProgram(name)!, join(bin, name));
  process.env.PATH = bin;
}

describe("media types", () => {
  it.each([
    ["application/vnd.oci.image.layer.v1.tar", "none"],
    ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip"],
    ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd"],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"],
    ["application/vnd.docker.image.rootfs.diff.tar", "none"],
    ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"],
    ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"],
    ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"],
  ])("%s is %s", (mediaType, compression) => expect(compressionOf(mediaType)).toBe(compression));

  it.each([
    "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
    "application/vnd.oci.image.layer.v1.tar+lz4",
    "application/vnd.in-toto+json",
    "",
  ])("%s is not supported", (mediaType) => {
    expect(() => compressionOf(mediaType)).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED" }),
    );
  });
});

describe("detection", () => {
  it("goes by the first bytes, whatever the media type says", async () => {
    const small = Buffer.from("tar bytes");
    expect(await read(gzipSync(small), "application/vnd.oci.image.layer.v1.tar")).toEqual(small);
    expect(await read(small, GZIP)).toEqual(small);
    expect(await read(Buffer.alloc(0), GZIP)).toEqual(Buffer.alloc(0));
    const zstd = execFileSync("zstd", ["-q", "-c"], { input: small });
    expect(await read(zstd, GZIP)).toEqual(small);
  });

  it("knows skippable zstd frames, and names what is not supported", () => {
    expect(detectCompression(Buffer.from("5e2a4d1800000000", "hex"))).toBe("zstd");
    expect(detectCompression(Buffer.from("1f8b", "hex"))).toBe("gzip");
    expect(() => detectCompression(Buffer.from("\xfd7zXZ\0", "latin1"))).toThrow(/xz/);
    expect(() => detectCompression(Buffer.from("BZh91AY"))).toThrow(/bzip2/);
  });
});

describe.each(["isa-l", "program", "node:zlib"] as const)("gunzip by %s", (kind) => {
  beforeEach(() => {
    if (kind !== "isa-l") process.env.CONTAINERD_DISABLE_IGZIP = "1";
    if (kind === "node:zlib") process.env.CONTAINERD_DISABLE_PIGZ = "true";
    expect(fastestGunzip()).toMatchObject({ kind });
  });

  it("reads one member, several, and empty ones", async () => {
    expect((await read(gzipSync(CONTENT))).equals(CONTENT)).toBe(true);
    const parts = [CONTENT.subarray(0, 99_999), Buffer.alloc(0), CONTENT.subarray(99_999)];
    expect((await read(Buffer.concat(parts.map((part) => gzipSync(part))))).equals(CONTENT)).toBe(
      true,
    );
  });

  it("ignores zeros behind the last member", async () => {
    const padded = Buffer.concat([gzipSync(CONTENT), Buffer.alloc(1024)]);
    expect((await read(padded)).equals(CONTENT)).toBe(true);
  });

  it("reports truncation anywhere", async () => {
    const whole = gzipSync(CONTENT);
    for (const cut of [1, 4, 8, 9, 1000, whole.length >> 1]) {
      await expect(read(whole.subarray(0, whole.length - cut))).rejects.toMatchObject({
        code: "CORRUPT_DATA",
        message: expect.stringContaining("layer test: "),
      });
    }
  });

  it("reports a flipped bit", async () => {
    for (const at of [-2, -6, -1000, -300_000]) {
      const damaged = gzipSync(CONTENT);
      damaged[damaged.length + at]! ^= 0x10;
      await expect(read(damaged)).rejects.toMatchObject({ code: "CORRUPT_DATA" });
    }
  });

  it("ends when the consumer leaves or the signal fires", async () => {
    const blobPath = join(scratch, "blob");
    writeFileSync(blobPath, gzipSync(Buffer.alloc(64 << 20)));
    const options = { blobPath, mediaType: GZIP, subject: "layer test" };
    for await (const chunk of open(options)) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    const controller = new AbortController();
    const reading = async () => {
      for await (const _ of open({ ...options, signal: controller.signal })) {
        controller.abort();
      }
    };
    await expect(reading()).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

it("without any program gzip still works, and zstd says what to install", async () => {
  const zstd = execFileSync("zstd", ["-q", "-c"], { input: CONTENT, maxBuffer: 1 << 27 });
  onlyPrograms();
  process.env.CONTAINERD_DISABLE_IGZIP = "1";
  expect(fastestGunzip()).toEqual({ kind: "node:zlib" });
  expect((await read(gzipSync(CONTENT))).equals(CONTENT)).toBe(true);
  await expect(read(zstd)).rejects.toMatchObject({
    code: "UNSUPPORTED",
    message: expect.stringContaining("apt-get install zstd"),
  });
});

it("containerd's variables switch an inflater off only when they say yes", () => {
  process.env.CONTAINERD_DISABLE_IGZIP = "false";
  expect(fastestGunzip()).toEqual({ kind: "isa-l" });
  process.env.CONTAINERD_DISABLE_IGZIP = "true";
  process.env.CONTAINERD_DISABLE_PIGZ = "0";
  expect(fastestGunzip()).toEqual({ kind: "program", path: findProgram("unpigz") });
});

describe("zstd", () => {
  const compress = (data: Buffer, ...args: string[]) =>
    execFileSync("zstd", ["-q", "-c", ...args], { input: data, maxBuffer: 1 << 27 });

  it("reads several frames, skippable ones, and long windows", async () => {
    const skippable = Buffer.from("502a4d1803000000aabbcc", "hex");
    const frames = [skippable, compress(CONTENT), skippable, compress(CONTENT, "--long=27")];
    expect((await read(Buffer.concat(frames))).equals(Buffer.concat([CONTENT, CONTENT]))).toBe(
      true,
    );
  });

  it("reports truncation and damage", async () => {
    const whole = compress(CONTENT);
    await expect(read(whole.subarray(0, whole.length - 2))).rejects.toMatchObject({
      code: "CORRUPT_DATA",
    });
    const damaged = Buffer.from(whole);
    damaged[damaged.length - 1]! ^= 1;
    await expect(read(damaged)).rejects.toMatchObject({ code: "CORRUPT_DATA" });
  });
});

describe("LayerCompressor", () => {
  async function compress(compression: Compression, data: Buffer, step: number, level?: number) {
    const outputPath = join(scratch, `out-${compression}`);
    const compressor = LayerCompressor.create({ outputPath, compression, level });
    for (let at = 0; at < data.length; at += step) {
      // The buffer is reused at once, as a caller may do.
      const chunk = Buffer.from(data.subarray(at, at + step));
      const wait = compressor.write(chunk);
      if (wait !== undefined) await wait;
      chunk.fill(0);
    }
    return { result: await compressor.finish(), blob: readFileSync(outputPath) };
  }

  const decoders: [Compression, (blob: Buffer) => Buffer][] = [
    ["none", (blob) => blob],
    ["gzip", (blob) => gunzipSync(blob)],
    [
      "zstd",
      (blob) => execFileSync("zstd", ["-q", "-d", "-c"], { input: blob, maxBuffer: 1 << 27 }),
    ],
  ];
  for (const [compression, decode] of decoders) {
    it(`${compression}: digest, size and diff ID are those of what it wrote, however it was fed`, async () => {
      let first: Buffer | undefined;
      for (const step of [CONTENT.length, 100_000, 4096]) {
        const { result, blob } = await compress(compression, CONTENT, step);
        expect(result).toEqual({
          digest: hash(blob),
          size: blob.length,
          diffId: hash(CONTENT),
          tarBytes: CONTENT.length,
        });
        expect(decode(blob).equals(CONTENT)).toBe(true);
        first ??= blob;
        expect(blob.equals(first)).toBe(true);
      }
    });

    it(`${compression}: nothing at all is a valid blob`, async () => {
      const { result, blob } = await compress(compression, Buffer.alloc(0), 1);
      expect(result.diffId).toBe(hash(Buffer.alloc(0)));
      expect(decode(blob).length).toBe(0);
    });
  }

  it("gzip: one member that gzip, igzip and pigz accept, without name or time", async () => {
    const { blob } = await compress("gzip", CONTENT, 1 << 20);
    expect(blob.toString("hex", 0, 10)).toBe("1f8b08000000000000ff");
    for (const program of ["gzip", "igzip", "unpigz"]) {
      const output = execFileSync(program, ["-d", "-c"], { input: blob, maxBuffer: 1 << 27 });
      expect(output.equals(CONTENT)).toBe(true);
    }
    expect(execFileSync("gzip", ["-tv"], { input: blob, stdio: "pipe" }).toString()).toBe("");
  });

  it("gzip: blocks cost next to nothing in size", async () => {
    const { result } = await compress("gzip", CONTENT, 1 << 20, 9);
    expect(result.size).toBeLessThan(gzipSync(CONTENT, { level: 9 }).length * 1.01);
  });

  it("refuses levels that do not exist", () => {
    const outputPath = join(scratch, "never");
    for (const level of [0, 10, 1.5, Number.NaN]) {
      expect(() => LayerCompressor.create({ outputPath, compression: "gzip", level })).toThrow(
        expect.objectContaining({ code: "INVALID_ARGUMENT" }),
      );
    }
    expect(existsSync(outputPath)).toBe(false);
  });

  it.each(["none", "gzip", "zstd"] as const)("%s: abort removes the file", async (compression) => {
    const outputPath = join(scratch, "aborted");
    const compressor = LayerCompressor.create({ outputPath, compression });
    await compressor.write(CONTENT);
    compressor.abort();
    compressor.abort();
    expect(existsSync(outputPath)).toBe(false);
  });
});
