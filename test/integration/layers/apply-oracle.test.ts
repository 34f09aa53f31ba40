/** Unpacking as root compared with GNU tar: the same archive must give the same tree. */

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { applyLayer } from "../../../src/layers/apply.js";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, toBytes } from "../../../src/system/bytes.js";
import { AT_FDCWD } from "../../../src/system/constants.js";
import { compareTrees, readTree } from "../../tools/tree.js";
import { archive, directory, file, hardlink, object } from "../../unit/layers/tar-fixture.js";

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "varve-oracle-"));
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const run = (program: string, ...args: string[]) => execFileSync(program, args, { stdio: "pipe" });

async function apply(blobPath: string, name = "ours", umask = 0o022): Promise<string> {
  const targetDir = join(scratch, name);
  mkdirSync(targetDir);
  const before = process.umask(umask);
  try {
    const mediaType = "application/vnd.oci.image.layer.v1.tar+gzip";
    await applyLayer({ blobPath, mediaType, targetDir, privileged: true });
  } finally {
    process.umask(before);
  }
  return targetDir;
}

/** A tree with whatever a root file system may hold. */
function buildTree(root: string): void {
  mkdirSync(root);
  const path = (name: string) => join(root, name);
  writeFileSync(path("owned"), "data");
  chownSync(path("owned"), 1234, 3_000_000);
  writeFileSync(path("suid"), "#!");
  chownSync(path("suid"), 5, 6);
  chmodSync(path("suid"), 0o6755);
  writeFileSync(path("ping"), "capable");
  chownSync(path("ping"), 7, 7);
  run(
    "setfattr",
    "-n",
    "security.capability",
    "-v",
    "0x0100000200200000000000000000000000000000",
    path("ping"),
  );
  run("setfattr", "-n", "user.comment", "-v", "0x00ff3d0a", path("owned"));
  mkdirSync(path("staff"));
  chownSync(path("staff"), 0, 50);
  chmodSync(path("staff"), 0o2775);
  mkdirSync(path("staff/below"));
  writeFileSync(path("staff/file"), "x");
  chownSync(path("staff/file"), 0, 0);
  chownSync(path("staff/below"), 0, 0);
  chmodSync(path("staff/below"), 0o755);
  mkdirSync(path("tmp"));
  chmodSync(path("tmp"), 0o1777);
  run("setfattr", "-n", "trusted.mine", "-v", "1", path("tmp"));
  run("mknod", path("null"), "c", "1", "3");
  run("mknod", path("loop"), "b", "7", "70000");
  run("mkfifo", path("pipe"));
  symlinkSync("owned", path("link"));
  run("chown", "-h", "12:34", path("link"));
  linkSync(path("owned"), path("staff/hard"));
  linkSync(path("link"), path("link-too"));
  writeFileSync(Buffer.from(`${root}/\xff\xfe`, "latin1"), "bytes");
  mkdirSync(path(`deep/${"n".repeat(120)}/${"m".repeat(120)}`), { recursive: true });
  writeFileSync(path(`deep/${"n".repeat(120)}/${"m".repeat(120)}/f`), "long");
  lutimesSync(path("link"), 1, 1_111_111_111.5);
  utimesSync(path("suid"), 1, -5.25);
  utimesSync(path("staff"), 1, 987_654_321.125);
}

describe.each(["gnu", "pax"])("an archive of --format=%s", (format) => {
  for (const umask of [0o022, 0o077, 0]) {
    it(`gives the tree it was made of and the one GNU tar makes, with umask ${umask.toString(8)}`, async () => {
      const source = join(scratch, "source");
      buildTree(source);
      const blob = join(scratch, "layer.tar.gz");
      const extra = format === "pax" ? ["--xattrs", "--xattrs-include=*"] : [];
      run(
        "tar",
        ...extra,
        `--format=${format}`,
        "--numeric-owner",
        "-C",
        source,
        "-czf",
        blob,
        ".",
      );
      const ours = readTree(await apply(blob, "ours", umask));
      const theirs = join(scratch, "theirs");
      mkdirSync(theirs);
      run("tar", ...extra, "--numeric-owner", "--same-owner", "-C", theirs, "-xpf", blob);
      expect(compareTrees(ours, readTree(theirs))).toEqual([]);
      if (format === "pax") expect(compareTrees(ours, readTree(source))).toEqual([]);
    });
  }
});

