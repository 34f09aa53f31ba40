/** What is different between two subjects, whatever layers they are made of. */

import type { ByteString } from "../system/bytes.js";
import { readBeneath } from "./file-content.js";
import { type Entry, KIND, pathOf, presentEntry, type TreeNode } from "./merged-tree.js";
import type { Subject } from "./subject.js";

/** A path that is not the same in both. */
export interface Difference {
  readonly kind: "A" | "C" | "D";
  readonly path: ByteString;
  /** Undefined where the left one does not have it. */
  readonly left: Entry | undefined;
  readonly right: Entry | undefined;
}

/** Files of the same size with different times are read, but no larger ones than this. */
const MAX_COMPARED_BYTES = 8 << 20;

/** In the order of paths. */
export function compareSubjects(left: Subject, right: Subject): Difference[] {
  const differences: Difference[] = [];
  visit(left.tree.root, right.tree.root);
  return differences;

  function visit(a: TreeNode | undefined, b: TreeNode | undefined): void {
    const names = new Set<ByteString>([
      ...(a?.children.keys() ?? []),
      ...(b?.children.keys() ?? []),
    ]);
    for (const name of [...names].sort()) {
      compare(a?.children.get(name), b?.children.get(name));
    }
  }

  function compare(a: TreeNode | undefined, b: TreeNode | undefined): void {
    const old = a && presentEntry(a);
    const recent = b && presentEntry(b);
    const path = pathOf((b ?? a)!);
    if (old === undefined && recent === undefined) return;
    if (old === undefined) differences.push({ kind: "A", path, left: old, right: recent });
    else if (recent === undefined) differences.push({ kind: "D", path, left: old, right: recent });
    else if (!isSame(a!, b!, old, recent)) {
      differences.push({ kind: "C", path, left: old, right: recent });
    }
    visit(a, b);
  }

  function isSame(a: TreeNode, b: TreeNode, old: Entry, recent: Entry): boolean {
    if (old === recent) return true;
    if (old.mode !== recent.mode || old.uid !== recent.uid || old.gid !== recent.gid) return false;
    if (old.kind !== KIND.file) return old.target === recent.target;
    const from = left.layers[a.steps.at(-1)!.layer]!;
    const to = right.layers[b.steps.at(-1)!.layer]!;
    if (from.chainId !== "" && from.chainId === to.chainId) return true;
    if (old.mtimeMs === recent.mtimeMs && old.size === recent.size) return true;
    return hasSameBytes(from.directories, to.directories, pathOf(a), old.size, recent.size);
  }
}

function hasSameBytes(
  left: readonly string[],
  right: readonly string[],
  path: ByteString,
  leftSize: number,
  rightSize: number,
): boolean {
  // A size of 0 may be that of a further hard link.
  if (leftSize !== rightSize && leftSize > 0 && rightSize > 0) return false;
  const read = (directories: readonly string[]) =>
    directories
      .map((directory) => readBeneath(directory, path, MAX_COMPARED_BYTES + 1))
      .find((found) => found !== undefined);
  const a = read(left);
  const b = read(right);
  if (a === undefined || b === undefined || a.length > MAX_COMPARED_BYTES) return false;
  return a.equals(b);
}
