/** What scripts/conformance/fuzz feeds, and what must hold whatever it feeds. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { crc32, gunzipSync } from "node:zlib";
import { applyLayer } from "../../../dist/layers/apply.js";
import { buildIndex } from "../../../dist/layers/index-builder.js";
import { openIndex } from "../../../dist/layers/index-reader.js";
import { DEFAULT_LIMITS } from "../../../dist/layers/limits.js";
import { TarReader } from "../../../dist/layers/tar-reader.js";
import { native } from "../../../dist/system/addon.js";
import { BaseError } from "../../../dist/system/errors.js";

const MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar";
const LIMITS = { ...DEFAULT_LIMITS, tarBytes: 64 << 20, entries: 10_000 };
/** How input may be refused. A system error is one, too: ENAMETOOLONG, EINVAL for an odd attribute, … */
const REFUSALS = ["CORRUPT_DATA", "UNSUPPORTED", "RESOURCE_EXHAUSTED", "SYSCALL"];

/** Runs `work`; what it gives, or the refusal. Anything else it throws is a finding. */
async function attempt(work) {
  try {
    return { result: await work() };
  } catch (error) {
    if (error instanceof BaseError && REFUSALS.includes(error.code)) return { error };
    throw error;
  }
}

/** Header blocks get their checksums again, or nothing behind the first check would ever be reached. */
function repairTar(data) {
  for (let at = 0; at + 512 <= data.length; at += 512) {
    const magic = data.toString("latin1", at + 257, at + 262);
    if (magic !== "ustar") continue;
    data.fill(0x20, at + 148, at + 156);
    let sum = 0;
    for (let i = at; i < at + 512; i++) sum += data[i];
    data.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
  }
}

/** The same bytes, however they are cut, give the same entries or the same refusal. */
export async function fuzzTar(data, mutator) {
  if (mutator.below(4) > 0) repairTar(data);
  const whole = await attempt(() => parse(data, () => data.length));
  const cut = await attempt(() => parse(data, () => 1 + mutator.below(1500)));
  assert.equal(cut.error?.message, whole.error?.message);
  assert.deepEqual(cut.result, whole.result);
}

function parse(data, step) {
  const log = createHash("sha256");
  let owed = 0;
  const sink = {
    entry(entry) {
      assert.equal(owed, 0, "an entry before the last one's body was complete");
      assert(!entry.path.includes("\0") && !entry.linkTarget.includes("\0"), "NUL in a name");
      for (const number of [entry.uid, entry.gid]) assert(number >= 0 && number < 2 ** 32 - 1);
      assert(Number.isSafeInteger(entry.size) && entry.size >= 0);
      assert(Number.isSafeInteger(entry.mtimeSec) && entry.mtimeNsec >= 0 && entry.mtimeNsec < 1e9);
      const runs = entry.sparse ?? [{ offset: 0, length: entry.size }];
      owed = entry.type === "file" ? runs.reduce((sum, run) => sum + run.length, 0) : 0;
      log.update(
        JSON.stringify({
          ...entry,
          xattrs: entry.xattrs.map((x) => [x.name, x.value.toString("hex")]),
        }),
      );
    },
    data(chunk, start, end) {
      owed -= end - start;
      assert(owed >= 0, "more body than announced");
      log.update(chunk.subarray(start, end));
    },
  };
  const reader = new TarReader(sink, { subject: "fuzz", limits: LIMITS });
  for (let at = 0; at < data.length; ) {
    const end = Math.min(data.length, at + step());
    reader.write(data.subarray(at, end));
    at = end;
  }
  reader.end();
  return log.digest("hex");
}

/** Nothing outside the tree is touched, no descriptor stays, and what was accepted has an index. */
export async function fuzzApply(data, mutator, directory) {
  if (mutator.below(8) > 0) repairTar(data);
  const base = path.join(directory, "apply");
  rmSync(base, { recursive: true, force: true });
  const targetDir = path.join(base, "fs");
  mkdirSync(targetDir, { recursive: true });
  writeFileSync(path.join(base, "canary"), "untouched");
  const blobPath = path.join(base, "blob");
  writeFileSync(blobPath, data);
  const before = readdirSync("/proc/self/fd").length;
  const { result } = await attempt(() =>
    applyLayer({ blobPath, mediaType: MEDIA_TYPE, targetDir, privileged: true, limits: LIMITS }),
  );
  assert.equal(readdirSync("/proc/self/fd").length, before, "a descriptor leaked");
  assert.equal(readFileSync(path.join(base, "canary"), "utf8"), "untouched");
  assert.deepEqual(readdirSync(base).sort(), ["blob", "canary", "fs"]);
  if (result === undefined) return;
  const outputPath = path.join(base, "index");
  const { impliedDirectories, lowerLinks } = result;
  const options = { chainId: "sha256:fuzz", fsDir: targetDir, impliedDirectories, lowerLinks };
  const built = await attempt(() => buildIndex({ ...options, outputPath, privileged: true }));
  if (built.result !== undefined) walk(openIndex(outputPath));
}

