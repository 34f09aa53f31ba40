/** Random operations that do the same to a view and to a plain tree, and compare the results. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect } from "vitest";
import { FATTR_MODE, FATTR_SIZE } from "../../src/fuse/file-system.js";
import { sys } from "../../src/system/addon.js";
import { toBytes } from "../../src/system/bytes.js";
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "../../src/system/constants.js";
import { ENOENT, ENOTDIR } from "../../src/system/errno.js";
import {
  STAT_GID,
  STAT_MODE,
  STAT_NLINK,
  STAT_SIZE,
  STAT_SLOTS,
  STAT_UID,
} from "../../src/system/native.js";
import { CALLER, change, newAttributes, ViewDriver } from "../unit/overlay/view-driver.js";

const LAYER_0 = `mkdir -p a/b/c d/e d/f empty; echo one >a/one; echo two >a/b/two; ln a/one d/uno; ln a/one d/e/eins
  head -c 40000 /dev/zero | tr '\\0' x >a/big; ln -s none a/link; echo deep >a/b/c/deep; echo gone >d/gone
  echo red >d/f/x; ln d/f/x a/b/x`;
const LAYER_1 = `mkdir -p a/b d; echo three >a/b/three; mknod d/gone c 0 0; echo new >a/new`;

const NAMES = ["a", "b", "d", "e", "f", "one", "big", "x", "uno", "new"];

/** The plain directory, by system calls. */
export class Model {
  readonly path = mkdtempSync(join(tmpdir(), "varve-model-"));
  readonly root = sys.open(toBytes(this.path), O_PATH | O_DIRECTORY, 0);
  readonly #stat = new Float64Array(STAT_SLOTS);

  run(path: string, flags: number, use: (fd: number) => number): number {
    const fd = sys.openat(this.root, toBytes(path), flags | O_NOFOLLOW, 0o644);
    if (fd < 0) return fd;
    const result = use(fd);
    sys.close(fd);
    return result;
  }

