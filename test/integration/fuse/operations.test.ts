import { execFileSync, spawnSync } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { MAX_TRANSFER_BYTES } from "../../../src/fuse/constants.js";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import {
  AT_FDCWD,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
} from "../../../src/system/constants.js";
import { EEXIST, ENODATA, ENOTTY, ENXIO } from "../../../src/system/errno.js";
import { MemoryServer } from "./memory-mount.js";

let server: MemoryServer;

beforeAll(async () => {
  server = await MemoryServer.start();
});

afterAll(() => server.stop());

function errorCode(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
  return undefined;
}

/**
 * Expects `look`, when repeated, to cost no more than `atMost` of each of these requests. Tries until
 * it does: other tests on this machine may be dropping the kernel's caches.
 */
async function asksNobody(look: () => void, requests: string[], atMost = 0): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    look();
    const before = (await server.report()).calls;
    look();
    const after = (await server.report()).calls;
    const added = requests.map((name) => (after[name] ?? 0) - (before[name] ?? 0));
    if (added.every((count) => count <= atMost)) return;
    if (attempt === 100) expect(added).toEqual(requests.map(() => 0));
  }
}

test("a file is created, written, read, appended and removed", () => {
  const file = server.path("plain");
  writeFileSync(file, "hello", { mode: 0o640 });
  appendFileSync(file, ", world");
  expect(readFileSync(file, "utf8")).toBe("hello, world");
  expect(statSync(file)).toMatchObject({ size: 12, mode: 0o100640, nlink: 1 });
  unlinkSync(file);
  expect(errorCode(() => statSync(file))).toBe("ENOENT");
});

test("the largest requests carry all of their 255 pages", async () => {
  const file = server.path("large");
  const content = Buffer.alloc(5 << 20);
  for (let i = 0; i < content.length; i += 4) content.writeUInt32LE(i, i);
  const fd = openSync(file, "w+");
  expect(writeSync(fd, content)).toBe(content.length);
  // O_DIRECT reads go past the page cache, to the file system.
  closeSync(fd);
  const copy = execFileSync("dd", [`if=${file}`, "bs=1M", "iflag=direct", "status=none"], {
    maxBuffer: 8 << 20,
  });
  expect(copy.equals(content)).toBe(true);
  expect(readFileSync(file).equals(content)).toBe(true);
  const { largestRead, largestWrite } = await server.report();
  expect(largestWrite).toBe(MAX_TRANSFER_BYTES);
  expect(largestRead).toBe(MAX_TRANSFER_BYTES);
  rmSync(file);
});

test("reads past the end and of odd sizes give what is there", () => {
  const file = server.path("odd");
  writeFileSync(file, Buffer.alloc(5000, 7));
  const fd = openSync(file, "r");
  const target = Buffer.alloc(9000);
  expect(readSync(fd, target, 0, 9000, 4999)).toBe(1);
  expect(readSync(fd, target, 0, 10, 123_456)).toBe(0);
  expect(sys.pread(fd, target, 0, 10, 2 ** 53 - 4096)).toBe(0);
  closeSync(fd);
  rmSync(file);
});

test("no open and no release reaches the file system, and what was read stays cached", async () => {
  const file = server.path("unopened");
  writeFileSync(file, "x");
  await asksNobody(() => readFileSync(file), ["read", "lookup"]);
});

test("names of 255 bytes and names that are not UTF-8 work", () => {
  const long = "n".repeat(255);
  writeFileSync(server.path(long), "long");
  expect(readFileSync(server.path(long), "utf8")).toBe("long");
  expect(errorCode(() => writeFileSync(server.path(`${long}n`), ""))).toBe("ENAMETOOLONG");

  const raw = Buffer.concat([
    Buffer.from(`${server.target}/`),
    Buffer.from([0xff, 0xfe, 0x80, 0x41]),
  ]);
  writeFileSync(raw, "raw");
  const names = readdirSync(server.target, { encoding: "buffer" });
  expect(names.some((name) => name.equals(Buffer.from([0xff, 0xfe, 0x80, 0x41])))).toBe(true);
  expect(readFileSync(raw, "utf8")).toBe("raw");
  unlinkSync(raw);
  unlinkSync(server.path(long));
});

