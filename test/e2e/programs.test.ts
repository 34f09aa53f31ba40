/** Real programs in a view of a real Debian system. */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../tools/tree.js";
import { makeImage, run, Sandbox, shell } from "./sandbox.js";

const sandbox = new Sandbox("programs");
let view: string;

/** Runs a shell line inside a chroot that has what apt and dpkg expect. */
function inChroot(root: string, script: string): string {
  return shell(
    `
cp --remove-destination /etc/resolv.conf "$ROOT/etc/resolv.conf"
mount -t proc proc "$ROOT/proc"
trap 'umount "$ROOT/proc"' EXIT
chroot "$ROOT" /bin/bash -euo pipefail -c "$SCRIPT"`,
    { env: { ROOT: root, SCRIPT: script, DEBIAN_FRONTEND: "noninteractive" } },
  );
}

beforeAll(() => {
  sandbox.varve("load", "-i", makeImage("debian", sandbox.path("debian.tar")));
  view = sandbox.mount("debian", "work");
}, 240_000);

afterAll(() => sandbox.dispose());

describe("in a view of Debian", () => {
  it("a chroot shell runs the system's own programs", () => {
    expect(inChroot(view, "cat /etc/debian_version; ls / | wc -l; dpkg --list | wc -l")).toMatch(
      /^\d+/,
    );
  });

  it("apt installs python3; a view of the committed image runs it", () => {
    inChroot(
      view,
      "apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 >/dev/null",
    );
    expect(inChroot(view, "dpkg --audit; dpkg --verify python3-minimal")).toBe("");
    sandbox.varve("commit", "work", "debian-python:1");
    const second = sandbox.mount("debian-python:1", "second");
    const ignore = ["proc"];
    expect(compareTrees(readTree(view, { ignore }), readTree(second, { ignore }))).toEqual([]);
    expect(inChroot(second, "python3 -c 'import json, sqlite3; print(json.dumps(6 * 7))'")).toBe(
      "42\n",
    );
  }, 300_000);

  it("a C program compiles and runs", () => {
    inChroot(view, "apt-get install -y -qq --no-install-recommends tcc libc6-dev >/dev/null");
    writeFileSync(
      `${view}/root/hello.c`,
      '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n',
    );
    expect(inChroot(view, "cd /root && tcc -o hello hello.c && ./hello")).toBe("compiled\n");
  }, 180_000);

  it("git clones, commits and finds nothing wrong afterwards", () => {
    shell(
      `
cd "$WORK" && git init -q --bare origin.git
git clone -q origin.git seed 2>/dev/null && cd seed
git config user.email t@example.com && git config user.name t
for i in $(seq 40); do mkdir -p d$i && for j in $(seq 25); do echo "$i $j" > d$i/f$j; done; done
git add -A && git commit -qm one && git push -q origin HEAD:main
git clone -q -b main "$WORK/origin.git" "$VIEW/srv/clone" && cd "$VIEW/srv/clone"
git config user.email t@example.com && git config user.name t
git mv d1 moved && rm -r d2 && echo x >> d3/f1 && git add -A && git commit -qm two && git gc -q
git fsck --strict
test -z "$(git status --porcelain)"
`,
      { env: { WORK: sandbox.makeDirectory("git"), VIEW: view } },
    );
  });

  it("sqlite keeps its database whole under concurrent load", () => {
    const database = `${view}/srv/load.db`;
    shell(
      `
sqlite3 "$DB" 'PRAGMA journal_mode=WAL; CREATE TABLE t (writer INT, n INT)' >/dev/null
for w in 1 2 3 4; do
  (for n in $(seq 100); do echo ".timeout 30000
INSERT INTO t VALUES ($w, $n);"; done | sqlite3 "$DB") &
done
wait`,
      { env: { DB: database } },
    );
    expect(
      run("sqlite3", [
        database,
        "SELECT count(*), count(DISTINCT writer) FROM t; PRAGMA integrity_check",
      ]),
    ).toBe("400|4\nok\n");
  });

  it("tar in and out keeps the tree", () => {
    shell(
      `
mkdir "$OUT" "$VIEW/srv/usr-copy"
tar -C "$VIEW/usr" --xattrs --xattrs-include='*' -cf - share/perl5 bin | tar -C "$OUT" --xattrs --xattrs-include='*' -xpf -
tar -C "$OUT" --xattrs --xattrs-include='*' -cf - . | tar -C "$VIEW/srv/usr-copy" --xattrs --xattrs-include='*' -xpf -`,
      { env: { VIEW: view, OUT: sandbox.path("tar-out") } },
    );
    expect(
      compareTrees(readTree(sandbox.path("tar-out")), readTree(`${view}/srv/usr-copy`)),
    ).toEqual([]);
  });

  it("rsync -aHAX in both directions keeps the tree, links and attributes", () => {
    shell(
      `
cd "$VIEW/srv" && mkdir rs && cd rs && echo a > a && ln a b && setfattr -n user.k -v v a && setfacl -m u:1234:r a
mkdir d && setfacl -d -m g:55:rx d && ln -s a l && mkfifo p && chmod 2755 d
rsync -aHAX "$VIEW/srv/rs/" "$OUT/"
rsync -aHAX "$OUT/" "$VIEW/srv/rs-back/"
rsync -aHAX --delete "$VIEW/etc/" "$OUT-etc/"`,
      { env: { VIEW: view, OUT: sandbox.path("rsync-out") } },
    );
    // rsync keeps no times of symlinks and fifos here, on ext4 neither: times are compared on files.
    const same = (left: string, right: string) =>
      compareTrees(readTree(left, { mtime: "none" }), readTree(right, { mtime: "none" }));
    expect(same(`${view}/srv/rs`, sandbox.path("rsync-out"))).toEqual([]);
    expect(same(`${view}/srv/rs`, `${view}/srv/rs-back`)).toEqual([]);
    expect(same(`${view}/etc`, sandbox.path("rsync-out-etc"))).toEqual([]);
    const times = shell(`cd "$VIEW/etc" && find . -type f -newermt @0 -printf '%P %T@\\n' | sort`, {
      env: { VIEW: view },
    });
    expect(
      shell(`cd "$OUT-etc" && find . -type f -newermt @0 -printf '%P %T@\\n' | sort`, {
        env: { OUT: sandbox.path("rsync-out") },
      }),
    ).toBe(times);
  });

  it("everything is still there after the daemon was killed and started again", () => {
    const before = readTree(view, { ignore: ["proc"] });
    sandbox.varve("umount", "work");
    process.kill(Number(readFileSync(sandbox.path("state/daemon.pid"), "utf8")), "SIGKILL");
    expect(sandbox.varve("mount", "--name", "work")).toBe(view);
    expect(compareTrees(before, readTree(view, { ignore: ["proc"] }))).toEqual([]);
  }, 120_000);
});

describe("a container of the real runc", () => {
  it("runs from a bundle with the image's own configuration", () => {
    sandbox.varve("load", "-q", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
    sandbox.mount("busybox", "base");
    sandbox.varve(
      ...[
        "commit",
        "base",
        "runnable:1",
        "-c",
        'ENTRYPOINT ["/bin/sh","-c"]',
        "-c",
        'CMD ["id -u; pwd; echo $GREETING > made; cat made"]',
      ],
      ...["-c", "ENV GREETING=hello", "-c", "WORKDIR /tmp", "-c", "USER nobody"],
    );
    const root = sandbox.mount("runnable:1", "container");
    sandbox.varve("bundle", "container", sandbox.path("bundle"));
    const output = run("runc", [
      "--root",
      sandbox.path("runc"),
      "run",
      "--bundle",
      sandbox.path("bundle"),
      `varve-${process.pid}`,
    ]);
    expect(output).toBe("65534\n/tmp\nhello\n");
    expect(readFileSync(`${root}/tmp/made`, "utf8")).toBe("hello\n");
    expect(sandbox.varve("diff", "container")).toContain("A /tmp/made");
    expect(existsSync(sandbox.path("bundle/config.json"))).toBe(true);
  });
});