  tree(): Map<string, string> {
    const result = new Map<string, string>();
    const visit = (path: string) => {
      const at = toBytes(path === "" ? "." : path.slice(1));
      sys.statx(this.root, at, AT_SYMLINK_NOFOLLOW, this.#stat);
      const stat = this.#stat.slice();
      const mode = stat[STAT_MODE]!;
      const words: (string | number)[] = [mode.toString(8), stat[STAT_NLINK]!];
      words.push(stat[STAT_UID]!, stat[STAT_GID]!);
      if ((mode & S_IFMT) === S_IFREG) words.push(stat[STAT_SIZE]!, this.content(path.slice(1)));
      if ((mode & S_IFMT) === S_IFLNK) words.push(sys.readlinkat(this.root, at));
      const value = sys.getxattrat(this.root, at, toBytes("user.test"));
      if (typeof value !== "number") words.push(value.toString("hex"));
      result.set(path, words.join(" "));
      if ((mode & S_IFMT) !== S_IFDIR) return;
      const fd = sys.openat(this.root, at, O_RDONLY | O_DIRECTORY, 0);
      const listing = sys.readDirectory(fd);
      sys.close(fd);
      if (typeof listing === "number") throw new Error(`readDirectory ${path}`);
      for (const name of listing.names) visit(`${path}/${name}`);
    };
    visit("");
    return result;
  }

  content(path: string): string {
    let text = "";
    this.run(path, O_RDONLY, (fd) => {
      text = this.contentOf(fd);
      return 0;
    });
    return text;
  }

  contentOf(fd: number): string {
    sys.statx(fd, toBytes(""), AT_EMPTY_PATH, this.#stat);
    const data = Buffer.alloc(this.#stat[STAT_SIZE]!);
    sys.pread(fd, data, 0, data.length, 0);
    return data.toString("hex");
  }

  linksOf(fd: number): number {
    sys.statx(fd, toBytes(""), AT_EMPTY_PATH, this.#stat);
    return this.#stat[STAT_NLINK]!;
  }

  dispose(): void {
    sys.close(this.root);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A file kept open in both worlds. */
interface Open {
  readonly node: number;
  readonly fd: number;
}

export class World {
  readonly view: ViewDriver;
  readonly model = new Model();
  readonly open: Open[] = [];

  constructor(layers: readonly string[], isLive = false) {
    this.view = new ViewDriver(isLive);
    for (const layer of layers) {
      this.view.addLayer((fsDir) => {
        execFileSync("cp", ["-a", `${layer}/.`, fsDir]);
      });
    }
    this.view.open();
  }

  dispose(): void {
    for (const { fd } of this.open) sys.close(fd);
    this.model.dispose();
    this.view.dispose();
  }
}

type Run = (world: World) => void;

/** An operation that a counterexample prints by its label. */
export interface Step {
  readonly run: Run;
  readonly [fc.toStringMethod]: () => string;
}

function step(label: string, run: Run): Step {
  return { run, [fc.toStringMethod]: () => label };
}

function same(what: string, view: number, model: number): void {
  // Node IDs, descriptors and counts are success. The driver walks without following symlinks, so a
  // dangling one in the middle is ENOTDIR to it and ENOENT to the model.
  const normal = (result: number) => (result === -ENOTDIR ? -ENOENT : Math.min(result, 0));
  expect(`${what}: ${normal(view)}`).toBe(`${what}: ${normal(model)}`);
}

const path = fc
  .array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join("/"));
const existing = fc.oneof(
  path,
  fc.constantFrom(
    "a/one",
    "a/b/two",
    "a/big",
    "d/uno",
    "d/e/eins",
    "a/b",
    "a/b/c",
    "d",
    "d/f",
    "d/f/x",
    "empty",
    "a/link",
  ),
);

export const steps: fc.Arbitrary<Step>[] = [
  path.map((p) =>
    step(`create ${p}`, ({ view, model }) => {
      const made = model.run(p, O_CREAT | O_EXCL | O_RDWR, () => 0);
      same(`create ${p}`, view.create(p), made);
    }),
  ),
  path.map((p) =>
    step(`mkdir ${p}`, ({ view, model }) => {
      const made = sys.mkdirat(model.root, toBytes(p), 0o755);
      same(`mkdir ${p}`, view.create(p, S_IFDIR | 0o755), made);
    }),
  ),
  path.map((p) =>
    step(`symlink ${p}`, ({ view, model }) => {
      const made = sys.symlinkat(toBytes("none"), model.root, toBytes(p));
      same(`symlink ${p}`, view.symlink(p, "none"), made);
    }),
  ),
  existing.map((p) =>
    step(`unlink ${p}`, ({ view, model }) => {
      same(`unlink ${p}`, view.unlink(p), sys.unlinkat(model.root, toBytes(p), 0));
    }),
  ),
  existing.map((p) =>
    step(`rmdir ${p}`, ({ view, model }) => {
      same(`rmdir ${p}`, view.rmdir(p), sys.unlinkat(model.root, toBytes(p), AT_REMOVEDIR));
    }),
  ),
  fc.tuple(existing, existing, fc.constantFrom(0, 0, 0, 1, 2)).map(([p, q, flags]) =>
    step(`rename ${p} ${q} ${flags}`, ({ view, model }) => {
      const done = sys.renameat2(model.root, toBytes(p), model.root, toBytes(q), flags);
      // The VFS, not the file system, refuses an ancestor of the source as the target.
      if (p.startsWith(`${q}/`) || q.startsWith(`${p}/`)) expect(done).toBeLessThan(0);
      else same(`rename ${p} ${q} ${flags}`, view.rename(p, q, flags), done);
    }),
  ),
  fc.tuple(existing, path).map(([p, q]) =>
    step(`link ${p} ${q}`, ({ view, model }) => {
      const done = sys.linkat(model.root, toBytes(p), model.root, toBytes(q), 0);
      same(`link ${p} ${q}`, view.link(p, q), done);
    }),
  ),
  fc.tuple(existing, fc.nat(50_000), fc.nat(9)).map(([p, offset, length]) =>
    step(`write ${p} ${offset}`, ({ view, model }) => {
      const data = Buffer.alloc(length + 1, "w");
      const done = model.run(p, O_RDWR, (fd) => sys.pwrite(fd, data, 0, data.length, offset));
      // Opening is the kernel's business in cached mode: compare where a regular file was opened.
      if (done > 0) same(`write ${p}`, view.write(p, data.toString(), offset), done);
    }),
  ),
  fc.tuple(existing, fc.nat(60_000)).map(([p, size]) =>
    step(`truncate ${p} ${size}`, ({ view, model }) => {
      const done = model.run(p, O_RDWR, (fd) => sys.ftruncate(fd, size));
      if (done < 0) return;
      const set = change({ valid: FATTR_SIZE, size });
      const result = view.fs.setattr(CALLER, view.walk(p), set, newAttributes());
      same(`truncate ${p}`, result, done);
    }),
  ),
  fc.tuple(existing, fc.constantFrom(0o700, 0o755, 0o744)).map(([p, mode]) =>
    step(`chmod ${p} ${mode}`, ({ view, model }) => {
      const node = view.walk(p);
      if (node < 0 || typeOf(view, node) === S_IFLNK) return;
      const result = view.fs.setattr(
        CALLER,
        node,
        change({ valid: FATTR_MODE, mode }),
        newAttributes(),
      );
      same(`chmod ${p}`, result, sys.fchmodat(model.root, toBytes(p), mode));
    }),
  ),
  fc.tuple(existing, fc.nat(255)).map(([p, byte]) =>
    step(`setxattr ${p}`, ({ view, model }) => {
      const node = view.walk(p);
      if (node < 0 || typeOf(view, node) === S_IFLNK) return;
      const value = Buffer.from([byte]);
      const result = view.fs.setxattr(CALLER, node, ATTRIBUTE, value, 0, false);
      same(`setxattr ${p}`, result, sys.setxattrat(model.root, toBytes(p), ATTRIBUTE, value, 0));
    }),
  ),
  existing.map((p) =>
    step(`open ${p}`, ({ view, model, open }) => {
      const node = view.walk(p);
      if (node < 0 || typeOf(view, node) !== S_IFREG) return;
      open.push({ node, fd: sys.openat(model.root, toBytes(p), O_RDWR | O_NOFOLLOW, 0) });
    }),
  ),
  fc.tuple(fc.nat(), fc.nat(100)).map(([which, offset]) =>
    step(`write open ${which} ${offset}`, ({ view, model, open }) => {
      if (open.length === 0) return;
      const { node, fd } = open[which % open.length]!;
      const data = Buffer.from("open");
      const done = sys.pwrite(fd, data, 0, data.length, offset);
      same("write open", view.fs.write(node, 0, offset, data, 0), done);
      expect((view.readNode(node) as Buffer).toString("hex")).toBe(model.contentOf(fd));
      expect(view.attributes(node).nlink).toBe(model.linksOf(fd));
    }),
  ),
  fc.constant(
    step("forget", ({ view, open }) => view.forgetAll(new Set(open.map(({ node }) => node)))),
  ),
];

const ATTRIBUTE = toBytes("user.test");

function typeOf(view: ViewDriver, node: number): number {
  return view.attributes(node).mode & S_IFMT;
}

/** Layers to start from, and the same tree merged by hand. */
export class Origin {
  readonly path = mkdtempSync(join(tmpdir(), "varve-property-"));
  readonly layers = [this.#make("0", LAYER_0), this.#make("1", LAYER_1)];
  readonly merged = this.#make("merged", "cp -a ../0/. .; rm d/gone; cp -a ../1/a/. a/");

  #make(name: string, script: string): string {
    const directory = join(this.path, name);
    mkdirSync(directory);
    execFileSync("bash", ["-euc", script], { cwd: directory });
    return directory;
  }

  /** A view of the layers and a copy of the merged tree. */
  world(isLive: boolean): World {
    const world = new World(this.layers, isLive);
    execFileSync("cp", ["-a", `${this.merged}/.`, world.model.path]);
    return world;
  }

  dispose(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Fails unless both trees are the same to a user. */
export function checkTrees({ view, model }: World): void {
  expect(Object.fromEntries(view.tree())).toEqual(Object.fromEntries(model.tree()));
}
