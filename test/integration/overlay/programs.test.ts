/** What real programs do, on a real mount, with and without the kernel losing its caches all the time. */

import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";
import { shell, ViewBench } from "./view-bench.js";

const LAYER = `
  mkdir -p bin data/many log; cp /bin/true bin/true; cp /bin/cat bin/cat
  for i in $(seq 500); do echo $i >data/many/f$i; done
  seq 20000 >log/messages; echo v1 >data/config; chmod 4755 bin/true; chown 1000:1000 data/config
  mkdir -m 1777 tmp; mkdir -m 2775 shared; chown 0:1000 shared
  mkdir -m 777 acl; setfacl -d -m u:1000:rwx,g::rx,o::- acl; truncate -s 3M data/sparse; echo tail >>data/sparse`;

/** Runs Python in the view. Asserts inside fail the test. */
function python(cwd: string, script: string): string {
  const prelude = "import os, mmap, fcntl, errno, ctypes, struct, stat\n";
  return shell(cwd, `python3 - <<'PYTHON'\n${prelude}${script}\nPYTHON`);
}

describe.each([
  ["with its caches", false, "cached"],
  ["while the kernel drops its caches", true, "cached"],
  ["in passthrough while the kernel drops its caches", true, "passthrough"],
] as const)("a view %s", (_name, storm, io) => {
  let bench: ViewBench;
  let view: string;
  let stopStorm: () => Promise<void> = async () => {};
  beforeEach(async () => {
    bench = new ViewBench(io);
    bench.addLayer(LAYER);
    view = await bench.mount();
    if (!storm) return;
    const dropper = spawn("bash", [
      "-c",
      "while echo 2 >/proc/sys/vm/drop_caches; do sleep 0.02; done",
    ]);
    stopStorm = () =>
      new Promise((resolve) => {
        dropper.once("exit", () => resolve());
        dropper.kill("SIGKILL");
      });
  });
  afterEach(async () => {
    await stopStorm();
    stopStorm = async () => {};
    expect(bench.warnings).toEqual([]);
    // Nothing may be left behind in the work directory but the hard-link index.
    await bench.unmount();
    expect(readdirSync(join(bench.workDir, "orphans"))).toEqual([]);
    expect(readdirSync(join(bench.workDir, "tmp"))).toEqual([]);
    await bench.dispose();
  });

  it("keeps unlinked files alive for those who have them open", () => {
    python(
      view,
      `
a = os.open("log/messages", os.O_RDWR)   # of the image
b = os.open("new", os.O_RDWR | os.O_CREAT)
os.write(b, b"new data")
c = os.open("data/config", os.O_RDONLY)
os.unlink("log/messages"); os.unlink("new"); os.rename("log", "data/log")
open("tmp/x", "w").write("x"); os.rename("tmp/x", "data/config")
for f in (a, b, c): assert os.fstat(f).st_nlink == 0, os.fstat(f)
assert os.pread(a, 4, 0) == b"1\\n2\\n"
os.pwrite(a, b"XX", 0)
assert os.pread(a, 4, 0) == b"XX2\\n"
os.ftruncate(a, 1 << 20); os.fchmod(a, 0o600); os.fsync(a)
assert os.pread(b, 99, 0) == b"new data" and os.pread(c, 9, 0) == b"v1\\n"
d = os.open("data/many", os.O_RDONLY | os.O_DIRECTORY)
for n in os.listdir("data/many"): os.unlink("data/many/" + n)
os.rmdir("data/many"); os.fchmod(d, 0o700)
assert os.fstat(d).st_nlink == 0 and os.listdir(d) == []
try: os.open("z", os.O_CREAT, dir_fd=d); assert False
except FileNotFoundError: pass
`,
    );
  });

  it("makes unnamed files and names them later", () => {
    python(
      view,
      `
fd = os.open("data", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b"hidden")
assert os.fstat(fd).st_nlink == 0
libc = ctypes.CDLL(None, use_errno=True)
assert libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"data/shown", 0x400) == 0, ctypes.get_errno()
assert os.fstat(fd).st_nlink == 1 and os.stat("data/shown").st_ino == os.fstat(fd).st_ino
assert open("data/shown").read() == "hidden"
gone = os.open("data", os.O_TMPFILE | os.O_RDWR, 0o600)
`,
    );
    expect(shell(view, "cat data/shown; stat -c %a data/shown")).toBe("hidden640\n");
  });

  it("shows writes through mappings and descriptors to each other, before and after copy-up", () => {
    python(
      view,
      `
r = os.open("log/messages", os.O_RDONLY)
m = mmap.mmap(r, 4096, prot=mmap.PROT_READ)
assert m[:2] == b"1\\n"
w = os.open("log/messages", os.O_RDWR)
os.pwrite(w, b"Z", 0)
assert m[:1] == b"Z" and os.pread(r, 1, 0) == b"Z"
s = mmap.mmap(w, 4096)
s[1:3] = b"YY"; s.flush()
assert os.pread(r, 3, 0) == b"ZYY"
ino = os.fstat(r).st_ino
assert os.stat("log/messages").st_ino == ino
`,
    );
    expect(shell(join(bench.upperDir), "head -c 3 log/messages")).toBe("ZYY");
  });

  it("appends, truncates, excludes and locks", () => {
    python(
      view,
      `
f = os.open("log/messages", os.O_WRONLY | os.O_APPEND)
size = os.fstat(f).st_size
os.write(f, b"end"); assert os.fstat(f).st_size == size + 3
os.open("data/config", os.O_WRONLY | os.O_TRUNC)
assert os.stat("data/config").st_size == 0
try: os.open("data/config", os.O_CREAT | os.O_EXCL); assert False
except FileExistsError: pass
a, b = os.open("bin/cat", os.O_RDONLY), os.open("bin/cat", os.O_RDONLY)
fcntl.flock(a, fcntl.LOCK_EX)
try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB); assert False
except BlockingIOError: pass
`,
    );
  });

  it("keeps holes, punches them and finds them", () => {
    python(
      view,
      `
os.chmod("data/sparse", 0o600)
f = os.open("data/sparse", os.O_RDWR)
os.pwrite(f, b"x", 0)
assert os.fstat(f).st_blocks < 64, os.fstat(f)
assert os.lseek(f, 0, os.SEEK_HOLE) == 4096 and os.lseek(f, 4096, os.SEEK_DATA) >= 3 << 20
os.posix_fallocate(f, 0, 65536)
assert os.fstat(f).st_blocks >= 128
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
assert libc.fallocate(f, 3, 0, 65536) == 0
assert os.fstat(f).st_blocks < 64 and os.pread(f, 1, 0) == b"\\0"
o = os.open("copy", os.O_RDWR | os.O_CREAT)
src = os.open("log/messages", os.O_RDONLY)
assert os.copy_file_range(src, o, 1000) == 1000
assert os.pread(o, 1000, 0) == os.pread(src, 1000, 0)
`,
    );
  });

  it("clears set-id bits when somebody else writes or the owner changes", () => {
    python(
      view,
      `
assert os.stat("bin/true").st_mode & 0o4000
os.chmod("bin/true", 0o4777)
pid = os.fork()
if pid == 0:
    os.setgid(1000); os.setuid(1000)
    f = os.open("bin/true", os.O_WRONLY | os.O_APPEND); os.write(f, b"\\n"); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert not os.stat("bin/true").st_mode & 0o4000
os.chmod("bin/cat", 0o6755); os.chown("bin/cat", 1, 1)
assert not os.stat("bin/cat").st_mode & 0o6000
`,
    );
  });

  it("inherits groups, default ACLs and nothing from the umask where an ACL is", () => {
    python(
      view,
      `
os.umask(0o077)
os.mkdir("shared/d"); open("shared/f", "w")
assert os.stat("shared/d").st_gid == 1000 and os.stat("shared/d").st_mode & 0o2000
assert os.stat("shared/f").st_gid == 1000 and not os.stat("shared/f").st_mode & 0o2000
open("acl/f", "w"); os.mkdir("acl/d")
pid = os.fork()
if pid == 0:
    os.setgid(1000); os.setuid(1000); os.umask(0o077)
    open("acl/mine", "w"); os.mkdir("tmp/d"); open("tmp/f", "w"); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert oct(os.stat("tmp/f").st_mode) == "0o100600" and os.stat("tmp/f").st_uid == 1000
`,
    );
    expect(
      shell(
        view,
        "getfacl -cn acl/f acl/mine | grep user:1000; getfacl -cn acl/d | grep -c ^default",
      ),
    ).toMatch(/^user:1000:rwx.*#effective:rw-\nuser:1000:rwx.*#effective:rw-\n5\n$/);
    expect(shell(view, "stat -c '%a %u' acl/f acl/mine")).toBe("660 0\n660 1000\n");
  });

  it("hands down what a directory was given after the first file was made in it", () => {
    shell(
      view,
      "mkdir late && touch late/a && chgrp 1000 late && chmod g+s late && touch late/b && chmod g-s late && touch late/c && setfacl -d -m u:1000:rwx late && touch late/d && setfacl -k late && touch late/e",
    );
    expect(shell(view, "cd late && stat -c %g a b c d e | xargs")).toBe("0 1000 0 0 0\n");
    expect(
      shell(view, "getfacl -cn late/d | grep -c user:1000; ! getfacl -cn late/e | grep user:1"),
    ).toBe("1\n");
  });

  it("shows the capability that a new file was given after it was written to", () => {
    shell(view, "echo new >data/new && setcap cap_chown=ep data/new");
    expect(shell(view, "getcap data/new")).toContain("cap_chown=ep");
    shell(view, "echo more >>data/new");
    expect(shell(view, "getcap data/new")).toBe("");
  });

  it("goes on reading a directory right while its entries come and go", () => {
    python(
      view,
      `
seen = set()
with os.scandir("data/many") as it:
    for i, e in enumerate(it):
        if e.name.startswith("new"): continue
        assert e.name not in seen; seen.add(e.name)
        os.unlink("data/many/" + e.name)
        open("data/many/new%d" % (i % 7), "w").close()
        if i % 3 == 0: os.unlink("data/many/new%d" % (i % 7))
assert {"f%d" % i for i in range(1, 501)} <= seen, len(seen)
libc = ctypes.CDLL(None)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.readdir.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for i in range(300): open("data/g%d" % i, "w").close()
d = libc.opendir(b"data")
marks = []
def name():
    e = libc.readdir(d)
    return e and ctypes.string_at(e + 19)
while True:
    at = libc.telldir(d); n = name()
    if not n: break
    marks.append((at, n))
for at, n in reversed(marks):
    libc.seekdir(d, at); assert name() == n
`,
    );
  });

  it("takes names of 255 bytes and paths deeper than PATH_MAX", () => {
    python(
      view,
      `
n = b"\\xff" * 255
os.mkdir(n); open(n + b"/" + n, "w").close(); os.unlink(n + b"/" + n); os.rmdir(n)
try: open(b"x" * 256, "w"); assert False
except OSError as e: assert e.errno == errno.ENAMETOOLONG
top = os.open(".", os.O_RDONLY)
os.mkdir("deep")
os.chdir("deep")
for i in range(40): os.mkdir("d" * 200); os.chdir("d" * 200)
open("file", "w").write("down here")
os.fchdir(top)
`,
    );
    expect(
      shell(view, "find deep -name file | wc -c; rm -rf deep; ls -d deep 2>&1 || true"),
    ).toMatch(/^80\d\d\n/);
  });

  it("survives tar, cp -a, rm -rf and rsync of its own tree", () => {
    shell(
      view,
      "mkdir t && tar c --xattrs bin data log shared acl | tar x --xattrs -C t && cp -a t u && rm -rf t/data/many && rsync -aHAX --delete u/ t/ && diff -r u t",
    );
    expect(compareTrees(readTree(join(view, "u")), readTree(join(view, "t")))).toEqual([]);
    shell(view, "rm -rf t u data");
    expect(shell(view, "ls")).toBe("acl\nbin\nlog\nshared\ntmp\n");
  });

  it("runs what was just written or replaced", () => {
    shell(
      view,
      "cp /bin/echo bin/e && bin/e hi && cp bin/e bin/f && mv bin/f bin/true && bin/true yes && printf '#!/bin/sh\\necho s' >s && chmod +x s && ./s",
    );
  });

  it("does many things at once", () => {
    shell(
      view,
      "for j in 1 2 3 4; do (mkdir w$j; for i in $(seq 150); do echo $i >w$j/$i; mv w$j/$i w$j/m$i; ln w$j/m$i w$j/l$i; rm w$j/m$i; done) & done; wait; for j in 1 2 3 4; do [ $(ls w$j | wc -l) = 150 ]; done; rm -rf w*",
    );
  });
});
