/** podman and buildah on containers-storage whose mount_program is ours, as root and as another user. */

import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attempt, makeImage, PROJECT, run, Sandbox } from "./sandbox.js";

const HELPER = join(PROJECT, "bin/mount.fuse.varve");
const sandbox = new Sandbox("mp");
// podman refuses long paths for what it runs with: the names below are short.
const USER = 23_456;
const SUBORDINATE = 300_000;

const CONTAINERFILE = `FROM docker.io/library/busybox
RUN echo one > /one && rm /etc/passwd && mkdir -p /deep/er && echo old > /deep/old && ln /one /deep/hard
RUN rm -r /deep && mkdir /deep && echo two > /deep/two && mv /home /house && chown 12:34 /one
COPY Containerfile /copied
CMD ["cat", "/deep/two", "/copied"]
`;

/** What a person does with podman and buildah; prints one line per fact. */
const SESSION = `
podman() { command podman --storage-driver overlay --storage-opt overlay.mount_program="$HELPER" \\
  $PLACE --cgroup-manager cgroupfs --events-backend file "$@"; }
buildah() { command buildah --storage-driver overlay --storage-opt overlay.mount_program="$HELPER" $PLACE "$@"; }
limits="--ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network none"
podman load -q -i "$ARCHIVE" >/dev/null
podman run --name changed $limits busybox sh -c '
  grep " / fuse.varve " /proc/mounts | wc -l
  echo new > /new; rm /etc/group; mkdir /dir; mv /usr /moved; chown 5:6 /new; chmod 640 /etc/passwd'
podman diff changed | sort
podman commit -q changed localhost/committed >/dev/null
podman run --rm $limits localhost/committed sh -c 'ls -d /new /dir /moved/*; stat -c %u:%g:%a /new /etc/passwd; ls /etc'
podman start -a changed >/dev/null 2>&1 || true
podman rm -f changed >/dev/null
buildah bud $limits --layers -q -t localhost/built "$CONTEXT" >/dev/null
podman run --rm $limits localhost/built
podman run --rm $limits localhost/built sh -c 'ls / /deep; stat -c "%u:%g %h" /one; ls /etc/passwd 2>&1; true'
podman run --rm $limits --user 1000 localhost/built sh -c 'touch /tmp/mine; stat -c %u /tmp/mine'
podman run --rm $limits --read-only localhost/built sh -c 'touch /x 2>&1; true'
container=$(buildah from $limits -q localhost/built)
buildah run "$container" -- sh -c 'echo by-buildah > /by'
buildah commit -q "$container" localhost/from-buildah >/dev/null
buildah rm "$container" >/dev/null
podman run --rm $limits localhost/from-buildah cat /by
podman image tree localhost/built | tail -n +3 | wc -l | grep -q '[1-9]'
podman rmi -a -f >/dev/null
`;

/** The lines of a session that do not depend on who runs it. */
function expectSession(output: string): void {
  const lines = output.split("\n");
  expect(lines[0]).toBe("1");
  const difference = lines.filter((line) => /^[ACD] \//.test(line));
  expect(difference).toEqual(
    expect.arrayContaining(["A /new", "A /dir", "A /moved", "C /etc", "D /etc/group", "D /usr"]),
  );
  expect(difference.filter((line) => line.startsWith("D"))).toEqual(["D /etc/group", "D /usr"]);
  const rest = output.slice(output.indexOf("\n/dir\n") + 1);
  expect(rest).toMatch(/^\/dir\n\/moved\/\S+\n(\/moved\/\S+\n)*\/new\n5:6:644\n0:0:640\n/);
  expect(rest).toContain("\ntwo\nFROM docker.io/library/busybox\n");
  expect(rest).toMatch(/\nhouse\n/);
  expect(rest).not.toMatch(/^(old|er|hard|home|group)$/m);
  expect(rest).toMatch(/\/etc\/passwd: No such file/);
  expect(rest).toMatch(/^12:34 1$/m);
  expect(rest).toMatch(/^1000$/m);
  expect(rest).toMatch(/Read-only file system/);
  expect(rest.trimEnd().endsWith("by-buildah")).toBe(true);
}

beforeAll(() => {
  makeImage("busybox", sandbox.path("busybox.tar"));
  mkdirSync(sandbox.path("context"));
  writeFileSync(sandbox.path("context/Containerfile"), CONTAINERFILE);
  // Another user reads the archive and the context.
  run("chmod", ["-R", "a+rX", sandbox.directory]);
}, 120_000);

afterAll(() => sandbox.dispose());

const session = (place: string, script: string) => ({
  HELPER,
  PLACE: place,
  ARCHIVE: sandbox.path("busybox.tar"),
  CONTEXT: sandbox.path("context"),
  SCRIPT: `set -euo pipefail\n${script}`,
});

describe("podman and buildah with varve as mount_program", () => {
  it("run, diff, commit and build as root", () => {
    const place = `--root ${sandbox.path("storage")} --runroot ${sandbox.path("run")}`;
    const output = run("bash", ["-c", `set -euo pipefail\n${SESSION}`], {
      env: session(place, ""),
    });
    expectSession(output);
  }, 120_000);

  it("run, diff, commit and build as another user, in a user namespace", () => {
    const user = new Rootless();
    try {
      expectSession(user.run(SESSION));
    } finally {
      user.dispose();
    }
  }, 120_000);
});

/** A user of our own, with subordinate IDs and an open /dev/fuse, in a mount namespace that has them. */
class Rootless {
  readonly #home = sandbox.makeDirectory("home");
  readonly #runtime = sandbox.makeDirectory("r");

  constructor() {
    const etc = sandbox.makeDirectory("etc");
    for (const name of ["passwd", "group"]) copyFileSync(`/etc/${name}`, join(etc, name));
    const user = `varve-test:x:${USER}:`;
    writeFileSync(join(etc, "passwd"), `${user}${USER}::${this.#home}:/bin/sh\n`, { flag: "a" });
    writeFileSync(join(etc, "group"), `${user}\n`, { flag: "a" });
    for (const name of ["subuid", "subgid"]) {
      writeFileSync(join(etc, name), `varve-test:${SUBORDINATE}:65536\n`);
      if (!existsSync(`/etc/${name}`))
        throw new Error(`no /etc/${name}: the package uidmap is missing`);
    }
    run("mknod", ["-m", "666", join(etc, "fuse"), "c", "10", "229"]);
    run("chown", [`${USER}:${USER}`, this.#home, this.#runtime]);
    run("chmod", ["700", this.#runtime]);
  }

  /** Runs a script as the user. */
  run(script: string): string {
    const place = `--root ${this.#home}/storage --runroot ${this.#runtime}/c`;
    const env = {
      ...session(place, script),
      ETC: sandbox.path("etc"),
      HOME: this.#home,
      XDG_RUNTIME_DIR: this.#runtime,
      IDS: String(USER),
    };
    return run(
      "unshare",
      [
        ...["--mount", "--propagation", "slave", "bash", "-euc"],
        `for name in passwd group subuid subgid; do mount --bind "$ETC/$name" "/etc/$name"; done
mount --bind "$ETC/fuse" /dev/fuse; cd "$HOME"
exec setpriv --reuid "$IDS" --regid "$IDS" --init-groups bash --norc -c "$SCRIPT"`,
      ],
      { env },
    );
  }

  /** Ends the process that keeps podman's user namespace, and removes what belongs to subordinate users. */
  dispose(): void {
    const pidFile = join(this.#runtime, "libpod/tmp/pause.pid");
    if (existsSync(pidFile)) attempt("kill", [readFileSync(pidFile, "utf8").trim()]);
  }
}
