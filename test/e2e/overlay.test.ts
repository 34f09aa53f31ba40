/** `varve overlay`: plain directories, without images and without a daemon, as fuse-overlayfs mounts them. */

import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { compareTrees, readTree, type TreeOptions } from "../tools/tree.js";
import { attempt, mountsBelow, type Outcome, PROJECT, run, Sandbox, shell } from "./sandbox.js";

const HELPER = join(PROJECT, "bin/mount.fuse.varve");
const sandbox = new Sandbox("overlay");
let here = "";
let tests = 0;

beforeEach(() => {
  here = sandbox.makeDirectory(`t${tests++}`);
  for (const name of ["low", "middle", "top", "upper", "work", "mnt", "theirs"]) {
    mkdirSync(join(here, name));
  }
});

afterEach(() => {
  for (const target of mountsBelow(here)) run("umount", [target]);
});

afterAll(() => sandbox.dispose());

const at = (...parts: string[]) => join(here, ...parts);

function mount(options: string, target = at("mnt"), program = HELPER): string {
  run(program, ["-o", options, target], { cwd: here });
  return target;
}

const WRITABLE = "lowerdir=top:middle:low,upperdir=upper,workdir=work";

/** Layers with everything that one of the tools hides things by. */
function makeLayers(): void {
  shell(
    `cd "$HERE"
mkdir -p low/{etc,usr/bin,aufs,kernel,userx,fuse,keep/deep,home/me}; touch low/{aufs,kernel,userx,fuse}/old
echo root > low/etc/passwd; chown 1:2 low/etc/passwd; echo x > low/etc/gone; echo y > low/etc/gone2
echo tool > low/usr/bin/tool; ln low/usr/bin/tool low/usr/bin/link; chmod 4755 low/usr/bin/tool
ln -s passwd low/etc/alias; mkfifo low/pipe; mknod low/null c 1 3; chown 1000:1000 low/home/me
echo a > low/becomes-directory; mkdir low/becomes-file; echo in > low/becomes-file/in
mkdir -p middle/{etc,aufs,kernel,userx,fuse,keep}; touch middle/etc/.wh.gone; mknod middle/etc/gone2 c 0 0
touch middle/aufs/.wh..wh..opq middle/{aufs,kernel,userx,fuse}/new
setfattr -n trusted.overlay.opaque -v y middle/kernel
setfattr -n user.overlay.opaque -v y middle/userx; setfattr -n user.fuseoverlayfs.opaque -v y middle/fuse
mkdir -p top/etc top/becomes-directory; touch top/.wh.pipe; echo f > top/becomes-file; echo n > top/etc/new`,
    { env: { HERE: here } },
  );
}

