/**
 * What the server tells the page, as JSON. Trees are columns rather than objects: a row takes a fifth of the
 * bytes, and the page parses 60,000 of them in some hundredths of a second. web/explore shares these types.
 */

import { display } from "../system/bytes.js";
import type { Difference } from "./comparison.js";
import { findWaste, layerTotals, type Step } from "./merged-tree.js";
import type { Subject } from "./subject.js";

/** One subject in the list. */
export interface SubjectMessage {
  readonly name: string;
  readonly kind: "image" | "view";
  readonly imageId: string;
}

/** A layer in the list. */
export interface LayerMessage {
  readonly digest: string;
  readonly chainId: string;
  readonly command: string;
  readonly created: string;
  readonly blobBytes: number;
  /** Unpacked. */
  readonly bytes: number;
  readonly added: number;
  readonly changed: number;
  readonly removed: number;
}

/** The whole tree; node n is the n-th of each column, and its parent comes before it. */
export interface TreeMessage {
  readonly layers: readonly LayerMessage[];
  readonly names: readonly string[];
  /** -1 for the root. */
  readonly parents: readonly number[];
  /** Six numbers per step: node, layer, change, kind (-1: removed), size, mode. */
  readonly steps: readonly number[];
  /** Files with bytes that are not seen: node, bytes, versions; the largest first. */
  readonly waste: readonly (readonly [node: number, bytes: number, versions: number])[];
}

/** One step in full. */
export interface StepMessage {
  readonly layer: number;
  readonly change: number;
  readonly kind: number;
  readonly size: number;
  readonly mode: number;
  readonly owner: string;
  /** RFC 3339, or "". */
  readonly modified: string;
  readonly target: string;
}

/** A row of a comparison. */
export interface DifferenceMessage {
  readonly kind: "A" | "C" | "D";
  readonly path: string;
  readonly left: number;
  readonly right: number;
}

/** What a view is doing. */
export interface LiveMessage {
  readonly mounted: boolean;
  readonly total: number;
  readonly bytes: number;
  /** The first of them. */
  readonly changes: readonly { readonly kind: "A" | "C" | "D"; readonly path: string }[];
  /** Requests answered since the view was mounted, by operation. */
  readonly operations: Readonly<Record<string, number>>;
}

/** The message of a subject's tree. */
export function treeMessage({ tree, layers }: Subject): TreeMessage {
  const totals = layerTotals(tree, layers.length);
  const steps: number[] = [];
  for (const node of tree.nodes) {
    for (const { layer, change, entry } of node.steps) {
      steps.push(node.id, layer, change, entry?.kind ?? -1, entry?.size ?? 0, entry?.mode ?? 0);
    }
  }
  return {
    layers: layers.map(({ digest, chainId, command, created, blobBytes }, number) => ({
      ...{ digest, chainId, command, created, blobBytes },
      ...totals[number]!,
    })),
    names: tree.nodes.map(({ name }) => display(name)),
    parents: tree.nodes.map(({ parent }) => parent?.id ?? -1),
    steps,
    waste: findWaste(tree).map(({ node, bytes, versions }) => [node.id, bytes, versions]),
  };
}

/** The message of one step. */
export function stepMessage({ layer, change, entry }: Step): StepMessage {
  return {
    layer,
    change,
    kind: entry?.kind ?? -1,
    size: entry?.size ?? 0,
    mode: entry?.mode ?? 0,
    owner: entry === undefined ? "" : `${entry.uid}:${entry.gid}`,
    modified: entry === undefined ? "" : new Date(entry.mtimeMs).toISOString(),
    target: entry?.target === undefined ? "" : display(entry.target),
  };
}

/** The messages of a comparison. */
export function differenceMessages(differences: readonly Difference[]): DifferenceMessage[] {
  return differences.map(({ kind, path, left, right }) => ({
    kind,
    path: `/${display(path)}`,
    left: left?.size ?? 0,
    right: right?.size ?? 0,
  }));
}
