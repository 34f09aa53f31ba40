/**
 * Pulls from Debian's registry over a line that fails at random. A few here; as many as one likes by
 * scripts/conformance/pulls.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { chainIdsOf, type Digest, hexOf } from "../../../src/content/digest.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { OCI_MANIFEST, sha256 } from "./fake-registry.js";
import { RegistryProcess } from "./registry-process.js";
import { makeRandom, type Random, UnreliableLine } from "./unreliable-line.js";

const PULLS = Number(process.env.VARVE_TEST_PULLS ?? 30);
const SEED = Number(process.env.VARVE_TEST_SEED ?? 20261121);
const AT_A_TIME = 6;
const MINUTES = 60_000;
/** What a line can do to a pull. Anything else would not be the line's fault. */
const CLEAR = ["UNAVAILABLE", "CORRUPT_DATA", "NOT_FOUND", "UNSUPPORTED", "PERMISSION_DENIED"];

interface TestImage {
  readonly tag: string;
  readonly digest: Digest;
  readonly chainIds: readonly Digest[];
  /** The digest of the file "data" in each layer's tree. */
  readonly trees: readonly string[];
}

const random = makeRandom(SEED);
let registry: RegistryProcess;
let line: UnreliableLine;
let daemon: DaemonSandbox;
const images: TestImage[] = [];

beforeAll(async () => {
  registry = await RegistryProcess.start();
  // One layer is long enough to come over several connections.
  const sizes = [[100], [30_000, 200_000], [1_000_000], [300_000, 10, 500_000], [18_000_000]];
  for (const [number, layers] of sizes.entries()) {
    images.push(await makeImage(`image-number-${number}`, layers));
  }
  line = await UnreliableLine.start(registry.port, random);
  daemon = new DaemonSandbox();
  await daemon.start();
});

afterAll(async () => {
  await daemon?.dispose();
  await line?.dispose();
  await registry?.dispose();
});

function randomBytes(size: number, next: Random): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i + 4 <= size; i += 4) bytes.writeUInt32LE(next(2 ** 32), i);
  return bytes;
}

/** A layer with one file. */
function makeTar(data: Buffer): Buffer {
  const directory = mkdtempSync(path.join(os.tmpdir(), "varve-layer-"));
  try {
    writeFileSync(path.join(directory, "data"), data);
    return execFileSync("tar", ["c", "data"], { cwd: directory, maxBuffer: 1 << 26 });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function send(bytes: Buffer): Promise<{ digest: Digest; size: number }> {
  const uploads = `http://${registry.domain}/v2/unreliable/blobs/uploads/`;
  const { headers } = await fetch(uploads, { method: "POST" });
  const digest = sha256(bytes);
  const target = `${headers.get("location")}&digest=${digest}`;
  const { status } = await fetch(target, { method: "PUT", body: bytes });
  expect(status).toBe(201);
  return { digest, size: bytes.length };
}

async function makeImage(tag: string, sizes: readonly number[]): Promise<TestImage> {
  const files = sizes.map((size) => randomBytes(size, random));
  const tars = files.map(makeTar);
  const layers = [];
  for (const tar of tars) {
    const blob = await send(gzipSync(tar, { level: 1 }));
    layers.push({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...blob });
  }
  const diffIds = tars.map(sha256);
  const rootfs = { type: "layers", diff_ids: diffIds };
  const config = {
    mediaType: "application/vnd.oci.image.config.v1+json",
    ...(await send(Buffer.from(JSON.stringify({ os: "linux", architecture: "amd64", rootfs })))),
  };
  const body = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
  const target = `http://${registry.domain}/v2/unreliable/manifests/${tag}`;
  const headers = { "content-type": OCI_MANIFEST };
  expect((await fetch(target, { method: "PUT", headers, body })).status).toBe(201);
  return {
    tag,
    digest: sha256(Buffer.from(body)),
    chainIds: chainIdsOf(diffIds),
    trees: files.map(sha256),
  };
}

async function pull(reference: string): Promise<Digest> {
  const access = { plainHttp: true, environment: { HOME: "/nowhere" } };
  const request = { reference, access, platforms: ["linux/amd64"] };
  for await (const { image } of daemon.client.pullImage(request)) {
    if (image !== undefined) return image.digest as Digest;
  }
  throw new Error("no image came");
}

/** Pulls one image and removes it again; the outcome is "done" or an error's code. */
async function pullOnce(image: TestImage): Promise<string> {
  const reference = `${line.domain}/unreliable:${image.tag}`;
  try {
    expect(await pull(reference)).toBe(image.digest);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    expect(CLEAR, message).toContain(code);
    expect(message).toMatch(/^(pull|resolve|fetch|unpack|blob|layer|manifest|index) /);
    return String(code);
  }
  await daemon.client.removeImage({ reference }).catch((error: { code?: string }) => {
    // Somebody else pulled the same image and was first to remove it.
    expect(error.code).toBe("NOT_FOUND");
  });
  return "done";
}

it(
  `${PULLS} pulls over a bad line end in the right image or a clear error`,
  async () => {
    const outcomes = new Map<string, number>();
    let left = PULLS;
    const runner = async () => {
      while (left-- > 0) {
        const outcome = await pullOnce(images[random(images.length)]!);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, runner));
    if (process.env.VARVE_TEST_PULLS !== undefined) {
      console.log("outcomes:", Object.fromEntries(outcomes));
      console.log("faults:", Object.fromEntries(line.faults));
    }
    // Three of five get through, as thousands showed; how the pulls meet the faults is chance.
    expect(outcomes.get("done") ?? 0).toBeGreaterThan(PULLS / 5);
    checkBlobs();
  },
  60 * MINUTES,
);

function checkBlobs(): void {
  const blobs = daemon.path("root/blobs/sha256");
  for (const name of readdirSync(blobs)) {
    expect(sha256(readFileSync(path.join(blobs, name)))).toBe(`sha256:${name}`);
  }
}

it("and what is pulled at last has the right files", async () => {
  for (const { tag, chainIds, trees } of images) {
    await pull(`${registry.domain}/unreliable:${tag}`);
    const found = chainIds.map((chainId) =>
      sha256(readFileSync(daemon.path("root/snapshots", hexOf(chainId), "fs/data"))),
    );
    expect(found).toEqual(trees);
  }
});