describe("varve overlay", () => {
  const sameTrees = (options: string, look: TreeOptions = {}) => {
    const ours = mount(options);
    const theirs = mount(
      options.replace("upper", "upper2").replace("=work", "=work2"),
      at("theirs"),
      "fuse-overlayfs",
    );
    return compareTrees(
      readTree(ours, { xattrs: false, ...look }),
      readTree(theirs, { xattrs: false, ...look }),
    );
  };

  it("reads whiteouts and opaque marks of the kernel, of fuse-overlayfs and of AUFS", () => {
    makeLayers();
    expect(sameTrees("lowerdir=top:middle:low")).toEqual([]);
    for (const directory of ["aufs", "kernel", "userx", "fuse"])
      expect(shell("ls", { cwd: at("mnt", directory) })).toBe("new\n");
  });

  it("is read-only without an upper directory, and with ro", () => {
    makeLayers();
    mount("lowerdir=low");
    expect(attempt("touch", [at("mnt/new")]).stderr).toMatch(/Read-only/);
    run("umount", [at("mnt")]);
    mount(`${WRITABLE},ro`);
    expect(attempt("touch", [at("mnt/new")]).stderr).toMatch(/Read-only/);
  });

  it("shows owners and links as the options of fuse-overlayfs say", () => {
    makeLayers();
    mkdirSync(at("upper2"));
    mkdirSync(at("work2"));
    for (const option of [
      "squash_to_root",
      "squash_to_uid=7,squash_to_gid=8",
      "uidmapping=0:5000:1000:1000:7000:1,gidmapping=0:6000:10:1000:8000:1",
    ]) {
      expect(sameTrees(`lowerdir=top:middle:low,${option}`), option).toEqual([]);
      run("umount", [at("mnt")]);
      run("umount", [at("theirs")]);
    }
    mount("lowerdir=low,static_nlink");
    expect(statSync(at("mnt/etc")).nlink).toBe(1);
  });

  it("writes owners back through a mapping", () => {
    makeLayers();
    mount(`${WRITABLE},uidmapping=0:5000:1000,gidmapping=0:6000:1000`);
    shell("touch mnt/new; chown 5003:6004 mnt/new mnt/etc/passwd", { cwd: here });
    expect(statSync(at("mnt/new"))).toMatchObject({ uid: 5003, gid: 6004 });
    expect(statSync(at("upper/new"))).toMatchObject({ uid: 3, gid: 4 });
    expect(statSync(at("upper/etc/passwd"))).toMatchObject({ uid: 3, gid: 4 });
    expect(attempt("chown", ["1", at("mnt/new")]).stderr).toMatch(/Invalid argument/);
  });

  it("shows mapped owners in either I/O mode, also of what is made through an open", () => {
    makeLayers();
    for (const io of ["cached", "passthrough"]) {
      mount(`${WRITABLE},uidmapping=0:5000:1000,gidmapping=0:6000:1000,io=${io}`);
      shell("cp /bin/cat mnt/$IO; mnt/$IO <mnt/$IO | cmp - /bin/cat", {
        cwd: here,
        env: { IO: io },
      });
      expect(statSync(at("mnt", io))).toMatchObject({ uid: 65534, gid: 65534 });
      run("umount", [at("mnt")]);
    }
  });

  it("leaves an upper directory that it and the kernel's overlayfs go on with", () => {
    makeLayers();
    mount(WRITABLE);
    shell(
      `cd mnt; echo more >> usr/bin/link; rm etc/passwd; mv keep kept; mkdir keep; mv home/me etc/
       rm -r aufs; mkdir aufs; chmod 600 etc/new; ln etc/new etc/newer; mknod dev c 5 1; touch upper-only`,
      { cwd: here },
    );
    const written = readTree(at("mnt"));
    const numbers = shell("find mnt -printf '%p %i %n\\n' | sort", { cwd: here });
    expect(statSync(at("mnt/usr/bin/tool")).size).toBe(10);
    run("umount", [at("mnt")]);
    mount(WRITABLE);
    expect(compareTrees(readTree(at("mnt")), written)).toEqual([]);
    expect(shell("find mnt -printf '%p %i %n\\n' | sort", { cwd: here })).toBe(numbers);
    run("umount", [at("mnt")]);
    // The kernel knows only its own marks.
    shell(
      "rm -r middle/{aufs,userx,fuse} low/{aufs,userx,fuse,pipe} middle/etc/.wh.gone low/etc/gone top/.wh.pipe",
      { cwd: here },
    );
    const kernel = ["-t", "overlay", "overlay", "-o", `${WRITABLE},redirect_dir=on`, at("theirs")];
    run("mount", kernel, { cwd: here });
    const look = { ignore: ["userx", "fuse"] };
    const kept = new Map([...written].filter(([path]) => !/^(userx|fuse|$)/.test(path)));
    const theirs = [...readTree(at("theirs"), look)].filter(([path]) => path !== "");
    expect(compareTrees(new Map(theirs), kept)).toEqual([]);
  });

  it("copies instead of leaving data below, unless metacopy is on", () => {
    shell("head -c 300000 /dev/urandom > low/big", { cwd: here });
    mount(WRITABLE);
    shell("chmod 600 mnt/big; umount mnt", { cwd: here });
    expect(readFileSync(at("upper/big")).equals(readFileSync(at("low/big")))).toBe(true);
    shell("rm upper/big", { cwd: here });
    mount(`${WRITABLE},metacopy=on`);
    shell("chmod 600 mnt/big", { cwd: here });
    expect(statSync(at("upper/big")).blocks).toBeLessThan(100);
    expect(readFileSync(at("mnt/big")).equals(readFileSync(at("low/big")))).toBe(true);
  });

  it("refuses to rename a lower directory with redirect_dir=off, and mv copies it", () => {
    makeLayers();
    mount(`${WRITABLE},redirect_dir=off`);
    shell("mv mnt/usr mnt/moved", { cwd: here });
    expect(readFileSync(at("mnt/moved/bin/tool"), "utf8")).toBe("tool\n");
    expect(shell("getfattr -R -d -m redirect upper || true", { cwd: here })).toBe("");
  });

  it("works inside an overlay, as the kernel's does", () => {
    shell("mkdir -p low/l/d low/l/x; echo low >low/l/d/f; touch low/l/gone low/l/x/old", {
      cwd: here,
    });
    mount("lowerdir=low,upperdir=upper,workdir=work");
    const WORK = `echo more >>d/f; rm gone; mv d e; rm -r x; mkdir x; mkdir d; ls -R; cat e/f`;
    const results = (["varve", "kernel"] as const).map((which) => {
      shell(`mkdir mnt/u-${which} mnt/w-${which}`, { cwd: here });
      const options = `lowerdir=mnt/l,upperdir=mnt/u-${which},workdir=mnt/w-${which}`;
      const again = () =>
        which === "varve"
          ? mount(options, at("theirs"))
          : run(
              "mount",
              ["-t", "overlay", "none", "-o", `${options},redirect_dir=on`, at("theirs")],
              { cwd: here },
            );
      again();
      const done = shell(WORK, { cwd: at("theirs") });
      run("umount", [at("theirs")]);
      again();
      expect(shell("ls -R; cat e/f", { cwd: at("theirs") })).toBe(done);
      run("umount", [at("theirs")]);
      return done;
    });
    expect(results[0]).toBe(results[1]);
    expect(results[0]).toBe(".:\nd\ne\nx\n\n./d:\n\n./e:\nf\n\n./x:\nlow\nmore\n");
    run("umount", [at("mnt")]);
    expect(attempt("ls", [at("upper/l/d")]).status).not.toBe(0);
  });

  it("mounts over a directory that it reads", () => {
    makeLayers();
    const target = mount("lowerdir=low,upperdir=upper,workdir=work", at("low"));
    expect(readFileSync(join(target, "etc/passwd"), "utf8")).toBe("root\n");
    shell("echo changed >> low/etc/passwd; ls -R low", { cwd: here });
    expect(readFileSync(at("upper/etc/passwd"), "utf8")).toBe("root\nchanged\n");
  });

  it("takes paths with commas and colons behind backslashes", () => {
    shell("mkdir 'a,b:c'; echo here > 'a,b:c/f'", { cwd: here });
    mount("lowerdir=a\\,b\\:c:low");
    expect(readFileSync(at("mnt/f"), "utf8")).toBe("here\n");
  });

  it("serves as mount(8)'s helper, with the mount's flags", () => {
    makeLayers();
    run(HELPER, ["some-name", at("mnt"), "-n", "-o", `rw,nosuid,nodev,noatime,${WRITABLE}`], {
      cwd: here,
    });
    const line = readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .find((one) => one.includes(at("mnt")));
    expect(line).toMatch(/^some-name \S+ fuse\.varve rw,nosuid,nodev,noatime,/);
  });
});