test("directories list all entries once, with inode numbers equal to stat's", () => {
  const directory = server.path("many");
  mkdirSync(directory);
  const expected: string[] = [];
  for (let i = 0; i < 1000; i++) {
    const name = `entry-${i}-${"x".repeat(i % 200)}`;
    expected.push(name);
    writeFileSync(`${directory}/${name}`, "");
  }
  expect(readdirSync(directory).sort()).toEqual(expected.sort());
  const lines = execFileSync("find", [directory, "-printf", "%i %f\n"], { encoding: "utf8" });
  for (const line of lines.trim().split("\n").slice(1, 50)) {
    const [ino, name] = line.split(" ");
    expect(statSync(`${directory}/${name}`).ino).toBe(Number(ino));
  }
  rmSync(directory, { recursive: true });
  expect(errorCode(() => statSync(directory))).toBe("ENOENT");
});

test("a listing continues rightly while entries come and go", () => {
  const directory = server.path("shifting");
  mkdirSync(directory);
  for (let i = 0; i < 500; i++) writeFileSync(`${directory}/keep-${i}-${"y".repeat(180)}`, "");
  const script = `
    import os
    seen = []
    with os.scandir("${directory}") as entries:
        for i, entry in enumerate(entries):
            seen.append(entry.name)
            if i % 10 == 0:
                open(f"${directory}/new-{i}", "w").close()
                os.unlink(f"${directory}/new-{i}")
    keep = [n for n in seen if n.startswith("keep-")]
    assert len(keep) == 500 and len(set(keep)) == 500, len(keep)
  `.replace(/^ {4}/gm, "");
  execFileSync("python3", ["-c", script]);
  rmSync(directory, { recursive: true });
});

test("rename moves, replaces, refuses and exchanges", () => {
  writeFileSync(server.path("r1"), "1");
  writeFileSync(server.path("r2"), "2");
  mkdirSync(server.path("rd"));
  const from = toBytes(server.path("r1"));
  const to = toBytes(server.path("r2"));
  expect(sys.renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE)).toBe(-EEXIST);
  expect(sys.renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE)).toBe(0);
  expect(readFileSync(server.path("r1"), "utf8")).toBe("2");
  renameSync(server.path("r1"), server.path("rd", "inside"));
  renameSync(server.path("r2"), server.path("rd", "inside"));
  expect(readFileSync(server.path("rd", "inside"), "utf8")).toBe("1");
  expect(errorCode(() => rmdirSync(server.path("rd")))).toBe("ENOTEMPTY");
  rmSync(server.path("rd"), { recursive: true });
});

test("links share an inode, and an unlinked open file lives on", () => {
  writeFileSync(server.path("first"), "shared");
  linkSync(server.path("first"), server.path("second"));
  expect(statSync(server.path("second")).ino).toBe(statSync(server.path("first")).ino);
  expect(statSync(server.path("first")).nlink).toBe(2);
  const fd = openSync(server.path("first"), "r+");
  unlinkSync(server.path("first"));
  unlinkSync(server.path("second"));
  writeSync(fd, "SHARED", 0);
  const target = Buffer.alloc(6);
  readSync(fd, target, 0, 6, 0);
  expect(target.toString()).toBe("SHARED");
  closeSync(fd);
});

test("symlinks carry any target up to 4095 bytes", () => {
  symlinkSync("../some/where", server.path("link"));
  expect(readlinkSync(server.path("link"))).toBe("../some/where");
  const long = `/${"t".repeat(4094)}`;
  symlinkSync(long, server.path("long-link"));
  expect(readlinkSync(server.path("long-link"))).toBe(long);
  expect(lstatSync(server.path("long-link")).size).toBe(4095);
});

test("times are kept to the nanosecond, before 1970 and after 2038", () => {
  const file = server.path("times");
  writeFileSync(file, "");
  execFileSync("touch", ["-d", "2026-01-02 03:04:05.123456789", file]);
  expect(statSync(file, { bigint: true }).mtimeNs % 1_000_000_000n).toBe(123_456_789n);
  // Not with utimesSync, which takes a negative time for the present.
  execFileSync("touch", ["-d", "1969-12-31 00:00:00.5 UTC", file]);
  expect(statSync(file).mtimeMs).toBe(-86_399_500);
  expect(statSync(file).atimeMs).toBe(-86_399_500);
  utimesSync(file, 1, 10_000_000_000);
  expect(statSync(file).mtimeMs).toBe(10_000_000_000_000);
  symlinkSync("x", server.path("times-link"));
  lutimesSync(server.path("times-link"), 5, 6);
  expect(lstatSync(server.path("times-link")).mtimeMs).toBe(6000);
});

