/** What must hold of file data however it gets to programs: cached or by passthrough. */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { KERNEL_IS_RECENT } from "../../tools/kernel.js";
import { shell, ViewBench } from "./view-bench.js";

const CONTENT = `
  mkdir bin data; cp /bin/cat /bin/sleep bin; cp /bin/cat bin/same; ln bin/same bin/other
  head -c 300000 /dev/urandom >data/blob; cp data/blob data/log; echo small >data/small
  truncate -s 64M data/hole; head -c 100000 /dev/urandom >data/second`;

/** What a Python script prints in `cwd`. */
function python(cwd: string, script: string): string {
  return shell(cwd, `python3 - <<'PYTHON'\nimport mmap, os, random, stat\n${script}\nPYTHON`);
}

const checksums = (directory: string) => shell(directory, "sha256sum data/* bin/*");

/** Random work on a few files through many descriptors; prints all that it sees. */
const randomWork = (seed: number) => `
r = random.Random(${seed})
files = ["data/blob", "data/second", "bin/cat", "bin/same", "bin/other", "data/made", "data/small"]
fds = []
def attempt(what, *given):
    try: return what(*given)
    except OSError as e: return e.errno
def summary(data): return (len(data), sum(data[::997])) if isinstance(data, bytes) else data
def map_write(fd):
    size = os.fstat(fd).st_size
    if size == 0: return 0
    at = r.randrange(size)
    with mmap.mmap(fd, size) as m:
        m[at] = r.randrange(256)
        return m[at // 2]
for step in range(250):
    what = r.randrange(13)
    name = r.choice(files)
    fd, path = r.choice(fds) if fds else (-1, "")
    at, length = r.randrange(320000), r.randrange(1, 9000)
    if what <= 3 and len(fds) < 12:
        flags = r.choice([os.O_RDONLY, os.O_NOFOLLOW, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_TRUNC])
        got = attempt(os.open, name, flags, 0o755)
        fds.append((got, name)); got = "opened"
    elif what == 4 and fds: fds.remove((fd, path)); got = os.close(fd)
    elif what in (5, 6): got = summary(attempt(os.pread, fd, length * 8, at))
    elif what == 7: got = attempt(os.pwrite, fd, bytes([step % 256]) * length, at)
    elif what == 8: got = attempt(os.write, fd, bytes([step % 256]) * 100)
    elif what == 9: got = attempt(map_write, fd) if fds and path.startswith("data") else 0
    elif what == 10: got = attempt(os.truncate, name, at)
    elif what == 11: got = attempt(lambda: (lambda s: (s.st_size, s.st_nlink, oct(s.st_mode)))(os.stat(name)))
    else: got = attempt(lambda: os.fstat(fd).st_size)
    print(step, what, name, path, got)
for name in files: print(name, attempt(lambda: summary(open(name, "rb").read())))
`;

