/** Random layers in the overlay's format, for the property tests of index and diff. */

import fc from "fast-check";
import {
  DEFAULT_MTIME,
  directory,
  file,
  hardlink,
  type Node,
  opaque,
  symlink,
  whiteout,
} from "../unit/layers/tree-builder.js";

export type Layer = Record<string, Node>;

const name = fc.constantFrom("a", "b", "c", "a-", "a.b", "B", "\u00e9");
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
const time = fc.constantFrom(DEFAULT_MTIME, 1, 1_700_000_000);
const text = fc.constantFrom("x", "y", "long");

const object: fc.Arbitrary<Node> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.tuple(text, time).map(([content, mtime]) => file(content, { mtime })),
  },
  { weight: 1, arbitrary: fc.constantFrom("a", "../b").map(symlink) },
  { weight: 3, arbitrary: fc.constantFrom(0o755, 0o700).map((mode) => directory({ mode })) },
);
const upperObject = fc.oneof(
  { weight: 4, arbitrary: object },
  { weight: 1, arbitrary: fc.constant(whiteout) },
  { weight: 1, arbitrary: fc.constant(opaque) },
);

/** True when nothing stands in the way of `node` at `at`. */
function fits(nodes: Layer, at: string, node: Node): boolean {
  const parents = at.split("/").map((_, depth, parts) => parts.slice(0, depth).join("/"));
  const isBlocked = parents.some(
    (parent) => nodes[parent] !== undefined && nodes[parent].kind !== "directory",
  );
  const hasChildren = Object.keys(nodes).some((other) => other.startsWith(`${at}/`));
  return !isBlocked && (!hasChildren || node.kind === "directory");
}

function consistent(entries: readonly (readonly [string, Node])[]): Layer {
  const nodes: Layer = {};
  for (const [at, node] of entries) if (fits(nodes, at, node)) nodes[at] = node;
  return nodes;
}

/** A first layer: objects only. */
export const baseLayer = fc.array(fc.tuple(path, object), { maxLength: 16 }).map(consistent);
/** A layer that also hides. */
export const upperLayer = fc.array(fc.tuple(path, upperObject), { maxLength: 14 }).map(consistent);

/** Adds a file with several names, of a content that nothing else has. */
export function withLinks(nodes: Layer, places: readonly string[]): Layer {
  const linked = { ...nodes };
  let first: string | undefined;
  for (const place of [...places].sort()) {
    const at = `${place}/link`;
    const node = first === undefined ? file("several names") : hardlink(first);
    if (!fits(linked, at, node)) continue;
    linked[at] = node;
    first ??= at;
  }
  return linked;
}

/** Directories that may get the names of a linked file. */
export const linkPlaces = fc.uniqueArray(path, { maxLength: 3 });
