/** An ordinary user does all of it alone, and gets what root gets. */

import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const PROJECT = path.resolve(import.meta.dirname, "../../..");
/** "nobody": fusermount3 wants a user with a name. */
const USER = 65534;
const sandbox = new DaemonSandbox();

/** Private directories for one user, and the program where everybody can read it. */
const SCRIPT = `set -eu
home=$1 project=$2 archive=$3
mkdir -p "$home/run" "$home/program"
mount --bind "$project" "$home/program"
# Without udev the device is root's alone; Debian's udev rule gives it this mode.
mount -t tmpfs none "$home/run"
mknod -m 666 "$home/run/fuse" c 10 229
mount --bind "$home/run/fuse" /dev/fuse
mkdir -m 700 "$home/run/user" "$home/data"
chown "$4" "$home/run/user" "$home/data"
for file in /etc/subuid /etc/subgid; do
  echo nobody:100000:65536 >"$home/run/sub"
  mount --bind "$home/run/sub" "$file"
done
case $5 in namespace) own="unshare --user --map-root-user --map-auto --mount" ;; *) own= ;; esac
exec setpriv --reuid="$4" --regid="$4" --clear-groups $own sh -eu -c '
  home=$1 archive=$2 more=$3
  export HOME="$home/data" XDG_RUNTIME_DIR="$home/run/user" XDG_DATA_HOME="$home/data" SOURCE_DATE_EPOCH=1700000000
  export VARVE_ROOT="$home/data/root" VARVE_STATE="$home/run/user/varve" VARVE_SOCKET="$home/run/user/varve/varve.sock"
  varve() { "$home/program/bin/varve" "$@"; }
  trap "varve daemon stop" EXIT
  varve load -q -i "$archive" >&2
  view=$(varve mount -q --pull never base --name v)
  [ -n "$view" ]
  umask 022
  cd "$view/data"
  echo new >new; ln new hard; ln -s new soft; mkdir made; echo x >made/x
  echo more >>of-33; chmod 600 top; chmod 400 of-42; rm deep/er/x; mv deep moved
  touch -d @1600000000 file; mkfifo pipe; echo of-a-directory >dir-33/new
  [ -z "$more" ] || { chown 7:8 new; mkdir -m 2775 shared; chown 0:42 shared; echo x >shared/of-42; }
  cd /
  varve commit -q v changed
  varve save -q changed -o "$home/data/changed.tar"
  varve umount v >&2
' sh "$home" "$archive" "$6"`;

interface Session {
  readonly user: number;
  /** In a user namespace with the IDs that /etc/subuid gives to the user. */
  readonly isMapped?: boolean;
  /** Owners are changed, too. */
  readonly withOwners?: boolean;
}

/** Runs the session; the commit's image ID, and the archive. */
function session({ user, isMapped, withOwners }: Session): { id: string; archive: Buffer } {
  const home = mkdtempSync(sandbox.path("home-"));
  chmodSync(home, 0o755);
  const words = [home, PROJECT, sandbox.path("base.tar"), String(user)];
  const flags = [isMapped === true ? "namespace" : "", withOwners === true ? "owners" : ""];
  const shell = ["--mount", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"];
  const id = execFileSync("unshare", [...shell, ...words, ...flags], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  return { id: id.trim(), archive: readFileSync(path.join(home, "data/changed.tar")) };
}

function expectSame(ofRoot: ReturnType<typeof session>, ofUser: ReturnType<typeof session>) {
  expect(ofUser.id).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect(ofUser.id).toBe(ofRoot.id);
  expect(ofUser.archive.equals(ofRoot.archive)).toBe(true);
}

beforeAll(async () => {
  chmodSync(sandbox.directory, 0o755);
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
  const { target } = await sandbox.mount({ image: "small", name: "base" });
  const data = (name: string) => path.join(target, "data", name);
  for (const [name, owner, mode] of [
    ["of-33", 33, 0o644],
    ["of-42", 42, 0o440],
  ] as const) {
    writeFileSync(data(name), name);
    chownSync(data(name), owner, owner);
    chmodSync(data(name), mode);
  }
  mkdirSync(data("dir-33"));
  chownSync(data("dir-33"), 33, 0);
  await sandbox.commit({ name: "base", reference: "base", sourceDateEpoch: 1_600_000_000n });
  const save = sandbox.client.saveImages({ references: ["base"], path: sandbox.path("base.tar") });
  for await (const message of save) void message;
  chmodSync(sandbox.path("base.tar"), 0o644);
});

afterAll(() => sandbox.dispose());

describe("an ordinary user", () => {
  it("loads, mounts, writes, commits and saves, to the same bytes as root", () => {
    expectSame(session({ user: 0 }), session({ user: USER }));
  });

  it("with IDs of /etc/subuid changes owners, too, to the same bytes as root", () => {
    const ofUser = session({ user: USER, isMapped: true, withOwners: true });
    expectSame(session({ user: 0, withOwners: true }), ofUser);
  });
});