describe.each(["cached", "passthrough"] as const)("in %s mode", (io) => {
  let bench: ViewBench;
  let plain: string;
  let original: string;
  beforeEach(() => {
    bench = new ViewBench(io);
    const layer = bench.addLayer(CONTENT);
    plain = join(bench.path, "plain");
    execFileSync("cp", ["-a", layer, plain]);
    original = checksums(layer);
  });
  afterEach(async () => {
    try {
      expect(bench.warnings).toEqual([]);
      // Whatever was opened and mapped for writing: layers are shared by all views.
      expect(checksums(bench.layerDirs[0]!)).toBe(original);
    } finally {
      await bench.dispose();
    }
  });
  /** Runs the script in the view and in a plain copy: both print the same, and something. */
  async function bothPrint(script: string): Promise<void> {
    const view = await bench.mount();
    const expected = python(plain, script);
    expect(python(view, script)).toBe(expected);
    expect(expected).not.toBe("");
  }

  it.each([
    ["data/log", "O_RDONLY"],
    ["bin/cat", "O_RDONLY"],
    ["bin/other", "O_RDONLY"],
    ["data/hole", "O_RDONLY"],
    ["bin/cat", "O_NOFOLLOW"],
  ])(
    "a descriptor of %s (%s) that was opened before copy-up reads what is written after it",
    (name, flag) =>
      bothPrint(`
name = "${name}"
before = os.open(name, os.${flag})
os.pread(before, 4096, 0)
open(name, "ab").write(b"appended")
w = os.open(name, os.O_RDWR)
os.pwrite(w, b"CHANGED", 3)
print(os.pread(before, 12, 0)[3:10], os.fstat(before).st_size == os.stat(name).st_size)
print(os.lseek(before, -8, os.SEEK_END) > 0, os.read(before, 100))
os.truncate(name, 5)
print(os.pread(before, 100, 0)[3:], os.fstat(before).st_size, os.fstat(w).st_size, os.stat(name).st_size)
os.pwrite(w, b"again", 5); os.fchmod(before, 0o640)
print(os.pread(before, 100, 0)[3:], oct(os.stat(name).st_mode), oct(os.fstat(w).st_mode))
os.unlink(name)
print(os.pread(before, 100, 0)[3:], os.fstat(before).st_nlink == os.fstat(w).st_nlink)`),
  );

  it("a mapping of a data file from before copy-up shows what is written after it", () =>
    bothPrint(`
a = os.open("data/log", os.O_RDONLY)
m = mmap.mmap(a, 0, prot=mmap.PROT_READ)
m[0]
w = os.open("data/log", os.O_RDWR)
os.pwrite(w, b"CHANGED", 4096)
print(m[4096:4103])
n = mmap.mmap(w, 0)
n[9000:9003] = b"abc"
print(m[9000:9003], os.pread(a, 3, 9000), os.pread(w, 3, 9000))`));

  it("reads, writes, mappings and truncations through many descriptors agree", async () => {
    const view = await bench.mount();
    for (const seed of [1, 2, 3]) {
      expect(python(view, randomWork(seed))).toBe(python(plain, randomWork(seed)));
    }
  });

  it("sizes and times tell of every write, through mappings too", () =>
    bothPrint(`
def changed(name, work):
    os.utime(name, (1, 1)); before = os.stat(name)
    work(); after = os.stat(name)
    return after.st_mtime > 1, after.st_ctime >= before.st_ctime, after.st_size
fd = os.open("data/blob", os.O_RDWR)
os.stat("data/blob")
print(changed("data/blob", lambda: os.pwrite(fd, b"x", 400000)))
def through_mapping():
    with mmap.mmap(fd, 0) as m:
        m[7] = 1; m.flush()
print(changed("data/blob", through_mapping))
m = mmap.mmap(fd, 0)
os.close(fd)
def later():
    m[8192] = 1; m.flush()
print(changed("data/blob", later))
print(changed("data/small", lambda: open("data/small", "a").write("more")))
new = os.open("new", os.O_RDWR | os.O_CREAT, 0o644)
os.write(new, b"12345"); os.stat("new")
print(changed("new", lambda: os.write(new, b"6789")))
print(changed("new", lambda: os.ftruncate(new, 3)), os.pread(new, 10, 0))`));

  it("a program that somebody else has changed, in whichever way, runs without its owner's rights", async () => {
    const script = `
import ctypes, shutil, sys
libc = ctypes.CDLL(None)
def user(work, *given):
    sys.stdout.flush()
    if os.fork() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        work(*given); os._exit(0)
    os.wait()
def give(): os.chmod("prog", 0o6777); print(oct(os.stat("prog").st_mode))
def run(change, is_later):
    shutil.copy("/usr/bin/id", "prog"); os.chmod("prog", 0o777)
    if not is_later: give()
    fd = os.open("prog", os.O_RDWR)
    if is_later: give()
    user(change, fd, os.fstat(fd).st_size)
    os.close(fd)
    user(os.execv, "./prog", ["prog"])
    print(oct(os.stat("prog").st_mode), os.stat("prog").st_size)
    os.unlink("prog")
shutil.copy("/usr/bin/id", "data/source"); source = os.open("data/source", os.O_RDONLY)
for change in (lambda fd, size: os.pwrite(fd, b"x", size),
               lambda fd, size: os.ftruncate(fd, size + 1),
               lambda fd, size: libc.fallocate(fd, 1, ctypes.c_long(0), ctypes.c_long(1 << 20)),
               lambda fd, size: os.copy_file_range(source, fd, 64, 0, 0)):
    run(change, False); run(change, True)
`;
    const view = await bench.mount();
    const expected = python(plain, script);
    expect(python(view, script)).toBe(expected);
    const once = "0o106777\nuid=65534\\(nobody\\) gid=65534\\S*( groups=\\S*)?\n0o100777 [0-9]+\n";
    expect(expected).toMatch(new RegExp(`^(${once}){8}$`));
  });

  it("a running program cannot be written to, and runs as it was when its file is replaced", () =>
    bothPrint(`
import subprocess, errno
p = subprocess.Popen(["bin/sleep", "30"])
while os.readlink(f"/proc/{p.pid}/exe").find("sleep") < 0: pass
try: os.open("bin/sleep", os.O_WRONLY)
except OSError as e: print(errno.errorcode[e.errno])
os.rename("bin/cat", "bin/sleep")
print(p.poll()); p.kill(); p.wait()
open("bin/same", "ab").write(b"x")
print(subprocess.run(["bin/other", "data/small"], capture_output=True).stdout)`));

  it("O_DIRECT, O_APPEND, O_SYNC and unlinked files work as on the disk", () =>
    bothPrint(`
page = mmap.mmap(-1, 8192); page[0:8192] = b"d" * 8192
fd = os.open("data/blob", os.O_RDWR | os.O_DIRECT)
print(os.pwritev(fd, [page], 4096), os.preadv(fd, [page], 0) > 0)
print(open("data/blob", "rb").read()[4096:4100])
a, b = os.open("data/log", os.O_WRONLY | os.O_APPEND), os.open("data/log", os.O_WRONLY | os.O_APPEND | os.O_SYNC)
os.write(a, b"one"); os.write(b, b"two"); os.write(a, b"three")
print(open("data/log", "rb").read()[-11:])
os.unlink("data/blob"); os.unlink("data/log")
print(os.pwrite(fd, page, 0), os.fstat(fd).st_nlink, os.pread(os.open("data/second", os.O_RDWR), 0, 0))
t = os.open("data", os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(t, b"unnamed"); print(os.pread(t, 100, 0))
os.ftruncate(t, 2); print(os.fstat(t).st_size, os.pread(t, 100, 0))`));

  it("truncating a large file of the image at open copies nothing", async () => {
    const view = await bench.mount();
    shell(view, "echo new >data/hole; cat data/hole; stat -c %s data/hole");
    expect(readFileSync(join(bench.upperDir, "data/hole"), "utf8")).toBe("new\n");
  });

  it("more files are open, and were opened, than are kept ready", async () => {
    const view = await bench.mount();
    const script = `
for i in range(900): open(f"data/n{i}", "w").write(str(i))
fds = [os.open(f"data/n{i}", os.O_RDWR) for i in range(900)]
for i in range(900): os.pwrite(fds[i], b"#", 0)
print(sum(len(open(f"data/n{i}").read()) for i in range(900)))
for fd in fds: os.close(fd)
print(sum(len(open(f"data/n{i}").read()) for i in range(900)))`;
    expect(python(view, script)).toBe(python(plain, script));
  });

  it("an unlinked file gives its space back once it is closed", async () => {
    const disk = join(bench.path, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", disk]);
    bench.useDisk(disk);
    const view = await bench.mount();
    python(view, `f = open("big", "wb"); f.write(b"x" * (40 << 20)); f.flush(); os.unlink("big")`);
    // FORGET follows the last close without anybody waiting for it.
    const free = () => statfsSync(disk).bavail * statfsSync(disk).bsize;
    while (free() < 50 << 20) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});

describe.runIf(KERNEL_IS_RECENT)("passthrough", () => {
  let bench: ViewBench;
  beforeEach(() => {
    bench = new ViewBench("passthrough");
  });
  afterEach(() => bench.dispose());

  it("is what a view falls back from, once and aloud, when its disk cannot take part", async () => {
    bench.addLayer(CONTENT);
    const disk = join(bench.path, "disk");
    shell(
      bench.path,
      "mkdir disk stack stack/{low,up,work}; mount -t overlay o -o lowerdir=stack/low,upperdir=stack/up,workdir=stack/work disk",
    );
    bench.useDisk(disk);
    const view = await bench.mount();
    copyFileSync(join(view, "data/blob"), join(view, "copy"));
    expect(shell(view, "echo x >>data/small; cat data/small; cmp copy data/blob")).toBe(
      "small\nx\n",
    );
    await bench.unmount();
    expect(bench.warnings).toHaveLength(1);
    expect(bench.warnings[0]).toContain("ELOOP");
  });

  it("reads the very pages that the layer's file has on the host", async () => {
    const layer = bench.addLayer("head -c 8388608 /dev/urandom >model; cp /usr/bin/python3 python");
    const view = await bench.mount(true);
    shell(view, "cat model >/dev/null");
    const script = (name: string) => `
f = os.open("${name}", os.O_RDONLY); m = mmap.mmap(f, 0, prot=mmap.PROT_READ)
sum(m[::4096])
print(sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Pss_File")))`;
    const hold = `
import subprocess, sys
f = os.open("${join(layer, "model")}", os.O_RDONLY); m = mmap.mmap(f, 0, prot=mmap.PROT_READ); sum(m[::4096])
`;
    const alone = Number(python(view, script("model")));
    const shared = Number(
      python(
        view,
        `${hold}print(subprocess.run([sys.executable, "-c", '''import mmap, os${script("model")}'''], capture_output=True, text=True, check=True).stdout)`,
      ),
    );
    expect(alone - shared).toBeGreaterThan(3000);
  });
});
