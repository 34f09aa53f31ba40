import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { applyLayer } from "../../../src/layers/apply.js";
import { buildIndex } from "../../../src/layers/index-builder.js";
import { emptyIndex, type FlatIndex, openIndex } from "../../../src/layers/index-reader.js";
import { type PackedLayer, type PackOptions, packLayer } from "../../../src/layers/pack.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { describeDisk, describeIndex } from "../../unit/layers/tree-description.js";
import { shell, Workbench } from "./kernel-overlay.js";

let bench: Workbench;
let base: string;
let index: FlatIndex;

beforeEach(() => {
  bench = new Workbench();
});

afterEach(() => bench.dispose());

type Blob = Extract<PackedLayer, { empty: false }>;

const BASE = `
  mkdir -p etc usr/lib usr/share/doc/sub var/empty keep
  echo root > etc/passwd; chmod 640 etc/passwd; chown 3:4 etc/passwd; echo g > etc/group
  echo data > usr/lib/libc.so; ln usr/lib/libc.so usr/lib/libc.so.6; ln usr/lib/libc.so usr/share/c
  ln -s usr/lib lib; mkfifo var/pipe; mknod var/null c 1 3
  setfattr -n user.note -v hello etc/passwd
  for i in $(seq 20); do echo $i > usr/share/doc/f$i; echo $i > usr/share/doc/sub/g$i; done
  find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
`;

function setUp(script = BASE): void {
  base = bench.directory("base");
  shell(base, script);
  buildIndex({
    chainId: "base",
    fsDir: base,
    impliedDirectories: [],
    outputPath: join(bench.path, "index"),
    privileged: true,
  });
  index = openIndex(join(bench.path, "index"));
}

/** Runs a script in a kernel overlay over the base; the mount stays for comparison. */
function change(script: string, options = "redirect_dir=on,metacopy=on,index=off"): string {
  const upperDir = bench.directory("upper");
  // The overlay takes the root's attributes from the upper.
  execFileSync("bash", ["-c", `chmod --reference=base upper; touch -r base upper`], {
    cwd: bench.path,
  });
  const target = bench.mount([base], { upperDir, workDir: bench.directory("work") }, options);
  shell(target, script);
  return target;
}

let count = 0;

async function pack(extra: Partial<PackOptions> = {}): Promise<Blob> {
  count += 1;
  const packed = await packLayer({
    upperDir: join(bench.path, "upper"),
    workDir: join(bench.path, "work"),
    index,
    layerDirs: [base],
    privileged: true,
    outputPath: join(bench.path, `layer-${count}`),
    compression: "none",
    ...extra,
  });
  if (packed.empty) throw new Error("empty layer");
  return packed;
}

const latest = () => join(bench.path, `layer-${count}`);

function sha256(path: string): string {
  return `sha256:${createHash("sha256").update(readFileSync(path)).digest("hex")}`;
}

/** Index over the base of a layer tree. */
function indexOf(fsDir: string, impliedDirectories: readonly ByteString[]): FlatIndex {
  const outputPath = `${fsDir}.index`;
  buildIndex({
    parentIndexPath: join(bench.path, "index"),
    chainId: "top",
    fsDir,
    impliedDirectories,
    outputPath,
    privileged: true,
  });
  return openIndex(outputPath);
}

const CHANGES = `
  echo new > etc/new; rm etc/group; echo more >> etc/passwd; chmod 600 usr/share/doc/f1
  chown 9:9 usr/share/doc/f2; rm -r var/empty; mv usr/share/doc documents; rm documents/f3
  echo x > documents/x; mv documents/sub sub; rm -r keep; mkdir keep; echo k > keep/k
  mkdir -p a/b/c; ln etc/new a/link; ln -s nowhere a/dangling; mknod a/null c 1 3; mkfifo a/fifo
  setfattr -n user.x -v y a; setfattr -n trusted.z -v w a/b; setcap cap_net_raw+ep etc/new
  printf 'x' > a/$'name\\nwith\\xffbytes'; echo long > a/$(printf 'n%.0s' $(seq 200)); chmod 4711 a/link
  truncate -s 5M a/sparse; echo end >> a/sparse; touch -d '1969-12-31 23:59:58.5' a/old
  mkdir -p a/$(printf 'd%.0s' $(seq 150))/$(printf 'e%.0s' $(seq 150)); rm lib; mkdir lib; echo l > lib/l
`;

