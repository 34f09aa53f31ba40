/** Blobs of containerd's content store: its own file, or over the socket. */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { digestOf, hexOf } from "../../../../src/content/digest.js";
import {
  type ContentSource,
  withStoredBlob,
} from "../../../../src/services/containerd/stored-blob.js";
import { NotFoundError, UnsupportedError } from "../../../../src/system/errors.js";

const BYTES = Buffer.from("a blob, and no archive");
const DIGEST = digestOf(BYTES);

let root: string;
let descriptors: number;

beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), "varve-stored-"));
  mkdirSync(path.join(root, "blobs/sha256"), { recursive: true });
  descriptors = readdirSync("/proc/self/fd").length;
});

afterEach(() => {
  rmSync(root, { recursive: true });
  expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
});

const file = () => path.join(root, "blobs/sha256", hexOf(DIGEST));

/** A store on this machine that has the blob. */
const here: ContentSource = {
  contentRoot: async () => root,
  contentSize: async () => BYTES.length,
  readContent: async function* () {
    yield BYTES;
  },
};

/** How the blob came: as the store's file, or through a pipe. */
async function wayOf(containerd: ContentSource, digest: string = DIGEST): Promise<string> {
  const blob = {
    ...{ containerd, scope: { namespace: "default" }, digest, bytes: BYTES.length },
    signal: new AbortController().signal,
    withTemporary: <R>(use: (directory: string) => Promise<R>) => use(root),
  };
  return await withStoredBlob(blob, async ({ path: source, piped }) => {
    // containerd may collect the blob now.
    rmSync(file(), { recursive: true, force: true });
    expect(await readFile(source)).toEqual(BYTES);
    return piped === undefined ? "file" : "pipe";
  });
}

describe("a blob that containerd has", () => {
  it("is read from the store's file, also when its name goes meanwhile", async () => {
    writeFileSync(file(), BYTES);
    expect(await wayOf(here)).toBe("file");
  });

  it("comes over the socket when the file is not here, or another one", async () => {
    expect(await wayOf(here)).toBe("pipe");
    writeFileSync(file(), "of another size");
    expect(await wayOf(here)).toBe("pipe");
    mkdirSync(file());
    expect(await wayOf(here)).toBe("pipe");
  });

  it("comes over the socket when containerd does not say where its files are", async () => {
    writeFileSync(file(), BYTES);
    expect(await wayOf({ ...here, contentRoot: async () => undefined })).toBe("pipe");
    expect(await wayOf({ ...here, contentRoot: async () => "relative" })).toBe("pipe");
    const contentRoot = () => Promise.reject(new UnsupportedError("no such service"));
    expect(await wayOf({ ...here, contentRoot })).toBe("pipe");
    expect(await wayOf(here, "../../../etc/passwd")).toBe("pipe");
  });

  it("is not read for a namespace that has it not, though the file is here", async () => {
    writeFileSync(file(), BYTES);
    const contentSize = () => Promise.reject(new NotFoundError("not in this namespace"));
    await expect(wayOf({ ...here, contentSize })).rejects.toThrow(
      expect.objectContaining({ code: "NOT_FOUND" }),
    );
  });
});
