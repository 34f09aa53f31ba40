/**
 * What programs may expect of a file system, line by line (docs/file-system.md has the list): the view
 * and a plain directory of the disk must answer the same scripts alike.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { python } from "./python.js";
import { BENCH_MODES, shell, ViewBench } from "./view-bench.js";

const CONTENT = `
  mkdir -p d/sub/deep e many mine swap/dir/sub; seq 9 >swap/file; echo of-the-image >d/file; seq 3000 >d/lines; cp /bin/true d/program
  for i in $(seq 40); do echo $i >many/f$i; done; ln d/file d/other; ln -s file d/link; ln -s loop d/loop
  mkfifo d/fifo; mknod d/zero c 1 5; setfattr -n user.k -v v d/file d/sub; setfattr -n trusted.t -v w d/file
  setcap cap_chown=ep d/program; setfacl -m u:7:rwx d/lines; setfacl -d -m u:7:rwx mine
  chown 65534:65534 mine e; chmod 1777 many; chmod 6755 e`;

const MORE = `
import mmap, signal, socket, stat, time
def user(work):
    sys.stdout.flush()
    if os.fork() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        work(); sys.stdout.flush(); os._exit(0)
    os.wait()
`;

describe.each(BENCH_MODES)("a view (%s) as the disk", (io) => {
  let bench: ViewBench;
  let view: string;
  let plain: string;
  beforeAll(async () => {
    bench = new ViewBench(io);
    bench.addLayer(CONTENT);
    plain = join(bench.path, "plain");
    mkdirSync(plain);
    shell(plain, CONTENT);
    view = await bench.mount();
  });
  afterAll(async () => {
    expect(bench.warnings).toEqual([]);
    await bench.dispose();
  });

  /** Runs the script in both; both must print the same, and something. */
  function bothPrint(script: string): string {
    const expected = python(plain, MORE + script);
    expect(python(view, MORE + script)).toBe(expected);
    expect(expected).not.toBe("");
    return expected;
  }

  it("renames without replacing, exchanges, and leaves a whiteout, files and directories alike", () => {
    bothPrint(`
def move(a, b, flags):
    done = libc.renameat2(-100, a.encode(), -100, b.encode(), flags)
    return done and errno.errorcode[ctypes.get_errno()]
for d in ("r", "r/x", "r/y"): os.mkdir(d)
open("r/f", "w").write("f"); open("r/x/in", "w")
for a, b, flags in (("r/f", "d/file", 1), ("r/f", "r/new", 1), ("r/new", "swap/file", 2), ("r/x", "swap/dir", 2),
                    ("swap/dir", "r/new", 2), ("swap/dir", "r/none", 2), ("r/x", "r/x/in", 2), ("r/y", "swap/dir", 0),
                    ("r/new", "r/moved", 4), ("many/f1", "many/g1", 4), ("r/x", "r/f", 3), ("r/x", "r/f", 8)):
    print(a, b, flags, move(a, b, flags))
def kind(p): s = os.lstat(p); return p, oct(s.st_mode), s.st_rdev, s.st_nlink
print([kind(os.path.join(d, n)) for d in ("r", "r/x", "swap", "swap/dir") if os.path.isdir(d) for n in sorted(os.listdir(d))])
print([kind("many/f1"), attempt(os.open, "many/f1", os.O_RDONLY), sorted(os.listdir("many"))[:3]])
os.unlink("many/f1"); print(attempt(os.lstat, "many/f1"))
`);
  });

  it("has fifos, devices and sockets that work, of the image and new ones", () => {
    bothPrint(`
os.mkfifo("e/fifo"); os.mknod("e/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
for name in ("d/fifo", "e/fifo"):
    if os.fork() == 0:
        open(name, "w").write("through " + name); os._exit(0)
    print(open(name).read()); os.wait()
print(open("d/zero", "rb").read(4), open("e/null", "w").write("gone"), open("e/null").read())
server = socket.socket(socket.AF_UNIX); server.bind("e/socket"); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect("e/socket"); client.send(b"hello")
print(server.accept()[0].recv(9), oct(os.stat("e/socket").st_mode), attempt(os.open, "e/socket", os.O_RDONLY))
os.rename("e/socket", "d/moved"); print(attempt(socket.socket(socket.AF_UNIX).connect, "d/moved"))
os.rename("d/fifo", "d/fifo2"); print(oct(os.stat("d/fifo2").st_mode), attempt(os.mknod, "d/fifo2", stat.S_IFIFO))
user(lambda: print(attempt(os.mknod, "many/x", stat.S_IFCHR | 0o666, os.makedev(1, 3))))
`);
  });

  it("keeps attributes of every kind through copy-up, and refuses what the disk refuses", () => {
    bothPrint(`
def show(p): return p, sorted((n, os.getxattr(p, n)) for n in os.listxattr(p))
for p in ("d/file", "d/program", "d/lines", "d/sub", "mine"): print(show(p))
os.chmod("d/program", 0o700); os.chmod("d/lines", 0o640); os.utime("d/sub"); os.setxattr("d/file", "user.n", b"new")
for p in ("d/file", "d/other", "d/program", "d/lines", "d/sub"): print(show(p))
open("d/program", "ab").write(b"x"); print(show("d/program"))
print([attempt(*c) for c in (
    (os.setxattr, "d/file", "user.k", b"z", os.XATTR_CREATE), (os.setxattr, "d/file", "user.z", b"z", os.XATTR_REPLACE),
    (lambda: os.setxattr("d/link", "user.k", b"z", follow_symlinks=False),), (os.setxattr, "d/file", "user." + "n" * 251, b""),
    (os.setxattr, "d/file", "user.", b""), (os.setxattr, "d/file", "none.k", b""), (os.removexattr, "d/file", "user.none"),
    (os.setxattr, "d/zero", "user.k", b"z"), (os.setxattr, "d/file", "system.posix_acl_access", b"bad"),
    (os.setxattr, "d/file", "user.big", b"x" * 65537), (os.removexattr, "d/file", "user.k"), (os.getxattr, "d/file", "user.k"))])
os.chmod("d/lines", 0o777); print(show("d/lines"))
user(lambda: (open("mine/f", "w").close(), os.mkdir("mine/d"), print(show("mine/f"), show("mine/d"),
    attempt(os.setxattr, "d/file", "user.k", b"z"), attempt(os.setxattr, "mine/f", "trusted.k", b"z"))))
`);
  });

  it("changes the times that the disk changes, and no others", () => {
    bothPrint(`
os.mkdir("t"); os.mkdir("t/a"); os.mkdir("t/b")
open("t/a/f", "w").write("x" * 100); open("t/a/g", "w").write("y"); os.mkdir("t/a/dir")
watched = ["t/a", "t/b", "t/a/f", "t/a/g", "t/a/dir", "t/b/f", "d/lines", "d", "d/program", "d/sub"]
def look():
    seen = {}
    for p in watched:
        if os.path.lexists(p): s = os.lstat(p); seen[p] = (s.st_mtime_ns, s.st_ctime_ns)
    return seen
def changed(what, work):
    for p in watched:
        if os.path.lexists(p): os.utime(p, ns=(1, 1))
    before = look(); time.sleep(0.02)
    result = attempt(work); after = look()
    print(what, result, [(p, *(b != a for b, a in zip(before[p], after[p]))) for p in watched if p in before and p in after and before[p] != after[p]])
fd = os.open("t/a/f", os.O_RDWR)
changed("create", lambda: open("t/a/new", "w").close())
changed("link", lambda: os.link("t/a/f", "t/b/f"))
changed("unlink one", lambda: os.unlink("t/b/f"))
changed("unlink", lambda: os.unlink("t/a/new"))
changed("mkdir", lambda: os.mkdir("t/a/dir/x"))
changed("rmdir", lambda: os.rmdir("t/a/dir/x"))
changed("symlink", lambda: os.symlink("x", "t/b/s"))
changed("rename", lambda: os.rename("t/a/g", "t/b/g"))
changed("rename over", lambda: os.rename("t/b/g", "t/b/s"))
changed("rename directory", lambda: os.rename("t/a/dir", "t/b/dir"))
os.rename("t/b/dir", "t/a/dir")
changed("chmod", lambda: os.chmod("t/a/f", 0o600))
changed("chown to the same", lambda: os.chown("t/a/f", 0, 0))
changed("write", lambda: os.pwrite(fd, b"z", 0))
changed("write nothing", lambda: os.pwrite(fd, b"", 0))
changed("read", lambda: os.pread(fd, 9, 0))
changed("truncate to the same", lambda: os.ftruncate(fd, 100))
changed("truncate", lambda: os.truncate("t/a/f", 50))
changed("open with O_TRUNC", lambda: os.close(os.open("t/a/f", os.O_WRONLY | os.O_TRUNC)))
changed("fallocate", lambda: os.posix_fallocate(fd, 0, 9000))
changed("setxattr", lambda: os.setxattr("t/a/f", "user.k", b"v"))
changed("removexattr", lambda: os.removexattr("t/a/f", "user.k"))
changed("chmod of the image's", lambda: os.chmod("d/lines", 0o600))
changed("write to the image's", lambda: open("d/lines", "a").write("more"))
changed("create in the image's", lambda: open("d/sub/new", "w").close())
changed("rename in the image's", lambda: os.rename("d/lines", "d/sub/lines"))
os.rename("d/sub/lines", "d/lines")
changed("failed mkdir", lambda: os.mkdir("t/a"))
`);
  });

  it("opens as asked: appending, truncating, exclusively, by path only, without a name", () => {
    bothPrint(`
a, b = os.open("e/log", os.O_CREAT | os.O_APPEND | os.O_WRONLY), os.open("e/log", os.O_APPEND | os.O_RDWR)
os.write(a, b"one"); os.write(b, b"two"); os.pwrite(a, b"!", 0); os.write(a, b"three"); print(os.pread(b, 99, 0))
print([attempt(os.open, *c) for c in (("d/file", os.O_CREAT | os.O_EXCL), ("d/link", os.O_NOFOLLOW), ("d/loop", os.O_RDONLY),
    ("d/file", os.O_DIRECTORY), ("d", os.O_RDWR), ("d", os.O_CREAT), ("none/x", os.O_CREAT), ("d/none", os.O_RDONLY), ("e/log/x", os.O_CREAT))])
p = os.open("d/file", os.O_PATH); print(attempt(os.read, p, 1), os.fstat(p).st_size, open("/proc/self/fd/%d" % p).read())
w = os.open("/proc/self/fd/%d" % p, os.O_WRONLY | os.O_TRUNC); os.write(w, b"again"); print(open("d/other").read())
t = os.open("e", os.O_TMPFILE | os.O_RDWR, 0o640); os.write(t, b"hidden"); print(os.fstat(t).st_nlink, os.listdir("e").count("named"))
def name(fd, p): return libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, p, 0x400) and errno.errorcode[ctypes.get_errno()]
print(name(t, b"e/named")); print(open("e/named").read(), os.fstat(t).st_nlink)
x = os.open("e", os.O_TMPFILE | os.O_RDWR | os.O_EXCL); print(name(x, b"e/never"))
user(lambda: print([attempt(os.open, *c) for c in (("d/file", os.O_WRONLY), ("e/log", os.O_RDONLY | os.O_NOATIME), ("d/new", os.O_CREAT), ("many/new", os.O_CREAT | os.O_WRONLY))][:3]))
`);
  });

  it("maps files, shared and privately, to their end and no further", () => {
    bothPrint(`
fd = os.open("d/lines", os.O_RDWR); size = os.fstat(fd).st_size
shared, private = mmap.mmap(fd, size), mmap.mmap(fd, size, mmap.MAP_PRIVATE)
if os.fork() == 0:
    shared[0:3] = b"ABC"; private[4:7] = b"xyz"; os._exit(0)
os.wait(); print(shared[0:8], private[4:7], os.pread(fd, 8, 0))
private[0:1] = b"P"; os.pwrite(fd, b"Q", 0); print(private[0:1], shared[0:1])
def beyond():
    os.ftruncate(fd, 10); return shared[8192]
if os.fork() == 0:
    beyond(); os._exit(0)
print(signal.Signals(os.WTERMSIG(os.wait()[1])).name, os.fstat(fd).st_size)
os.ftruncate(fd, size); print(shared[0:12], shared[8192:8195])
print(attempt(lambda: mmap.mmap(os.open("d/lines", os.O_RDONLY), 100, mmap.MAP_SHARED, mmap.PROT_WRITE)))
shared.flush(); print(libc.msync(None, 0, 4), os.fsync(fd))
`);
  });

  it("flushes files, directories and the file system, however they were opened", () => {
    bothPrint(`
for name, flags in (("d/file", os.O_RDONLY), ("d/file", os.O_RDWR), ("d", os.O_RDONLY), ("e", os.O_RDONLY), ("d/fifo2", os.O_RDWR)):
    fd = attempt(os.open, name, flags)
    print(name, attempt(os.fsync, fd), attempt(os.fdatasync, fd), libc.syncfs(fd)) if isinstance(fd, int) else print(name, fd)
print(attempt(os.fsync, os.open("d/file", os.O_PATH)), os.sync())
`);
  });

  it("shows permissions, sticky directories and set-id bits as they count for others", () => {
    bothPrint(`
os.chmod("many", 0o1777); open("many/root", "w").close(); os.chown("many/f3", 65534, 65534)
def work():
    print([attempt(*c) for c in ((os.unlink, "many/root"), (os.rename, "many/root", "many/x"), (os.unlink, "many/f3"),
        (os.chmod, "d/file", 0o777), (os.chown, "mine", 0, 0), (os.mkdir, "d/x"), (os.utime, "d/file"), (os.truncate, "d/file", 0),
        (os.link, "d/file", "many/mine"), (lambda: sorted(os.listdir("e")),), (os.rmdir, "mine"))])
    open("mine/own", "w").close(); os.chmod("mine/own", 0o6777); print(oct(os.stat("mine/own").st_mode))
    print([os.access("d/file", m) for m in (os.R_OK, os.W_OK, os.X_OK)])
user(work)
open("e/s", "w").close(); os.chmod("e/s", 0o6755); os.chown("e/s", 5, 5); print(oct(os.stat("e/s").st_mode))
os.chmod("e/s", 0o2644); os.chown("e/s", 6, 6); print(oct(os.stat("e/s").st_mode))
os.mkdir("e/g"); os.chown("e/g", 0, 77); os.chmod("e/g", 0o2775); os.mkdir("e/g/sub"); open("e/g/f", "w").close()
print([(os.stat(p).st_gid, oct(os.stat(p).st_mode)) for p in ("e/g/sub", "e/g/f")])
`);
  });

  it("has one number and the right count of links for each object, whatever happens to it", () => {
    bothPrint(`
def same(p, work):
    before = os.lstat(p).st_ino; q = work() or p
    s = os.lstat(q); listed = {e.name: e.inode() for e in os.scandir(os.path.dirname(q))}
    print(p, q, s.st_ino == before, listed[os.path.basename(q)] == before, s.st_nlink)
same("many/f5", lambda: open("many/f5", "a").write("up") and None)
same("many/f6", lambda: os.chmod("many/f6", 0o600))
same("many/f7", lambda: os.rename("many/f7", "d/f7") or "d/f7")
same("many/f8", lambda: os.link("many/f8", "d/f8") or "d/f8")
same("d/other", lambda: open("d/file", "a").write("link") and None)
same("d/sub", lambda: os.rename("d/sub", "e/sub") or "e/sub")
same("e/sub/deep", lambda: os.mkdir("e/sub/deep/x"))
print([os.stat(p).st_nlink for p in ("d", "e", "e/sub", "e/sub/deep", ".")])
print(os.stat("e/sub/deep/..").st_ino == os.stat("e/sub").st_ino, os.stat("e/sub/..").st_ino == os.stat("e").st_ino)
fd = os.open("many/f9", os.O_RDONLY); os.unlink("many/f9"); print(os.fstat(fd).st_nlink, os.read(fd, 9))
os.mkdir("gone"); here = os.open("gone", os.O_RDONLY); os.rmdir("gone")
print(os.fstat(here).st_nlink, os.listdir(here), attempt(lambda: os.open("x", os.O_CREAT, dir_fd=here)), attempt(lambda: os.mkdir("x", dir_fd=here)))
os.mkdir("gone"); print(os.fstat(here).st_ino != os.stat("gone").st_ino)
`);
  });

  it("seeks in directories, and goes on where somebody was", () => {
    bothPrint(`
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
for f in (libc.readdir, libc.telldir, libc.rewinddir): f.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = libc.opendir(b"many"); marks = []
def name():
    e = libc.readdir(d)
    return e and ctypes.string_at(e + 19)
while True:
    at = libc.telldir(d); n = name()
    if not n: break
    marks.append((at, n))
print(sorted(n for _, n in marks) == sorted(os.fsencode(n) for n in os.listdir("many") + [".", ".."]))
right = True
for at, n in reversed(marks):
    libc.seekdir(d, at); right &= name() == n
for at, n in marks[::3]:
    if n.startswith(b"f"): os.unlink(b"many/" + n)
gone = {n for _, n in marks[::3] if n.startswith(b"f")}
for i, (at, n) in list(enumerate(marks))[1::3]:
    libc.seekdir(d, at); right &= name() == n
libc.rewinddir(d); rest = []
while n := name(): rest.append(n)
print(right, sorted(rest) == sorted(n for _, n in marks if n not in gone))
`);
  });

  it("runs programs and scripts, and says why when it does not", () => {
    bothPrint(`
import shutil, subprocess
shutil.copy("/bin/echo", "e/echo"); open("e/script", "w").write("#!/bin/sh\\necho script $1\\n"); os.chmod("e/script", 0o755)
def run(*c): return subprocess.run(c, capture_output=True).stdout
print(run("e/echo", "hi"), run("e/script", "x"), attempt(run, "d/lines"), attempt(run, "d"), attempt(run, "e/none"))
open("e/empty", "w").close(); os.chmod("e/empty", 0o755); print(attempt(run, "e/empty"))
open("e/bad", "w").write("#!/no/such\\n"); os.chmod("e/bad", 0o755); print(attempt(run, "e/bad"))
fd = os.open("e/echo", os.O_RDONLY); os.unlink("e/echo"); print(run("/proc/self/fd/%d" % fd) if False else os.readlink("/proc/self/fd/%d" % fd)[-9:])
if os.fork() == 0: os.dup2(1, 1); os.execve(fd, ["echo", "unlinked"], {})
os.wait()
`);
  });
});

describe("on a disk that shares blocks between files", () => {
  it("copy-up and copies inside the view take no space", async () => {
    const host = new ViewBench();
    const disk = join(host.path, "disk");
    const before = process.env.TMPDIR;
    let bench: ViewBench | undefined;
    try {
      shell(
        host.path,
        "mkdir disk; truncate -s 400M image; mkfs.xfs -q image; mount -o loop image disk",
      );
      process.env.TMPDIR = disk;
      bench = new ViewBench();
      bench.addLayer("head -c 60M /dev/urandom >large");
      const view = await bench.mount();
      const used = () =>
        Number(shell(disk, "sync -f .; df --output=used -BM . | tail -n 1 | tr -d M"));
      const at = used();
      shell(
        view,
        "printf X | dd of=large bs=1 seek=5 conv=notrunc status=none; cp --reflink=auto large copy",
      );
      expect(used() - at).toBeLessThan(10);
      expect(shell(view, "cmp large copy; head -c 6 large | tail -c 1")).toBe("X");
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
      await bench?.dispose();
      shell(host.path, "umount disk 2>/dev/null || true");
      await host.dispose();
    }
  });
});