it("refuses directories that another mount writes to", () => {
  mount(WRITABLE);
  const second = attempt(HELPER, ["-o", WRITABLE, at("theirs")], { cwd: here });
  expect(second.stderr).toMatch(/workdir .* in use by another mount/);
});

describe("a wrong command line", () => {
  const say = (...args: string[]): Outcome => attempt(HELPER, args, { cwd: here });

  it("fails with a sentence, and mounts nothing", () => {
    expect(say("-o", "lowerdir=none", at("mnt")).stderr).toMatch(
      /lowerdir none: no such directory/,
    );
    expect(say("-o", "upperdir=upper,workdir=work", at("mnt")).stderr).toMatch(/no lowerdir/);
    expect(say("-o", "lowerdir=low,upperdir=upper", at("mnt")).stderr).toMatch(/no workdir/);
    expect(say("-o", "lowerdir=low,colour=red", at("mnt")).stderr).toMatch(/unknown option colour/);
    expect(say("-o", "lowerdir=low,io=fast", at("mnt")).stderr).toMatch(/want cached, passthrough/);
    expect(say("-o", "lowerdir=low,plugins=x.so", at("mnt")).stderr).toMatch(/no plugins/);
    expect(say("-o", "lowerdir=low").stderr).toMatch(/one directory to mount on/);
    expect(say("-o", "lowerdir=low", at("nowhere")).stderr).toMatch(/mount point .* no such/);
    expect(say("-o", "lowerdir=low,colour=red", at("mnt")).status).toBe(1);
    expect(mountsBelow(here)).toEqual([]);
  });
});

describe("varve overlay in the foreground", () => {
  it("stays until somebody unmounts it, and then ends with 0", () => {
    const script = `"$VARVE" overlay -f -o lowerdir=low mnt & server=$!
until mountpoint -q mnt; do sleep 0.05; done; umount mnt; wait $server`;
    expect(shell(script, { cwd: here, env: { VARVE: join(PROJECT, "bin/varve") } })).toBe("");
  });

  it("unmounts when it is told to end, also while the mount is in use", () => {
    const script = `"$HELPER" -f -o lowerdir=low mnt & server=$!
until mountpoint -q mnt; do sleep 0.05; done
exec 9< mnt; kill -TERM $server; wait $server; ! mountpoint -q mnt`;
    shell(script, { cwd: here, env: { HELPER } });
  });

  it("gives the caller's error stream back once the mount is there", () => {
    // Callers such as podman read it to its end before they go on.
    const text = shell(`"$HELPER" -o lowerdir=low mnt 2>&1 | cat; mountpoint mnt`, {
      cwd: here,
      env: { HELPER },
    });
    expect(text).toMatch(/is a mountpoint/);
  });
});
