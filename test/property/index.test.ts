/** The chain index against a model: a tree of maps, merged by the rules of the overlay format. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildIndex } from "../../src/layers/index-builder.js";
import { type FlatIndex, openIndex } from "../../src/layers/index-reader.js";
import { verifyIndex } from "../../src/layers/verify-index.js";
import { ROOT_INODE } from "../../src/overlay/chain-index.js";
import { buildTree, directory, type Node } from "../unit/layers/tree-builder.js";
import { baseLayer, type Layer, linkPlaces, upperLayer, withLinks } from "./random-layers.js";

interface ModelNode {
  node: Node;
  children: Map<string, ModelNode>;
}

const latin = (text: string) => Buffer.from(text).toString("latin1");

/** Puts a layer over the model. */
function merge(root: ModelNode, layer: Layer): void {
  const made = new Map<string, ModelNode>([["", root]]);
  for (const at of Object.keys(layer).sort()) {
    const parts = at.split("/");
    parts.forEach((part, depth) => {
      const here = parts.slice(0, depth + 1).join("/");
      const parent = made.get(parts.slice(0, depth).join("/"))!;
      const isLast = depth === parts.length - 1;
      if (made.has(here)) return;
      put(parent, part, isLast ? layer[at]! : (layer[here] ?? directory()));
      made.set(here, parent.children.get(part) ?? root);
    });
  }
}

function put(parent: ModelNode, part: string, node: Node): void {
  const known = parent.children.get(part);
  parent.children.delete(part);
  if (node.kind === "whiteout") return;
  const isOpaque = node.xattrs !== undefined;
  const continues = node.kind === "directory" && known?.node.kind === "directory" && !isOpaque;
  parent.children.set(part, { node, children: continues ? known.children : new Map() });
}

function describeModel(root: ModelNode): string[] {
  const lines: string[] = [];
  const walk = (at: ModelNode, prefix: string) => {
    const names = [...at.children.keys()].sort((a, b) => (latin(a) < latin(b) ? -1 : 1));
    for (const part of names) {
      const { node, children } = at.children.get(part)!;
      const where = prefix + latin(part);
      const kind = node.kind === "hardlink" ? "file" : node.kind;
      const text = node.kind === "hardlink" ? "several names" : (node.text ?? "");
      lines.push(
        kind === "directory" ? `${where} ${node.mode ?? 0o755}` : `${where} ${kind} ${text}`,
      );
      walk({ node, children }, `${where}/`);
    }
  };
  walk(root, "");
  return lines;
}

/** The same lines from an index, contents read from where it says they are. */
function describeIndex(index: FlatIndex, layerDirs: readonly string[]): string[] {
  const lines: string[] = [];
  const walk = (dir: number, prefix: string) => {
    for (let entry = index.firstEntry(dir); entry < index.endEntry(dir); entry += 1) {
      const inode = index.entryInode(entry);
      const where = prefix + index.entryName(entry);
      const mode = index.mode(inode);
      expect(index.lookup(dir, index.entryName(entry))).toBe(inode);
      if ((mode & 0o170000) === 0o040000) {
        lines.push(`${where} ${mode & 0o7777}`);
        expect(index.path(inode)).toBe(where);
        walk(inode, `${where}/`);
      } else if ((mode & 0o170000) === 0o120000) {
        lines.push(`${where} symlink ${index.symlinkTarget(inode)}`);
      } else {
        const file = `${layerDirs[index.layer(inode)]}/${index.contentPath(inode)}`;
        lines.push(`${where} file ${readFileSync(Buffer.from(file, "latin1"), "utf8")}`);
      }
    }
  };
  walk(ROOT_INODE, "");
  return lines;
}

/** What must hold of every index. */
function checkInvariants(index: FlatIndex): void {
  const names = new Map<number, number>();
  const subdirectories = new Map<number, number>();
  for (let dir = 1; dir <= index.inodeCount; dir += 1)
    for (let entry = index.firstEntry(dir); entry < index.endEntry(dir); entry += 1) {
      const inode = index.entryInode(entry);
      names.set(inode, (names.get(inode) ?? 0) + 1);
      expect(index.directoryOf(entry)).toBe(dir);
      if (index.isDirectory(inode)) subdirectories.set(dir, (subdirectories.get(dir) ?? 0) + 1);
    }
  for (let inode = 1; inode <= index.inodeCount; inode += 1) {
    const isDirectory = index.isDirectory(inode);
    const links = isDirectory ? 2 + (subdirectories.get(inode) ?? 0) : names.get(inode);
    expect(index.nlink(inode)).toBe(links);
    for (const place of inode === ROOT_INODE ? [] : index.names(inode))
      expect(index.lookup(place.parent, place.name)).toBe(inode);
    if (!isDirectory) expect(index.names(inode)).toHaveLength(index.nlink(inode));
  }
}

