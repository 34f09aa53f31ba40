/** What a view promises beyond the usual, each claim checked against the disk's own file system beside it. */

import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";
import { python } from "./python.js";
import { BENCH_MODES, shell, ViewBench } from "./view-bench.js";

const CONTENT = `
  mkdir -p d/sub bin etc; echo of-the-image >d/file; seq 5000 >d/lines; cp /bin/sleep bin/sleep
  for i in $(seq 30); do echo $i >d/sub/f$i; done; echo config >etc/config; ln etc/config etc/same`;

describe.each(BENCH_MODES)("beside a plain copy of the image, a view (%s)", (io) => {
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
    const expected = python(plain, script);
    expect(python(view, script)).toBe(expected);
    expect(expected).not.toBe("");
    return expected;
  }

  it("tells watchers of every change, also those of files that are copied up by it", () => {
    bothPrint(`
w = inotify("d", 0xfff & ~1)
open("d/file", "a").write("more"); print(events(w))
os.chmod("d/lines", 0o600); print(events(w))
open("d/new", "w").close(); os.rename("d/new", "d/newer"); os.unlink("d/newer"); print(events(w))
os.mkdir("d/dir"); os.rmdir("d/dir"); os.unlink("d/sub/f1"); print(events(w))
f = inotify("etc/config", 0xfff & ~1)
open("etc/same", "a").write("by its other name"); print(events(f))
`);
  });

  it("has POSIX locks that other processes and only they meet, range by range", () => {
    const printed = bothPrint(`
a, got = lock("posix", "d/lines", fcntl.F_SETLK, fcntl.F_WRLCK, 10, 10); print(got)
print(lock("posix", "d/lines", fcntl.F_SETLK, fcntl.F_WRLCK, 0, 5)[1])
print(elsewhere(lambda: lock("posix", "d/lines", fcntl.F_SETLK, fcntl.F_RDLCK, 15, 1)[1]))
print(elsewhere(lambda: lock("posix", "d/lines", fcntl.F_SETLK, fcntl.F_RDLCK, 20, 1)[1]))
os.close(os.open("d/lines", os.O_RDONLY))
print(elsewhere(lambda: lock("posix", "d/lines", fcntl.F_SETLK, fcntl.F_RDLCK, 15, 1)[1]))
`);
    expect(printed).toMatch(/EAGAIN|EACCES/);
  });

  it("has locks of open files that survive copy-up and a rename", () => {
    const printed = bothPrint(`
OFD_SETLK = 37
a, got = lock("ofd", "d/file", OFD_SETLK, fcntl.F_WRLCK); print(got)
b, got = lock("ofd", "d/file", OFD_SETLK, fcntl.F_WRLCK); print(got)
os.pwrite(a, b"Z", 0); os.rename("d/file", "d/moved")
print(lock("ofd", "d/moved", OFD_SETLK, fcntl.F_RDLCK)[1])
os.close(a); print(lock("ofd", "d/moved", OFD_SETLK, fcntl.F_RDLCK)[1])
os.rename("d/moved", "d/file")
`);
    expect(printed).toContain("EAGAIN");
  });

  it("has flock between descriptors and processes, given back at the end of the process", () => {
    const printed = bothPrint(`
a, b = os.open("etc/config", os.O_RDONLY), os.open("etc/same", os.O_RDONLY)
fcntl.flock(a, fcntl.LOCK_SH); fcntl.flock(b, fcntl.LOCK_SH)
print(attempt(fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB))
fcntl.flock(a, fcntl.LOCK_UN); fcntl.flock(b, fcntl.LOCK_UN)
print(elsewhere(lambda: attempt(fcntl.flock, os.open("etc/same", os.O_RDONLY), fcntl.LOCK_EX)))
print(attempt(fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB))
`);
    expect(printed).toContain("EAGAIN");
  });

  it("says of the disk what the disk says", () => {
    bothPrint(
      'v = os.statvfs("d/file"); print(v.f_bsize, v.f_frsize, v.f_blocks, v.f_files, v.f_namemax)',
    );
  });

  it("does not let a running program be written, and lets it be replaced", () => {
    const printed = bothPrint(`
import subprocess, time
p = subprocess.Popen(["bin/sleep", "30"])
while os.readlink("/proc/%d/exe" % p.pid).find("sleep") < 0: time.sleep(0.01)
print(attempt(os.open, "bin/sleep", os.O_WRONLY))
print(attempt(os.truncate, "bin/sleep", 0))
open("bin/next", "w").write("#!/bin/sh\\necho replaced\\n"); os.chmod("bin/next", 0o755)
os.rename("bin/next", "bin/sleep"); print(p.poll())
print(subprocess.run(["bin/sleep"], capture_output=True).stdout)
p.kill(); p.wait()
`);
    expect(printed).toMatch(/^ETXTBSY\nETXTBSY\nNone\nb'replaced/);
  });

  it("takes every name that the disk takes, and refuses those that it refuses", () => {
    bothPrint(`
for name in (b"new\\nline", b"\\xff\\xfe", b"-rf", b".wh..wh..opq.not", b" ", b"\\\\", "\\u00e9".encode(), b"x" * 255, b"x" * 256):
    made = attempt(lambda: os.close(os.open(b"d/" + name, os.O_CREAT | os.O_EXCL)))
    print(name[:20], made, name in os.listdir(b"d"), attempt(os.unlink, b"d/" + name))
print(attempt(os.stat, "d/" + "y/" * 2100))
`);
  });

  it("answers wrong calls with the disk's own errors", () => {
    bothPrint(`
print([attempt(*call) for call in (
    (os.rmdir, "d"), (os.unlink, "d"), (os.rmdir, "etc/config"), (os.mkdir, "d"), (os.rename, "d", "d/sub/x"),
    (os.rename, "d", "etc/config"), (os.rename, "etc/config", "d"), (os.link, "d", "x"), (os.readlink, "d"),
    (os.listdir, "etc/config"), (os.stat, "etc/config/x"), (os.open, "d", os.O_WRONLY), (os.truncate, "d", 0),
    (os.symlink, "a", "etc/config"), (os.rename, "none", "x"), (os.removexattr, "d", "user.none"),
    (os.setxattr, "d", "user.k", b"v", os.XATTR_REPLACE), (os.setxattr, "d", "nosuch.k", b"v"),
    (os.rmdir, "d/."), (os.unlink, "d/.."), (os.open, "etc/config", os.O_DIRECTORY))])
`);
  });
});