test("devices, fifos and modes with the umask arrive as asked", () => {
  const script = `umask 027; mkfifo f; mknod c c 300 70000; mkdir dd; touch ff; chmod u+s ff
    stat -c '%n %A %t %T' f c dd ff`;
  const text = execFileSync("sh", ["-c", script], { cwd: server.target, encoding: "utf8" });
  expect(text.trim().split("\n")).toEqual([
    "f prw-r----- 0 0",
    "c crw-r----- 12c 11170",
    "dd drwxr-x--- 0 0",
    "ff -rwSr----- 0 0",
  ]);
});

test("a write by another user clears the set-user-ID bit", () => {
  const file = server.path("suid");
  writeFileSync(file, "");
  execFileSync("chmod", ["4777", file]);
  execFileSync("chown", ["nobody", file]);
  execFileSync("chmod", ["4777", file]);
  execFileSync("setpriv", ["--reuid=1234", "--clear-groups", "sh", "-c", `echo x > ${file}`]);
  expect(statSync(file).mode & 0o7777).toBe(0o777);
});

test("extended attributes are set, read, listed and removed", () => {
  const file = toBytes(server.path("attributed"));
  writeFileSync(server.path("attributed"), "");
  const value = Buffer.from([0, 1, 2, 255]);
  expect(sys.setxattrat(AT_FDCWD, file, toBytes("user.one"), value, 0)).toBe(0);
  expect(sys.setxattrat(AT_FDCWD, file, toBytes("user.empty"), Buffer.alloc(0), 0)).toBe(0);
  expect(sys.setxattrat(AT_FDCWD, file, toBytes("user.one"), value, 1)).toBe(-EEXIST);
  const big = Buffer.alloc(60_000, 3);
  expect(sys.setxattrat(AT_FDCWD, file, toBytes("user.big"), big, 0)).toBe(0);
  expect(sys.getxattrat(AT_FDCWD, file, toBytes("user.one"))).toEqual(value);
  expect(sys.getxattrat(AT_FDCWD, file, toBytes("user.empty"))).toEqual(Buffer.alloc(0));
  expect(sys.getxattrat(AT_FDCWD, file, toBytes("user.big"))).toEqual(big);
  expect(sys.listxattrat(AT_FDCWD, file)).toEqual(Buffer.from("user.one\0user.empty\0user.big\0"));
  expect(sys.removexattrat(AT_FDCWD, file, toBytes("user.one"))).toBe(0);
  expect(sys.getxattrat(AT_FDCWD, file, toBytes("user.one"))).toBe(-ENODATA);
});

test("POSIX ACLs count: the kernel asks for them and lets in whom they name", () => {
  const file = server.path("acl");
  // The group bits are the ACL's mask, and without them the kernel does not look at the ACL.
  writeFileSync(file, "secret", { mode: 0o640 });
  const readAsUser = () =>
    spawnSync("setpriv", ["--reuid=1234", "--regid=1234", "--clear-groups", "cat", file]).status;
  expect(readAsUser()).not.toBe(0);
  // Version 2; then tag, permissions, id: owner rw, user 1234 r, group -, mask r, others -.
  const acl = Buffer.alloc(4 + 5 * 8);
  acl.writeUInt32LE(2);
  const entries = [
    [0x01, 6, 0xffffffff],
    [0x02, 4, 1234],
    [0x04, 0, 0xffffffff],
    [0x10, 4, 0xffffffff],
    [0x20, 0, 0xffffffff],
  ] as const;
  for (const [i, [tag, permissions, id]] of entries.entries()) {
    acl.writeUInt16LE(tag, 4 + i * 8);
    acl.writeUInt16LE(permissions, 6 + i * 8);
    acl.writeUInt32LE(id, 8 + i * 8);
  }
  const name = toBytes("system.posix_acl_access");
  expect(sys.setxattrat(AT_FDCWD, toBytes(file), name, acl, 0)).toBe(0);
  expect(readAsUser()).toBe(0);
});

test("fallocate, holes and copy_file_range work without an open", () => {
  const fd = openSync(server.path("sparse"), "w+");
  expect(sys.fallocate(fd, 0, 0, 65_536)).toBe(0);
  writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 16_384);
  expect(sys.lseek(fd, 0, 3)).toBe(16_384);
  expect(sys.lseek(fd, 16_384, 4)).toBe(20_480);
  expect(sys.lseek(fd, 30_000, 3)).toBe(-ENXIO);
  const copy = openSync(server.path("sparse-copy"), "w+");
  expect(sys.copyFileRange(fd, 0, copy, 0, 1 << 30)).toBe(65_536);
  expect(sys.fallocate(fd, 3, 16_384, 4096)).toBe(0);
  expect(readFileSync(server.path("sparse")).every((byte) => byte === 0)).toBe(true);
  expect(readFileSync(server.path("sparse-copy"))[16_384]).toBe(1);
  ftruncateSync(fd, 100);
  expect(statSync(server.path("sparse")).size).toBe(100);
  closeSync(copy);
  closeSync(fd);
});