const first = fc.tuple(baseLayer, linkPlaces).map(([nodes, places]) => withLinks(nodes, places));

test("an index is the model's merge of its layers", () => {
  fc.assert(
    fc.property(first, fc.array(upperLayer, { maxLength: 4 }), (base, uppers) => {
      const root = mkdtempSync(join(tmpdir(), "varve-property-"));
      try {
        const model: ModelNode = { node: directory(), children: new Map() };
        const dirs: string[] = [];
        [base, ...uppers].forEach((layer, position) => {
          dirs.push(buildTree(join(root, `fs-${position}`), layer));
          const parent = position === 0 ? {} : { parentIndexPath: join(root, `${position - 1}`) };
          const fsDir = dirs[position]!;
          const outputPath = join(root, `${position}`);
          buildIndex({
            ...parent,
            chainId: "c",
            fsDir,
            impliedDirectories: [],
            outputPath,
            privileged: false,
          });
          merge(model, layer);
          const index = openIndex(outputPath);
          expect(describeIndex(index, dirs)).toEqual(describeModel(model));
          checkInvariants(index);
        });
      } finally {
        rmSync(root, { recursive: true, force: true });
      }
    }),
    { numRuns: 60 },
  );
});

/** All that views and numbers of nodes depend on; of a linked file's names any may say where its data is. */
function shapeOf({ arrays, layers }: FlatIndex) {
  const { mode, nlink, uid, gid, layer, parent, firstEntry, entryInode, names, mtimeSec } = arrays;
  return { layers, mode, nlink, uid, gid, layer, parent, firstEntry, entryInode, names, mtimeSec };
}

test("layers that are merged at once give the index of those merged one by one, each agreeing with the trees", () => {
  const chain = fc.tuple(
    first,
    fc.array(fc.tuple(upperLayer, fc.nat()), { minLength: 1, maxLength: 5 }),
  );
  fc.assert(
    fc.property(chain, fc.boolean(), ([base, uppers], hasBase) => {
      const root = mkdtempSync(join(tmpdir(), "varve-property-"));
      try {
        const layers = [base, ...uppers.map(([layer]) => layer)];
        const trees = layers.map((layer, position) => ({
          chainId: `c${position}`,
          fsDir: buildTree(join(root, `fs-${position}`), layer),
        }));
        const layerDirs = trees.map(({ fsDir }) => fsDir);
        const build = (position: number, from: number, outputPath: string) => {
          const below = from === 0 ? {} : { parentIndexPath: join(root, `${from - 1}`) };
          const between = trees.slice(from, position);
          const options = { ...below, between, ...trees[position]!, privileged: false };
          buildIndex({ ...options, impliedDirectories: [], outputPath });
          return options;
        };
        const stepwise = trees.map((_, position) =>
          build(position, position, join(root, `${position}`)),
        );
        uppers.forEach(([, choice], above) => {
          const position = above + 1;
          const from = hasBase ? choice % position : 0;
          const indexPath = join(root, `at-once-${position}`);
          const atOnce = build(position, from, indexPath);
          const index = openIndex(indexPath);
          expect(shapeOf(index)).toEqual(shapeOf(openIndex(join(root, `${position}`))));
          expect(describeIndex(index, layerDirs)).toEqual(
            describeIndex(openIndex(join(root, `${position}`)), layerDirs),
          );
          checkInvariants(index);
          expect(verifyIndex({ ...stepwise[position]!, indexPath, layerDirs })).toBeUndefined();
          const other = { ...atOnce, indexPath: join(root, `${position}`), layerDirs };
          expect(verifyIndex(other)).toBeUndefined();
        });
      } finally {
        rmSync(root, { recursive: true, force: true });
      }
    }),
    { numRuns: 40 },
  );
});
