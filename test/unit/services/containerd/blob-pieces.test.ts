/** Blobs that are unpacked while they come in. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { withPieces } from "../../../../src/services/containerd/blob-pieces.js";

/** More than a pipe holds, and no archive. */
const PLAIN = Buffer.alloc(3 << 20, "piece ");

let directory: string;
let descriptors: number;

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-pieces-"));
  descriptors = readdirSync("/proc/self/fd").length;
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true });
  expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
});

function blob(bytes: Buffer, breaksAt = Number.POSITIVE_INFINITY) {
  return {
    bytes: bytes.length,
    signal: new AbortController().signal,
    async *read() {
      for (let at = 0; at < bytes.length; at += 100_000) {
        if (at >= breaksAt) throw new Error("broken off");
        yield bytes.subarray(at, at + 100_000);
      }
    },
    withTemporary: <R>(use: (directory: string) => Promise<R>) => use(directory),
  };
}

/** All that a pipe brings, as the unpacker's thread reads it. */
async function readPipe(name: string): Promise<Buffer> {
  const handle = await open(name, "r");
  try {
    const chunks: Buffer[] = [];
    for (;;) {
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(1 << 16), 0, 1 << 16, null);
      if (bytesRead === 0) return Buffer.concat(chunks);
      chunks.push(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

describe("a blob in pieces", () => {
  it("comes whole through a pipe, with what its first bytes show", async () => {
    const seen = await withPieces(blob(PLAIN), async (source) => {
      expect(source.piped).toEqual({ compression: "none", bytes: PLAIN.length });
      return readPipe(source.path);
    });
    expect(seen.equals(PLAIN)).toBe(true);
    expect(readdirSync(directory)).toEqual([]);
  });

  it("of no bytes is an empty pipe", async () => {
    const seen = await withPieces(blob(Buffer.alloc(0)), ({ path: end }) => readPipe(end));
    expect(seen).toHaveLength(0);
  });

  it("that breaks off is an error of whoever fetches it", async () => {
    const work = withPieces(blob(PLAIN, 500_000), async (source) => {
      const { length } = await readPipe(source.path);
      throw new Error(`only ${length} bytes`);
    });
    await expect(work).rejects.toThrow("broken off");
  });

  it("that its reader has enough of is the reader's error", async () => {
    const work = withPieces(blob(PLAIN), async () => {
      throw new Error("no archive");
    });
    await expect(work).rejects.toThrow("no archive");
  });

  it("lies in a file where the inflater wants one", async () => {
    vi.stubEnv("CONTAINERD_DISABLE_IGZIP", "1");
    const gzip = gzipSync(PLAIN);
    const seen = await withPieces(blob(gzip), async (source) => {
      expect(source.piped).toBeUndefined();
      return readFileSync(source.path);
    });
    expect(seen.equals(gzip)).toBe(true);
  });
});