/** ISA-L and zlib agree: on the bytes, or on refusing them. */
export async function fuzzGzip(data, mutator, directory) {
  if (data[0] !== 0x1f || data[1] !== 0x8b) return;
  const file = path.join(directory, "gzip");
  writeFileSync(file, data);
  const ours = inflate(file, 1 + mutator.below(100_000));
  let theirs;
  try {
    theirs = gunzipSync(data, { maxOutputLength: 64 << 20 });
  } catch (error) {
    if (error.code === "ERR_BUFFER_TOO_LARGE") return;
    // zlib refuses garbage behind the last member, which gzip(1) and we ignore.
    if (error.message === "incorrect header check") return;
    assert(ours.result < 0, `zlib says ${error.message}, ISA-L nothing`);
    return;
  }
  assert.equal(ours.result, 0, "zlib takes it, ISA-L does not");
  assert(ours.data.equals(theirs), "ISA-L and zlib differ");
  assert.equal(ours.digest, createHash("sha256").update(theirs).digest("hex"));
}

function inflate(file, bytes) {
  const ring = [0, 1, 2].map(() => Buffer.alloc(bytes));
  const fd = openSync(file, "r");
  const reader = new native.StreamReader(fd, true, ring);
  closeSync(fd);
  const parts = [];
  let total = 0;
  let result = reader.next();
  for (let turn = 0; result > 0 && total < 64 << 20; turn = (turn + 1) % 3) {
    parts.push(Buffer.from(ring[turn].subarray(0, result)));
    total += result;
    result = reader.next();
  }
  const digest = result === 0 ? reader.digest()?.toString("hex") : undefined;
  reader.close();
  return { data: Buffer.concat(parts), result, digest };
}

/** Compressed layers as a whole. */
export async function fuzzBlob(data, _mutator, directory) {
  const base = path.join(directory, "blob");
  rmSync(base, { recursive: true, force: true });
  mkdirSync(path.join(base, "fs"), { recursive: true });
  const blobPath = path.join(base, "blob");
  writeFileSync(blobPath, data);
  const targetDir = path.join(base, "fs");
  await attempt(() =>
    applyLayer({ blobPath, mediaType: MEDIA_TYPE, targetDir, privileged: true, limits: LIMITS }),
  );
  assert.deepEqual(readdirSync(base).sort(), ["blob", "fs"]);
}

/** A forged index is refused, or everything that can be asked of it has an end and an answer. */
export async function fuzzIndex(data, mutator, directory) {
  if (mutator.below(8) > 0) repairIndex(data);
  const file = path.join(directory, "index");
  writeFileSync(file, data);
  const { result } = await attempt(() => openIndex(file));
  if (result !== undefined) await attempt(() => walk(result));
}

/** See layers/index-format.ts: file size at 56, checksum of the content at 48, of the header at 52. */
function repairIndex(data) {
  if (data.length < 64) return;
  const header = data.readUInt32LE(12);
  if (header < 64 || header > data.length) return;
  data.writeDoubleLE(data.length, 56);
  data.writeUInt32LE(crc32(data.subarray(header)), 48);
  data.writeUInt32LE(0, 52);
  data.writeUInt32LE(crc32(data.subarray(0, header)), 52);
}

function walk(index) {
  for (let inode = 1; inode <= index.inodeCount; inode++) {
    index.attributes(inode, {});
    index.xattrs(inode);
    index.symlinkTarget(inode);
    index.path(inode);
    index.contentPath(inode);
    index.names(inode);
    if (!index.isDirectory(inode)) continue;
    for (let entry = index.firstEntry(inode); entry < index.endEntry(inode); entry++) {
      index.lookup(inode, index.entryName(entry));
    }
  }
}