it("nothing is inherited from where the tree stands: no group, no default ACL", async () => {
  const parent = join(scratch, "parent");
  mkdirSync(parent);
  chownSync(parent, 0, 77);
  chmodSync(parent, 0o2777);
  // u::rwx g::rwx o::rwx as the default ACL of the parent.
  const value = Buffer.from("0200000001000700ffffffff04000700ffffffff20000700ffffffff", "hex");
  const name = "system.posix_acl_default" as ByteString;
  expect(sys.setxattrat(AT_FDCWD, toBytes(parent), name, value, 0)).toBe(0);
  const blob = join(scratch, "layer.tar");
  writeFileSync(blob, archive(directory("d"), file("d/f", "x", { mode: 0o600 }), file("e/g", "y")));
  const tree = readTree(await apply(blob, "parent/ours"));
  for (const entry of tree.values()) {
    expect(entry.owner).toBe("0:0");
    expect(entry.xattrs).toBe("");
  }
  expect(tree.get("d/f")?.mode).toBe("600");
  expect(tree.get("d")?.mode).toBe("755");
});

it("a hard link whose header differs does not cost its file the capability", async () => {
  const value = Buffer.from("0100000200200000000000000000000000000000", "hex");
  const xattrs = [{ name: "security.capability" as ByteString, value }];
  const blob = join(scratch, "layer.tar");
  writeFileSync(
    blob,
    archive(file("a", "x", { xattrs, uid: 3 }), hardlink("b", "a", { uid: 4, mtimeSec: 9 })),
  );
  const root = await apply(blob);
  expect(lstatSync(join(root, "a")).uid).toBe(4);
  const name = "security.capability" as ByteString;
  const found = sys.getxattrat(AT_FDCWD, toBytes(join(root, "a")), name);
  expect(typeof found === "number" ? found : found.subarray(4, 8)).toEqual(value.subarray(4, 8));
});

it("whiteouts and opaque marks are the kernel's: overlayfs hides what they hide", async () => {
  const lower = join(scratch, "lower");
  mkdirSync(join(lower, "dir"), { recursive: true });
  for (const name of ["gone", "stays", "dir/old"]) writeFileSync(join(lower, name), name);
  const blob = join(scratch, "layer.tar");
  writeFileSync(blob, archive(file(".wh.gone"), file("dir/new", "n"), file("dir/.wh..wh..opq")));
  const upper = await apply(blob);
  const merged = join(scratch, "merged");
  mkdirSync(merged);
  run("mount", "-t", "overlay", "overlay", "-o", `lowerdir=${upper}:${lower}`, merged);
  try {
    expect([...readTree(merged).keys()]).toEqual(["", "dir", "dir/new", "stays"]);
    expect(readFileSync(join(merged, "stays"), "utf8")).toBe("stays");
  } finally {
    run("umount", merged);
  }
});

it("without root, owners, devices and privileged attributes are left out, and the rest is right", async () => {
  const blobPath = join(scratch, "layer.tar");
  const attribute = (name: string) => ({ name: name as ByteString, value: Buffer.from("v") });
  const xattrs = [attribute("user.mine"), attribute("trusted.mine")];
  writeFileSync(
    blobPath,
    archive(
      directory("./", { uid: 0 }),
      directory("locked", { mode: 0o500 }),
      file("locked/suid", "x", { uid: 0, mode: 0o4755, xattrs }),
      object("null", "character", { rdev: 0x103, mode: 0o666 }),
      file(".wh.gone"),
      file("locked/.wh..wh..opq"),
    ),
  );
  const targetDir = join(scratch, "ours");
  mkdirSync(targetDir);
  chownSync(targetDir, 65534, 65534);
  chmodSync(scratch, 0o755);
  const mediaType = "application/vnd.oci.image.layer.v1.tar";
  process.setegid?.(65534);
  process.seteuid?.(65534);
  try {
    const applied = await applyLayer({ blobPath, mediaType, targetDir, privileged: false });
    expect(applied.warnings).toHaveLength(2);
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
  }
  const tree = readTree(targetDir);
  expect(tree.get("locked")?.mode).toBe("500");
  expect(tree.get("locked/suid")).toMatchObject({ mode: "4755", owner: "65534:65534" });
  expect(tree.get("locked/suid")?.xattrs).toBe("user.mine=0x76");
  expect(tree.get("null")).toMatchObject({ type: "file", size: "0", mode: "666" });
  expect(tree.get("gone")?.type).toBe("character device");
  const opaque = "user.overlay.opaque" as ByteString;
  const mark = sys.getxattrat(AT_FDCWD, toBytes(join(targetDir, "locked")), opaque);
  expect(String(mark)).toBe("y");
});
