/** An ordinary user does all of it alone, and gets what root gets. */

import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DaemonSandbox } from "./daemon-process.js";
import { type RootlessUser, runRootless, USER } from "./rootless-session.js";
import { makeLayout } from "./small-image.js";

const sandbox = new DaemonSandbox();

const WORK = `
  archive=$1 more=$2
  varve load -q -i "$archive" >&2
  view=$(varve mount -q --pull never base --name v)
  [ -n "$view" ]
  cd "$view/data"
  echo new >new; ln new hard; ln -s new soft; mkdir made; echo x >made/x
  echo more >>of-33; chmod 600 top; chmod 400 of-42; rm deep/er/x; mv deep moved
  touch -d @1600000000 file; mkfifo pipe; echo of-a-directory >dir-33/new
  [ -z "$more" ] || { chown 7:8 new; mkdir -m 2775 shared; chown 0:42 shared; echo x >shared/of-42; }
  cd /
  varve commit -q v changed
  varve save -q changed -o "$HOME/changed.tar"
  varve umount v >&2`;

/** Faults are planted in all that a store consists of; the output is a line for each check. */
const CHECK = `
  checked() { # NAME CODE ARGUMENT...
    name=$1 wanted=$2 code=0
    shift 2
    varve check "$@" >"$HOME/checked" || code=$?
    [ "$code" = "$wanted" ] || { echo "$name: exit code $code"; cat "$HOME/checked"; exit 1; }
    echo "$name: $(sed -nE 's/^([a-z]+-[a-z]+) .*/\\1/p' "$HOME/checked" | sort | uniq -c | tr -s ' \\n' ' ')"
  }
  varve load -q -i "$1" >&2
  view=$(varve mount -q --pull never base --name v)
  echo new >"$view/data/new"; chmod 600 "$view/data/top"
  varve commit -q v changed >&2
  varve umount v >&2
  varve mount -q --pull never changed --name w >/dev/null
  checked clean 0 --verify-content
  varve umount w >&2
  cd "$VARVE_ROOT"
  echo stray >blobs/sha256/$(printf %064d 0)
  for file in snapshots/*/fs/data/of-33; do setfattr -x user.rootlesscontainers "$file" 2>/dev/null || chmod 755 "$file"; done
  checked planted 4 --verify-content
  checked repaired 0 --verify-content --repair
  checked again 0 --verify-content
  view=$(varve mount -q --name v)
  cat "$view/data/new" "$view/data/of-33"; echo
  varve umount v >&2
  rm -r views/*/upper
  checked lost 4 --repair`;

function session(who: RootlessUser & { readonly withOwners?: boolean }) {
  const more = who.withOwners === true ? "owners" : "";
  const { home, output } = runRootless(sandbox.directory, who, WORK, archive(), more);
  return { id: output.trim(), archive: readFileSync(path.join(home, "changed.tar")) };
}

const archive = () => sandbox.path("base.tar");

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
  const save = sandbox.client.saveImages({ references: ["base"], path: archive() });
  for await (const message of save) void message;
  chmodSync(archive(), 0o644);
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

  it("hears that passthrough, which needs root, is not to be had, and has the view without", () => {
    const script = `
      varve load -q -i "$1" >&2
      view=$(varve mount -q --pull never --io passthrough base --name v 2>"$HOME/said")
      cat "$view/data/of-33" "$HOME/said"
      varve views --format "{{.IO}}"
      varve umount v >&2`;
    const { output } = runRootless(sandbox.directory, { user: USER }, script, archive());
    expect(output).toMatch(
      /^of-33varve: warning: view "v" has no passthrough[^\n]*doctor[^\n]*\ncached\n$/,
    );
  });

  it.each([false, true])(
    "checks and repairs the store, with IDs of /etc/subuid: %s",
    (isMapped) => {
      const { output } = runRootless(sandbox.directory, { user: USER, isMapped }, CHECK, archive());
      // The layer whose file has lost its owner, or its mode, and the one on top of it.
      const faults = "1 blob-stray 2 snapshot-damaged";
      expect(output.split("\n").map((line) => line.trimEnd())).toEqual([
        ...["clean:", `planted:  ${faults}`, `repaired:  ${faults}`, "again:"],
        ...["new", "of-33", "lost:  2 view-missing", ""],
      ]);
    },
  );
});