/** Everything but times of directories, which removing and linking entries moves. */
const OPTIONS = { contents: true, directoryTimes: true };

describe("a layer packed from a kernel overlay's upper", () => {
  test("gives the view's tree again when applied", async () => {
    setUp();
    const target = change(CHANGES);
    const packed = await pack({ compression: "gzip" });
    expect(packed.warnings).toEqual([]);
    expect(sha256(latest())).toBe(packed.digest);
    expect(statSync(latest()).size).toBe(packed.size);
    const want = describeDisk(target, OPTIONS);
    const targetDir = bench.directory("applied");
    const applied = await applyLayer({
      blobPath: latest(),
      mediaType: packed.mediaType,
      expectedDiffId: packed.diffId,
      targetDir,
      privileged: true,
    });
    expect(applied.entries).toBe(packed.entries);
    const merged = indexOf(targetDir, applied.impliedDirectories);
    const got = describeIndex(merged, [base, targetDir], OPTIONS);
    for (const tree of [got, want]) tree.delete("");
    expect(got).toEqual(want);
  });

  test("is the same every time, compressed or not", async () => {
    setUp();
    change(CHANGES);
    const first = await pack({ compression: "gzip" });
    const second = await pack({ compression: "gzip" });
    const plain = await pack();
    expect(second.digest).toBe(first.digest);
    expect(second.diffId).toBe(first.diffId);
    expect(plain.diffId).toBe(first.diffId);
    expect(plain.digest).toBe(first.diffId);
  });

  test("is listed by GNU tar with names, types, owners, times and links", async () => {
    setUp();
    change(
      "mkdir d; echo hi > d/f; ln d/f d/g; chown 5:6 d/f; touch -d @1234567890.25 d/f; rm etc/group; rm -r keep; mkdir keep; mknod d/n c 1 7; touch -h -d @1 d etc keep d/n .",
    );
    await pack();
    const listing = shell(bench.path, `TZ=UTC tar --full-time --numeric-owner -tvf ${latest()}`);
    const lines = listing
      .trim()
      .split("\n")
      .map((line) => line.replace(/ +/g, " "));
    expect(lines).toEqual([
      "drwxr-xr-x 0/0 0 1970-01-01 00:00:01 ./",
      "drwxr-xr-x 0/0 0 1970-01-01 00:00:01 d/",
      "-rw-r--r-- 5/6 3 2009-02-13 23:31:30.25 d/f",
      "hrw-r--r-- 5/6 0 2009-02-13 23:31:30.25 d/g link to d/f",
      "crw-r--r-- 0/0 1,7 1970-01-01 00:00:01 d/n",
      "drwxr-xr-x 0/0 0 1970-01-01 00:00:01 etc/",
      "---------- 0/0 0 1970-01-01 00:00:00 etc/.wh.group",
      "drwxr-xr-x 0/0 0 1970-01-01 00:00:01 keep/",
    ]);
  });

  test("marks a directory that was made anew as opaque", async () => {
    setUp("mkdir keep; echo old > keep/old");
    change("rm -r keep; mkdir keep; echo new > keep/new");
    await pack();
    // The root comes along because its time changed.
    expect(shell(bench.path, `tar -tf ${latest()}`)).toBe(
      "./\nkeep/\nkeep/.wh..wh..opq\nkeep/new\n",
    );
  });

  test("gives GNU tar the same contents, xattrs and sparse sizes", async () => {
    setUp("mkdir etc");
    const target = change(
      "mkdir a; truncate -s 3M a/sparse; echo e >> a/sparse; setfattr -n user.k -v v a/sparse; head -c 2500000 /dev/urandom > a/big; : > a/empty; touch -d 2020-01-01 a",
    );
    await pack();
    const out = bench.directory("out");
    shell(out, `tar --xattrs --xattrs-include='*' -xpf ${latest()}`);
    expect(describeDisk(join(out, "a"), OPTIONS)).toEqual(describeDisk(join(target, "a"), OPTIONS));
  });

  test("clamps times to the source date epoch", async () => {
    setUp("mkdir etc");
    change(
      "echo 1 > etc/new; touch -d @5000000000 etc/new; echo 2 > etc/old; touch -d @100.5 etc/old",
    );
    await pack({ sourceDateEpoch: 1_000_000 });
    const out = bench.directory("out");
    shell(out, `tar -xpf ${latest()}`);
    expect(shell(out, "stat -c %.Y etc/new etc/old etc")).toBe(
      "1000000.000000000\n100.500000000\n1000000.000000000\n",
    );
  });

  test("leaves sockets out and says so", async () => {
    setUp("mkdir etc");
    change(
      `python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('etc/sock')"; echo x > etc/x`,
    );
    const packed = await pack();
    expect(packed.warnings).toEqual([expect.stringContaining("etc/sock")]);
    expect(shell(bench.path, `tar -tf ${latest()}`)).toBe("etc/\netc/x\n");
  });
});

