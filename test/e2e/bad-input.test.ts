/** Bad input gets one clear error that names the thing, a non-zero exit code, and leaves nothing. */

import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  attempt,
  makeImage,
  mountsBelow,
  type Outcome,
  PROJECT,
  run,
  Sandbox,
  shell,
} from "./sandbox.js";

const sandbox = new Sandbox("bad-input");
let before: ReturnType<typeof storeState>;

/** All that a failed command could leave behind. */
function storeState() {
  const list = (path: string) => readdirSync(sandbox.path(path)).sort();
  return {
    images: sandbox.varve("images", "--no-trunc", "--digests", "-a"),
    views: sandbox.varve("views", "--format", "{{.ID}} {{.Name}} {{.Status}} {{.Target}}"),
    blobs: list("root/blobs/sha256"),
    ingests: list("root/ingest"),
    snapshots: list("root/snapshots"),
    viewDirectories: list("root/views"),
    mounts: mountsBelow(sandbox.directory),
  };
}

/** One line on standard error that says `message`; nothing on standard output; exit code `status`. */
function expectFailure(outcome: Outcome, message: RegExp, status = 1): void {
  expect(outcome.stderr).toMatch(message);
  expect(outcome.stderr.split("\n").filter((line) => line.startsWith("varve: "))).toHaveLength(1);
  expect(outcome.stderr).not.toMatch(/\n\s+at /);
  expect(outcome.stdout).toBe("");
  expect(outcome.status).toBe(status);
}

/** A copy of the busybox layout that a test may damage. */
function damagedLayout(name: string, damage: string): string {
  const layout = sandbox.path(name);
  run(`${PROJECT}/scripts/make-image`, ["-o", layout]);
  shell(damage, { cwd: layout });
  return layout;
}

const LAYER = `layer=$(node -p 'const r=(d)=>JSON.parse(require("fs").readFileSync("blobs/sha256/"+d.slice(7)));r(JSON.parse(require("fs").readFileSync("index.json")).manifests[0].digest).layers[0].digest.slice(7)')`;

