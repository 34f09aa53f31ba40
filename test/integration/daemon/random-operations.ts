/** Random system calls on a view and on a plain copy of its tree: every result must be the same. */

import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
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
  RENAME_EXCHANGE,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from "../../../src/system/constants.js";
import { EEXIST, ENOTEMPTY } from "../../../src/system/errno.js";
import { STAT_MODE, STAT_NLINK, STAT_SIZE, STAT_SLOTS } from "../../../src/system/native.js";
import { randomNumbers } from "../../tools/random.js";

/** Some of them are in the lower. */
const NAMES = ["deep", "file", "link", "top", "a", "b", "c"];
const MOST_OPEN = 20;
const XATTR_CREATE = 1;
const BUFFER = Buffer.alloc(60_000);

/** One side: the view or the plain tree. */
interface Side {
  readonly root: number;
  readonly open: number[];
}

/** What one step does; chosen once, done on both sides. */
interface Step {
  readonly kind: number;
  readonly path: string;
  readonly other: string;
  readonly data: Buffer;
  readonly offset: number;
  readonly which: number;
}

function chooseStep(random: (below: number) => number, open: number): Step {
  const path = () =>
    Array.from({ length: 1 + random(3) }, () => NAMES[random(NAMES.length)]).join("/");
  return {
    kind: random(KINDS.length),
    path: path(),
    other: path(),
    data: Buffer.alloc(1 + random(9000), 65 + random(26)),
    offset: random(20_000),
    which: open === 0 ? 0 : random(open),
  };
}

type Outcome = number | string;

function withFile(side: Side, path: string, flags: number, use: (fd: number) => Outcome): Outcome {
  const fd = sys.openat(side.root, toBytes(path), flags | O_NOFOLLOW, 0o644);
  if (fd < 0) return fd;
  const outcome = use(fd);
  sys.close(fd);
  return outcome;
}

function statOf(dirfd: number, path: string, flags: number): Outcome {
  const stat = new Float64Array(STAT_SLOTS);
  const result = sys.statx(dirfd, toBytes(path), flags, stat);
  if (result < 0) return result;
  const mode = stat[STAT_MODE]!;
  // Sizes and link counts of directories are the file system's own business.
  if ((mode & S_IFMT) === S_IFDIR) return mode.toString(8);
  return `${mode.toString(8)} ${stat[STAT_NLINK]} ${stat[STAT_SIZE]}`;
}

function contentOf(fd: number): Outcome {
  const length = sys.pread(fd, BUFFER, 0, BUFFER.length, 0);
  return length < 0 ? length : BUFFER.toString("latin1", 0, length);
}

function namesOf(side: Side, path: string): Outcome {
  return withFile(side, path, O_RDONLY | O_DIRECTORY, (fd) => {
    const listing = sys.readDirectory(fd);
    return typeof listing === "number" ? listing : listing.names.toSorted().join(" ");
  });
}

