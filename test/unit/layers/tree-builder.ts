/** Builds small trees in the overlay's format (user.* attributes, so that no test needs root). */

import { linkSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, toBytes } from "../../../src/system/bytes.js";
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, S_IFCHR } from "../../../src/system/constants.js";
import { must } from "../../../src/system/errno.js";

export interface Node {
  readonly kind: "file" | "directory" | "symlink" | "whiteout" | "hardlink";
  readonly text?: string;
  readonly mode?: number;
  /** Seconds since the epoch. */
  readonly mtime?: number;
  readonly xattrs?: Readonly<Record<string, string | Buffer>>;
}

type Extra = Pick<Node, "mode" | "mtime" | "xattrs">;

export const file = (text: string, extra: Extra = {}): Node => ({ kind: "file", text, ...extra });
export const directory = (extra: Extra = {}): Node => ({ kind: "directory", ...extra });
export const symlink = (target: string): Node => ({ kind: "symlink", text: target });
export const hardlink = (path: string): Node => ({ kind: "hardlink", text: path });
export const whiteout: Node = { kind: "whiteout" };
export const opaque = directory({ xattrs: { "user.overlay.opaque": "y" } });

/** Time of everything that names none: a tree built twice is the same. */
export const DEFAULT_MTIME = 1_000_000_000;

/** Makes the nodes below `root`, parents first; missing parents get mode 0755. */
export function buildTree(root: string, nodes: Readonly<Record<string, Node>>): string {
  mkdirSync(root, { recursive: true });
  // Hard links last: what they lead to must be there.
  const isLink = (path: string) => (nodes[path]!.kind === "hardlink" ? 1 : 0);
  const paths = Object.keys(nodes).sort((a, b) => isLink(a) - isLink(b) || (a < b ? -1 : 1));
  const made = new Map<string, Node>();
  for (const path of paths) {
    const parts = path.split("/");
    for (let depth = 1; depth < parts.length; depth += 1) {
      const parent = parts.slice(0, depth).join("/");
      if (!made.has(parent)) make(root, parent, directory());
      if (!made.has(parent)) made.set(parent, directory());
    }
    make(root, path, nodes[path]!);
    made.set(path, nodes[path]!);
  }
  // Deepest first, because making an entry moves its parent's time.
  for (const [path, node] of [...made].sort((a, b) => (a[0] < b[0] ? 1 : -1)))
    describe(root, path, node);
  setTime(root, DEFAULT_MTIME);
  return root;
}

function make(root: string, path: string, node: Node): void {
  const at = join(root, path);
  if (node.kind === "file") writeFileSync(at, node.text ?? "");
  else if (node.kind === "directory") mkdirSync(at, { recursive: true });
  else if (node.kind === "symlink") symlinkSync(node.text ?? "", at);
  else if (node.kind === "hardlink") linkSync(join(root, node.text ?? ""), at);
  else must(sys.mknodat(AT_FDCWD, toBytes(at), S_IFCHR, 0), "mknod", at);
}

function describe(root: string, path: string, node: Node): void {
  const at = toBytes(join(root, path));
  if (node.kind === "file" || node.kind === "directory")
    sys.fchmodat(AT_FDCWD, at, node.mode ?? (node.kind === "file" ? 0o644 : 0o755));
  for (const [name, value] of Object.entries(node.xattrs ?? {}))
    must(
      sys.setxattrat(AT_FDCWD, at, name as ByteString, Buffer.from(value as string), 0),
      "setxattr",
      path,
    );
  if (node.kind !== "hardlink") setTime(join(root, path), node.mtime ?? DEFAULT_MTIME);
}

function setTime(path: string, mtime: number): void {
  must(
    sys.utimensat(AT_FDCWD, toBytes(path), mtime, 0, mtime, 0, AT_SYMLINK_NOFOLLOW),
    "utimensat",
    dirname(path),
  );
}