test("O_TMPFILE gives a file without a name that linkat can name", () => {
  const fd = sys.open(toBytes(server.target), O_TMPFILE | O_RDWR, 0o600);
  expect(fd).toBeGreaterThan(0);
  writeSync(fd, "unnamed");
  const self = toBytes(`/proc/self/fd/${fd}`);
  expect(sys.linkat(AT_FDCWD, self, AT_FDCWD, toBytes(server.path("named")), 0x400)).toBe(0);
  closeSync(fd);
  expect(readFileSync(server.path("named"), "utf8")).toBe("unnamed");
});

test("mappings, shared and private, read and write the file", () => {
  writeFileSync(server.path("mapped"), Buffer.alloc(8192, 65));
  const script = `
import mmap, os
fd = os.open("${server.path("mapped")}", os.O_RDWR)
shared = mmap.mmap(fd, 8192)
private = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
shared[4096:4100] = b"WXYZ"
assert private[4096:4100] == b"WXYZ"
private[0:4] = b"nope"
shared.flush()
os.fsync(fd)
assert os.pread(fd, 4, 0) == b"AAAA"
assert os.pread(fd, 4, 4096) == b"WXYZ"
`;
  execFileSync("python3", ["-c", script]);
  expect(readFileSync(server.path("mapped")).subarray(4096, 4100).toString()).toBe("WXYZ");
});

test("a program runs from the mount, and locks work", () => {
  execFileSync("cp", ["/bin/true", server.path("program")]);
  execFileSync(server.path("program"));
  writeFileSync(server.path("lock"), "");
  const script = `flock -n ${server.path("lock")} sh -c '! flock -n ${server.path("lock")} true'`;
  execFileSync("sh", ["-c", script]);
});

test("statfs reports what the file system says", () => {
  const statistics = statfsSync(server.target);
  expect(statistics).toMatchObject({ bsize: 4096, blocks: 1000, bfree: 600, bavail: 500 });
});

test("an ioctl that nobody knows gets ENOTTY", () => {
  writeFileSync(server.path("ioctl"), "");
  const script = `import fcntl
try:
    fcntl.ioctl(open("${server.path("ioctl")}"), 0x5401, bytes(64))
except OSError as e:
    assert e.errno == ${ENOTTY}, e.errno
else:
    raise SystemExit("no error")`;
  execFileSync("python3", ["-c", script]);
});

test("fsync and fdatasync reach the file system", async () => {
  const fd = openSync(server.path("synced"), "w");
  writeSync(fd, "x");
  fsyncSync(fd);
  writeSync(fd, "y");
  fdatasyncSync(fd);
  closeSync(fd);
  const { calls } = await server.report();
  expect(calls.fsync).toBeGreaterThan(0);
  expect(calls.fdatasync).toBeGreaterThan(0);
});

test("absence is cached: a second look at a missing name asks nobody", async () => {
  const missing = server.path("missing");
  await asksNobody(() => expect(errorCode(() => statSync(missing))).toBe("ENOENT"), ["lookup"]);
});

test("attributes are cached: a second look at a file asks nobody", async () => {
  const file = server.path("looked-at");
  writeFileSync(file, "");
  await asksNobody(() => statSync(file), ["lookup", "getattr"]);
});

test("a listing brings the attributes along: no lookup, no getattr for each name", async () => {
  mkdirSync(server.path("warm"));
  for (let i = 0; i < 50; i++) writeFileSync(server.path("warm", `${i}`), "");
  const look = () => {
    execFileSync("sh", ["-c", "echo 2 > /proc/sys/vm/drop_caches"]);
    for (const name of readdirSync(server.path("warm"))) statSync(server.path("warm", name));
  };
  // The way to the directory itself is looked up.
  await asksNobody(look, ["lookup", "getattr"], 5);
});

test("opening a directory read-only gives a descriptor that lists", () => {
  const fd = sys.open(toBytes(server.target), O_RDONLY, 0);
  const listing = sys.readDirectory(fd);
  expect(typeof listing).toBe("object");
  closeSync(fd);
});

test("the kernel never asked for a node that it did not hold", async () => {
  const { violations } = await server.report();
  expect(violations).toEqual([]);
  expect((await server.events()).warnings).toEqual([]);
});