test("an unchanged view packs to nothing, and no file is made", async () => {
  setUp();
  change("cat etc/passwd > /dev/null; touch -c -r etc/passwd etc/passwd; chmod 640 etc/passwd");
  const outputPath = join(bench.path, "none");
  const packed = await packLayer({
    upperDir: join(bench.path, "upper"),
    workDir: join(bench.path, "work"),
    index,
    layerDirs: [base],
    privileged: true,
    outputPath,
    compression: "gzip",
  });
  expect(packed).toEqual({ empty: true });
  expect(existsSync(outputPath)).toBe(false);
});

test("an aborted packing stops and leaves no file", async () => {
  setUp("mkdir etc");
  change("head -c 20000000 /dev/zero > etc/big");
  const controller = new AbortController();
  const result = pack({
    compression: "gzip",
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  await expect(result).rejects.toMatchObject({ code: "CANCELLED" });
  expect(existsSync(latest())).toBe(false);
});

test("a file that shrinks while it is packed leaves a whole archive and a warning", async () => {
  setUp("mkdir etc");
  change("head -c 6000000 /dev/urandom > etc/big; echo after > etc/zz");
  const big = join(bench.path, "upper/etc/big");
  const packed = await pack({
    onProgress: (bytes) => {
      if (bytes < 2_000_000) writeFileSync(big, "short");
    },
  });
  expect(packed.warnings).toEqual([expect.stringContaining("etc/big")]);
  expect(shell(bench.path, `tar -tf ${latest()} && tar -xOf ${latest()} etc/zz`)).toBe(
    "etc/\netc/big\netc/zz\nafter\n",
  );
});

test("umoci unpacks base and packed layer to the view's tree", async () => {
  setUp();
  const target = change(CHANGES);
  // The base as a layer of its own: an upper over nothing.
  const baseBlob = join(bench.path, "base.tar");
  mkdirSync(join(bench.path, "nothing"));
  const packedBase = await packLayer({
    upperDir: base,
    workDir: join(bench.path, "nothing"),
    index: emptyIndex(),
    layerDirs: [],
    privileged: true,
    outputPath: baseBlob,
    compression: "gzip",
  });
  if (packedBase.empty) throw new Error("empty base");
  const packed = await pack({ compression: "gzip" });
  writeImage(join(bench.path, "image"), [
    [baseBlob, packedBase],
    [latest(), packed],
  ]);
  shell(bench.path, "umoci unpack --image image:latest bundle");
  const options = { contents: true, directoryTimes: true };
  const got = describeDisk(join(bench.path, "bundle/rootfs"), options);
  const want = describeDisk(target, options);
  for (const tree of [got, want]) tree.delete("");
  expect(got).toEqual(want);
});

/** Writes a minimal OCI image layout. */
function writeImage(dir: string, layers: readonly (readonly [string, Blob])[]): void {
  mkdirSync(join(dir, "blobs/sha256"), { recursive: true });
  const put = (data: Buffer) => {
    const hex = createHash("sha256").update(data).digest("hex");
    writeFileSync(join(dir, "blobs/sha256", hex), data);
    return { digest: `sha256:${hex}`, size: data.length };
  };
  const json = (value: unknown) => put(Buffer.from(JSON.stringify(value)));
  const config = json({
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: layers.map(([, { diffId }]) => diffId) },
    history: layers.map(() => ({ created: "1970-01-01T00:00:00Z" })),
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
    layers: layers.map(([path, { mediaType }]) => ({ mediaType, ...put(readFileSync(path)) })),
  });
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  const descriptor = {
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    ...manifest,
    annotations,
  };
  writeFileSync(
    join(dir, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }),
  );
  writeFileSync(join(dir, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
}