describe.each(BENCH_MODES)("many at once (%s)", (io) => {
  const benches: ViewBench[] = [];
  const newBench = (): ViewBench => {
    const bench = new ViewBench(io);
    benches.push(bench);
    bench.addLayer(CONTENT);
    return bench;
  };
  beforeEach(() => benches.splice(0));
  afterEach(async () => {
    for (const bench of benches) await bench.dispose();
  });

  it("eight processes on the same names end, lose nothing and leave what a remount shows", async () => {
    const bench = newBench();
    const view = await bench.mount();
    const WORK = `
      for i in $(seq 30); do
        n=$(((i * $1) % 7)); echo "$1 $i" >>d/log
        mkdir d/x$n; mv d/x$n d/y$n; echo $1 >d/x$n/f; rm -rf d/y$n; ln d/lines d/l$n; mv d/l$n d/sub/f$n
        echo $i >d/t$1; mv d/t$1 d/shared; cat d/shared; chmod 6$(($1 % 8))4 etc/config; rm d/sub/f$((n + 8))
        touch d/sub/f$((n + 8)); ls d d/sub
      done >/dev/null 2>&1; exit 0`;
    const workers = [1, 2, 3, 4, 5, 6, 7, 8].map(
      (number) =>
        new Promise<number | null>((resolve) => {
          const worker = spawn("bash", ["-c", WORK, "-", String(number)], { cwd: view });
          worker.once("exit", resolve);
        }),
    );
    expect(await Promise.all(workers)).toEqual(Array(8).fill(0));
    expect(shell(view, "sort d/log | uniq | wc -l; wc -l <d/log")).toBe("240\n240\n");
    const tree = readTree(view);
    // Every name that is listed is there, and what is gone is gone for all.
    shell(view, "find . -exec stat -c %n {} + >/dev/null");
    await bench.remount();
    expect(compareTrees(tree, readTree(view))).toEqual([]);
    expect(bench.warnings).toEqual([]);
  });

  it("two views of one image never see each other", async () => {
    const first = newBench();
    const second = new ViewBench(io);
    benches.push(second);
    second.shareLayers(first);
    const one = await first.mount();
    const two = await second.mount();
    const before = readTree(two);
    shell(one, "echo x >>d/file; rm -rf d/sub; mv etc d/etc; echo new >new; chmod 700 bin/sleep");
    expect(compareTrees(before, readTree(two))).toEqual([]);
    shell(two, "echo y >>d/file; rm d/lines");
    expect(shell(one, "cat d/file; tail -n 1 d/lines")).toBe("of-the-image\nx\n5000\n");
    expect(shell(two, "cat d/file; ls etc")).toBe("of-the-image\ny\nconfig\nsame\n");
    await second.remount();
    expect(shell(two, "cat d/file")).toBe("of-the-image\ny\n");
  });
});