const EXCLUSIVE = O_CREAT | O_EXCL | O_RDWR;
const KINDS: readonly ((side: Side, step: Step) => Outcome)[] = [
  (side, { path }) => sys.mkdirat(side.root, toBytes(path), 0o755),
  (side, { path, data, offset }) =>
    withFile(side, path, EXCLUSIVE, (fd) => sys.pwrite(fd, data, 0, data.length, offset)),
  (side, { path, data, offset }) =>
    withFile(side, path, O_CREAT | O_RDWR, (fd) => sys.pwrite(fd, data, 0, data.length, offset)),
  (side, { path, other }) => {
    const result = sys.renameat2(side.root, toBytes(path), side.root, toBytes(other), 0);
    // What POSIX leaves open for a directory that is not empty: XFS says this, others that.
    return result === -EEXIST ? -ENOTEMPTY : result;
  },
  (side, { path, other }) =>
    sys.renameat2(side.root, toBytes(path), side.root, toBytes(other), RENAME_EXCHANGE),
  (side, { path }) => sys.unlinkat(side.root, toBytes(path), 0),
  (side, { path }) => sys.unlinkat(side.root, toBytes(path), AT_REMOVEDIR),
  (side, { path, other }) => sys.linkat(side.root, toBytes(path), side.root, toBytes(other), 0),
  (side, { path, other }) => sys.symlinkat(toBytes(other), side.root, toBytes(path)),
  (side, { path }) => sys.mknodat(side.root, toBytes(path), S_IFREG | 0o640, 0),
  (side, { path, offset }) =>
    withFile(side, path, O_RDONLY, (fd) => sys.fchmod(fd, 0o600 | (offset & 0o77))),
  (side, { path, offset }) => withFile(side, path, O_RDWR, (fd) => sys.ftruncate(fd, offset)),
  (side, { path, data }) =>
    withFile(side, path, O_RDWR, (fd) =>
      sys.setxattrat(fd, toBytes(""), toBytes("user.t"), data.subarray(0, 50), XATTR_CREATE),
    ),
  (side, { path }) =>
    withFile(side, path, O_RDWR, (fd) => sys.removexattrat(fd, toBytes(""), toBytes("user.t"))),
  (side, { path }) => namesOf(side, path),
  (side, { path }) => statOf(side.root, path, AT_SYMLINK_NOFOLLOW),
  (side, { path }) => withFile(side, path, O_RDONLY, contentOf),
  (side, { path }) => {
    if (side.open.length >= MOST_OPEN) return 0;
    const fd = sys.openat(side.root, toBytes(path), O_RDWR | O_NOFOLLOW, 0);
    if (fd >= 0) side.open.push(fd);
    return Math.min(fd, 0);
  },
  (side, { which }) => (side.open.length === 0 ? 0 : sys.close(side.open.splice(which, 1)[0]!)),
  (side, { which, data, offset }) => {
    const fd = side.open[which];
    return fd === undefined ? 0 : sys.pwrite(fd, data, 0, data.length, offset);
  },
  (side, { which }) => {
    const fd = side.open[which];
    return fd === undefined ? 0 : `${statOf(fd, "", AT_EMPTY_PATH)} ${contentOf(fd)}`;
  },
];

/** Every path of a tree with what `statOf` and `contentOf` say of it. */
function treeOf(side: Side): Map<string, string> {
  const tree = new Map<string, string>();
  const visit = (path: string) => {
    const names = namesOf(side, path);
    if (typeof names === "number" || names === "") return;
    for (const name of names.split(" ")) {
      const at = path === "." ? name : `${path}/${name}`;
      const content = withFile(side, at, O_RDONLY, contentOf);
      tree.set(at, `${statOf(side.root, at, AT_SYMLINK_NOFOLLOW)} ${content}`);
      visit(at);
    }
  };
  visit(".");
  return tree;
}

/**
 * Does random operations until `isOver` and compares the trees at the end.
 *
 * @returns how many
 * @throws Error a result that differs, with the seed and the step
 */
export function doRandomOperations(o: {
  view: string;
  plain: string;
  seed: number;
  isOver(): boolean;
}): number {
  const random = randomNumbers(o.seed);
  const [view, plain] = [o.view, o.plain].map((path): Side => {
    return { root: sys.open(toBytes(path), O_PATH | O_DIRECTORY, 0), open: [] };
  }) as [Side, Side];
  let done = 0;
  try {
    for (; !o.isOver(); done++) {
      const step = chooseStep(random, view.open.length);
      const results = [view, plain].map((side) => KINDS[step.kind]!(side, step));
      if (results[0] === results[1]) continue;
      const what = `seed ${o.seed}, step ${done}: kind ${step.kind} ${step.path} ${step.other}`;
      throw new Error(
        `${what}: ${String(results[0]).slice(0, 80)}, want ${String(results[1]).slice(0, 80)}`,
      );
    }
    const [got, wanted] = [treeOf(view), treeOf(plain)];
    for (const [path, entry] of wanted) {
      if (got.get(path) !== entry) throw new Error(`seed ${o.seed}: ${path} differs at the end`);
    }
    if (got.size !== wanted.size) throw new Error(`seed ${o.seed}: the view has more entries`);
  } finally {
    for (const side of [view, plain]) for (const fd of [side.root, ...side.open]) sys.close(fd);
  }
  return done;
}