beforeAll(() => {
  sandbox.varve("load", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
  sandbox.mount("busybox", "taken");
}, 120_000);
beforeEach(() => {
  before = storeState();
});
afterAll(() => sandbox.dispose());

describe("a command that fails", () => {
  const unchanged = () => expect(storeState()).toEqual(before);

  it("names an image that is not there", () => {
    expectFailure(sandbox.try("mount", "nosuch:1"), /docker\.io\/library\/nosuch:1|nosuch:1/);
    expectFailure(sandbox.try("history", "nosuch"), /nosuch/);
    expectFailure(sandbox.try("rmi", "nosuch"), /nosuch/);
    expectFailure(sandbox.try("save", "nosuch", "-o", sandbox.path("no.tar")), /nosuch/);
    unchanged();
  });

  it("names a reference that is malformed", () => {
    expectFailure(sandbox.try("mount", "Not A Reference"), /Not A Reference/);
    expectFailure(sandbox.try("tag", "busybox", "lower/CASE"), /lower.?case/);
    unchanged();
  });

  it("finds a blob whose bytes are not its digest's", () => {
    const layout = damagedLayout(
      "flipped",
      `${LAYER}; printf X | dd of=blobs/sha256/$layer bs=1 seek=1000 conv=notrunc status=none`,
    );
    expectFailure(sandbox.try("load", "-i", layout), /sha256:[0-9a-f]{64}/);
    unchanged();
  });

  it("finds a blob of another size", () => {
    const layout = damagedLayout("short", `${LAYER}; truncate -s 5000 blobs/sha256/$layer`);
    expectFailure(sandbox.try("load", "-i", layout), /sha256:[0-9a-f]{64}/);
    unchanged();
  });

  it("names a blob that is missing", () => {
    // In a store of its own: a blob that is in the store already need not be in the archive.
    const empty = new Sandbox("missing-blob");
    try {
      const layout = damagedLayout("missing", `${LAYER}; rm blobs/sha256/$layer`);
      expectFailure(empty.try("load", "-i", layout), /sha256:[0-9a-f]{64}/);
      expect(empty.varve("images", "-aq")).toBe("");
      expect(readdirSync(empty.path("root/blobs/sha256"))).toEqual([]);
    } finally {
      empty.dispose();
    }
  });

  it("finds a truncated archive", () => {
    shell("head -c 500000 busybox.tar > truncated.tar", { cwd: sandbox.directory });
    expectFailure(sandbox.try("load", "-i", sandbox.path("truncated.tar")), /truncated/i);
    unchanged();
  });

  it("says when a file is no image archive", () => {
    writeFileSync(sandbox.path("noise"), "this is not a tar archive".repeat(1000));
    expectFailure(sandbox.try("load", "-i", sandbox.path("noise")), /noise/);
    expectFailure(sandbox.try("load", "-i", sandbox.path("not-there.tar")), /not-there\.tar/);
    shell("tar cf empty.tar -T /dev/null", { cwd: sandbox.directory });
    expectFailure(sandbox.try("load", "-i", sandbox.path("empty.tar")), /empty\.tar|no image/);
    unchanged();
  });

  it("finds a layer whose diff ID the config does not have", () => {
    const layout = damagedLayout(
      "wrong-diff-id",
      `
node -e '
const fs = require("fs"), crypto = require("crypto");
const read = (digest) => JSON.parse(fs.readFileSync("blobs/sha256/" + digest.slice(7)));
const write = (value) => { const data = JSON.stringify(value); const hex = crypto.createHash("sha256").update(data).digest("hex"); fs.writeFileSync("blobs/sha256/" + hex, data); return { digest: "sha256:" + hex, size: data.length }; };
const index = JSON.parse(fs.readFileSync("index.json"));
const manifest = read(index.manifests[0].digest), config = read(manifest.config.digest);
config.rootfs.diff_ids[0] = config.rootfs.diff_ids[0].replace(/.$/, (c) => (c === "0" ? "1" : "0"));
Object.assign(manifest.config, write(config));
Object.assign(index.manifests[0], write(manifest));
index.manifests[0].annotations = { "io.containerd.image.name": "docker.io/library/liar:1" };
fs.writeFileSync("index.json", JSON.stringify(index));'`,
    );
    const loaded = sandbox.try("load", "-i", layout);
    // Compressed layers are only opened when they are unpacked: either moment may find it.
    const outcome = loaded.status === 0 ? sandbox.try("mount", "liar:1") : loaded;
    expectFailure(outcome, /diff ID/);
    expect(readdirSync(sandbox.path("root/snapshots")).sort()).toEqual(before.snapshots);
    if (loaded.status === 0) sandbox.varve("rmi", "liar:1");
    unchanged();
  });

  it("refuses a target that is not empty or is no directory", () => {
    mkdirSync(sandbox.path("full"), { recursive: true });
    writeFileSync(sandbox.path("full/file"), "");
    expectFailure(sandbox.try("mount", "busybox", sandbox.path("full")), /full.*not empty/);
    expectFailure(sandbox.try("mount", "busybox", sandbox.path("full/file")), /full\/file/);
    unchanged();
  });

  it("refuses a name that is taken or malformed", () => {
    expectFailure(sandbox.try("mount", "busybox", "--name", "taken"), /taken/);
    expectFailure(sandbox.try("mount", "busybox", "--name", "../up"), /\.\.\/up/);
    unchanged();
  });

  it("refuses to remove what is in use", () => {
    expectFailure(sandbox.try("rm", "taken"), /taken.*mounted/);
    expectFailure(sandbox.try("rmi", "busybox"), /taken|in use|used by/);
    const busy = spawn("sleep", ["60"], {
      cwd: sandbox.varve("inspect", "taken", "--format", "{{.Target}}"),
      stdio: "ignore",
    });
    try {
      expectFailure(sandbox.try("umount", "taken"), /in use|busy/);
    } finally {
      busy.kill();
    }
    unchanged();
  });

  it("says what is wrong with a commit instruction", () => {
    expectFailure(sandbox.try("commit", "taken", "x:1", "-c", "FROM scratch"), /FROM/);
    expectFailure(sandbox.try("commit", "nosuchview", "x:1"), /nosuchview/);
    unchanged();
  });

  it("answers a wrong flag or command with its usage and exit code 2", () => {
    expectFailure(sandbox.try("mount", "--nosuchflag"), /nosuchflag/, 2);
    expectFailure(sandbox.try("moutn"), /moutn[\s\S]*mount/, 2);
    expectFailure(sandbox.try("diff"), /view/, 2);
    unchanged();
  });
});

describe("a daemon that cannot do its work", () => {
  it("is not started when that is forbidden, and the message says where it was looked for", () => {
    const outcome = attempt(`${PROJECT}/bin/varve`, ["--no-autostart", "images"], {
      env: { ...sandbox.env, VARVE_SOCKET: sandbox.path("nobody/varve.sock") },
    });
    expectFailure(outcome, /nobody\/varve\.sock/);
  });

  it("says so when its root is in use by another", () => {
    const outcome = attempt(
      `${PROJECT}/bin/varve`,
      ["daemon", "--state", sandbox.path("other-state"), "--socket", sandbox.path("other.sock")],
      {
        env: { VARVE_ROOT: sandbox.path("root") },
      },
    );
    expect(outcome.status).not.toBe(0);
    const pid = readFileSync(sandbox.path("state/daemon.pid"), "utf8").trim();
    expect(outcome.stderr + outcome.stdout).toContain(pid);
  });

  it("explains a missing /dev/fuse, and the view is not left half made", () => {
    const other = new Sandbox("no-fuse");
    try {
      const script = `
mount -t tmpfs none /dev
mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9
bin/varve load -q -i "$IMAGE" >/dev/null
bin/varve mount busybox --name x; echo "status $?"
bin/varve views -q
bin/varve daemon stop`;
      const outcome = attempt("unshare", ["--mount", "bash", "-c", script], {
        cwd: PROJECT,
        env: { ...other.env, IMAGE: sandbox.path("busybox.tar") },
      });
      expect(outcome.stderr).toMatch(/^varve: .*\/dev\/fuse/m);
      expect(outcome.stdout.trim()).toBe("status 1");
    } finally {
      other.dispose();
    }
  });

  it("keeps other users out of its socket", () => {
    const outcome = attempt(
      "setpriv",
      [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        `${PROJECT}/bin/varve`,
        "--no-autostart",
        "images",
      ],
      { env: sandbox.env },
    );
    expectFailure(outcome, /permission|denied/i);
  });
});
