/**
 * Takes a tree apart and compares two: names as bytes, types, modes, owners, sizes, contents, times,
 * extended attributes, symlink targets, device numbers and hard-link groups. Used wherever a test
 * says "the same tree". It reads through Node's fs and getfattr, not through varve's own code, so
 * that a fault in ours cannot hide itself.
 */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { type BigIntStats, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

/** One entry of a tree, in comparable text. */
export interface TreeEntry {
  readonly type: string;
  readonly mode: string;
  readonly owner: string;
  readonly size: string;
  readonly mtime: string;
  readonly content: string;
  readonly target: string;
  readonly device: string;
  readonly xattrs: string;
  /** The first name (in byte order) of the same inode; its own name for a single one. */
  readonly linkGroup: string;
}

/** Path (latin1 bytes, "" for the root) to entry. */
export type Tree = ReadonlyMap<string, TreeEntry>;

/** What to look at; all of it by default. */
export interface TreeOptions {
  /** "ns" as stored, "s" whole seconds, "none" not at all. */
  readonly mtime?: "ns" | "s" | "none";
  /** Directories' own times, which some tools do not keep. */
  readonly directoryTimes?: boolean;
  readonly owners?: boolean;
  readonly xattrs?: boolean;
  /** Paths (latin1) left out, with everything below. */
  readonly ignore?: readonly string[];
}

const TYPES: ReadonlyMap<number, string> = new Map([
  [0o140000, "socket"],
  [0o120000, "symlink"],
  [0o100000, "file"],
  [0o060000, "block device"],
  [0o040000, "directory"],
  [0o020000, "character device"],
  [0o010000, "fifo"],
]);

/** Reads the tree below `directory`. */
export function readTree(directory: string, options: TreeOptions = {}): Tree {
  const paths = walk(Buffer.from(directory), "", new Set(options.ignore ?? []));
  const xattrs = options.xattrs === false ? new Map<string, string>() : readXattrs(directory);
  const stats = new Map(paths.map((path) => [path, statOf(directory, path)] as const));
  const groups = new Map<bigint, string>();
  for (const path of [...paths].sort()) {
    const ino = stats.get(path)!.ino;
    if (!groups.has(ino)) groups.set(ino, path);
  }
  const tree = new Map<string, TreeEntry>();
  for (const path of paths.sort()) {
    const stat = stats.get(path)!;
    const linked = !stat.isDirectory() && stat.nlink > 1n ? groups.get(stat.ino)! : path;
    tree.set(path, entryOf(directory, path, stat, xattrs.get(path) ?? "", linked, options));
  }
  return tree;
}

function entryOf(
  directory: string,
  path: string,
  stat: BigIntStats,
  xattrs: string,
  linkGroup: string,
  options: TreeOptions,
): TreeEntry {
  const type = TYPES.get(Number(stat.mode) & 0o170000) ?? "unknown";
  const full = fullPath(directory, path);
  const isDevice = type.endsWith("device");
  return {
    type,
    mode: (Number(stat.mode) & 0o7777).toString(8),
    owner: options.owners === false ? "" : `${stat.uid}:${stat.gid}`,
    size: type === "file" ? String(stat.size) : "",
    mtime: timeOf(stat, options),
    content: type === "file" ? hashOf(full) : "",
    target: type === "symlink" ? readlinkSync(full, "buffer").toString("latin1") : "",
    device: isDevice ? String(stat.rdev) : "",
    xattrs,
    linkGroup,
  };
}

function timeOf(stat: BigIntStats, options: TreeOptions): string {
  const precision = options.mtime ?? "ns";
  if (precision === "none") return "";
  if (stat.isDirectory() && options.directoryTimes === false) return "";
  return precision === "ns" ? String(stat.mtimeNs) : String(stat.mtimeNs / 1_000_000_000n);
}

function hashOf(path: Buffer): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

function fullPath(directory: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(directory), Buffer.from("/"), Buffer.from(path, "latin1")]);
}

function statOf(directory: string, path: string): BigIntStats {
  return lstatSync(path === "" ? Buffer.from(directory) : fullPath(directory, path), {
    bigint: true,
  });
}

function walk(directory: Buffer, path: string, ignored: ReadonlySet<string>): string[] {
  const found = [path];
  for (const name of readdirSync(directory, { encoding: "buffer" })) {
    const child = path === "" ? name.toString("latin1") : `${path}/${name.toString("latin1")}`;
    if (ignored.has(child)) continue;
    const full = Buffer.concat([directory, Buffer.from("/"), name]);
    if (lstatSync(full).isDirectory()) found.push(...walk(full, child, ignored));
    else found.push(child);
  }
  return found;
}

/** All extended attributes but the overlay's own, as getfattr prints them in hex. */
function readXattrs(directory: string): Map<string, string> {
  const output = execFileSync(
    "getfattr",
    ["--recursive", "--physical", "--no-dereference", "--dump", "--match=-", "--encoding=hex", "."],
    { cwd: directory, encoding: "latin1", maxBuffer: 1 << 30, stdio: ["ignore", "pipe", "pipe"] },
  );
  const found = new Map<string, string>();
  for (const block of output.split("\n\n")) {
    const [head, ...lines] = block.split("\n").filter((line) => line !== "");
    if (head === undefined || !head.startsWith("# file: ")) continue;
    const path = unescapeOctal(head.slice("# file: ".length)).replace(/^\.(\/|$)/, "");
    const own = lines.filter((line) => !/^(trusted|user)\.overlay\./.test(line));
    if (own.length > 0) found.set(path, own.sort().join("\n"));
  }
  return found;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The differences between two trees as lines for a person; empty when they are the same. */
export function compareTrees(left: Tree, right: Tree): string[] {
  const differences: string[] = [];
  for (const [path, entry] of left) {
    const other = right.get(path);
    if (other === undefined) {
      differences.push(`${show(path)}: only on the left (${entry.type})`);
      continue;
    }
    for (const field of Object.keys(entry) as (keyof TreeEntry)[]) {
      if (entry[field] !== other[field])
        differences.push(`${show(path)}: ${field} ${entry[field]} / ${other[field]}`);
    }
  }
  for (const [path, entry] of right)
    if (!left.has(path)) differences.push(`${show(path)}: only on the right (${entry.type})`);
  return differences;
}

function show(path: string): string {
  return path === "" ? "/" : JSON.stringify(`/${path}`);
}
