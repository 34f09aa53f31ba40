import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";
import { shell, ViewBench } from "./view-bench.js";

const LAYER = `
  mkdir -p bin etc/conf.d usr/share/doc empty deep/a/b/c
  echo hello >etc/hello; chmod 640 etc/hello
  head -c 300000 /dev/urandom >usr/big; setfattr -n user.color -v red usr/big
  ln usr/big usr/share/doc/big2; echo one >etc/one; ln etc/one etc/conf.d/uno
  ln -s ../etc/hello bin/link; mkfifo etc/pipe; mknod etc/null c 1 3
  for i in $(seq 40); do echo $i >usr/share/doc/f$i; done
  echo x >deep/a/b/c/x; chmod 4755 bin/../etc/one; truncate -s 1M usr/sparse; echo end >>usr/sparse
  chown -R 1000:1000 usr/share/doc/f1; touch -d '2020-01-02 03:04:05.123456789' etc/hello etc deep/a`;
const LAYER2 = `mkdir -p etc usr/share/doc; echo second >etc/second; mknod usr/share/doc/f2 c 0 0
  mkdir -p deep/a; setfattr -n trusted.overlay.opaque -v y deep/a; echo new >deep/a/new`;

describe("a view", () => {
  let bench: ViewBench;
  let view: string;
  beforeEach(async () => {
    bench = new ViewBench();
    bench.addLayer(LAYER);
    bench.addLayer(LAYER2);
    view = await bench.mount();
  });
  afterEach(async () => {
    await bench.dispose();
  });

  /** Remounts: nothing may change; then the kernel must read the same tree out of the same directories. */
  async function checkAgainstKernel(): Promise<void> {
    const before = readTree(view);
    const numbers = shell(view, "find . -printf '%P %i %n\\n' | sort");
    await bench.remount();
    expect(compareTrees(before, readTree(view))).toEqual([]);
    expect(shell(view, "find . -printf '%P %i %n\\n' | sort")).toBe(numbers);
    await bench.unmount();
    expect(compareTrees(readTree(bench.mountKernelOverlay()), before)).toEqual([]);
    expect(bench.warnings).toEqual([]);
  }

  it("shows an untouched image as kernel overlayfs does", async () => {
    await checkAgainstKernel();
  });

  it("takes new files, directories, links and devices", async () => {
    shell(
      view,
      "echo a >a; mkdir -p d/e; echo b >d/e/b; ln a d/a2; ln -s x d/s; mkfifo d/p; mknod d/c c 1 5",
    );
    expect(shell(view, "cat a d/e/b d/a2; stat -c %h a")).toBe("a\nb\na\n2\n");
    await checkAgainstKernel();
  });

  it("writes, truncates and appends to files of the image", async () => {
    shell(
      view,
      "echo more >>etc/hello; truncate -s 10 usr/big; echo z >deep/a/new; printf 1 | dd of=usr/sparse bs=1 seek=5 conv=notrunc status=none",
    );
    expect(shell(view, "cat etc/hello; stat -c %s usr/big usr/share/doc/big2")).toBe(
      "hello\nmore\n10\n10\n",
    );
    await checkAgainstKernel();
  });

  it("changes metadata of files, big ones included", async () => {
    shell(
      view,
      "chmod 600 usr/big; chown 5:6 etc/hello; touch -d 2001-01-01 usr/sparse; setfattr -n user.k -v v deep; chmod 700 deep/a; touch -hd 2002-02-02 bin/link",
    );
    await checkAgainstKernel();
  });

  it("removes files and trees", async () => {
    shell(view, "rm etc/hello usr/share/doc/f3; rm -rf deep usr/share; rmdir empty; rm etc/one");
    expect(shell(view, "stat -c %h etc/conf.d/uno usr/big")).toBe("1\n1\n");
    await checkAgainstKernel();
  });

  it("makes things where others were removed", async () => {
    shell(
      view,
      "rm -rf deep; mkdir deep; echo n >deep/n; rm etc/hello; mkdir etc/hello; rmdir empty; echo f >empty; rm usr/big; ln -s t usr/big",
    );
    await checkAgainstKernel();
  });

  it("renames files and directories of the image", async () => {
    shell(
      view,
      "mv etc/hello etc/bye; mv usr/big big; mv usr lib; mv deep/a etc/aa; mv lib/share/doc/f4 bin/; mkdir usr; mv etc/null usr/nul; mv bin/link etc",
    );
    await checkAgainstKernel();
  });

  it("renames over files and empty directories", async () => {
    shell(
      view,
      "mv etc/hello etc/second; mkdir n; mv -T n empty; mkdir -p m/k; rm -rf deep/a/*; mv -T m deep/a; echo q >q; mv q etc/one; mv usr/share/doc/f5 usr/share/doc/f6",
    );
    await checkAgainstKernel();
  });

  it("keeps hard links of the image one file", async () => {
    shell(
      view,
      "echo two >>etc/one; ln etc/conf.d/uno three; rm etc/one; mv etc/conf.d/uno etc/uno",
    );
    expect(shell(view, "cat three; stat -c %h three etc/uno")).toBe("one\ntwo\n2\n2\n");
    await checkAgainstKernel();
  });

  it("exchanges names", async () => {
    const swap = (a: string, b: string) =>
      shell(
        view,
        `python3 -c 'import ctypes,sys
l=ctypes.CDLL(None,use_errno=True)
sys.exit(l.renameat2(-100,b"${a}",-100,b"${b}",2) and ctypes.get_errno())'`,
      );
    swap("etc", "usr");
    swap("usr/hello", "etc/big");
    shell(view, "mkdir new; echo n >new/n");
    swap("new", "deep");
    swap("empty", "usr/second");
    await checkAgainstKernel();
  });
});
