/** The same for a terminal: layers, the tree with what the chosen layer did, wasted bytes. */

import { display } from "../system/bytes.js";
import {
  CHANGE,
  findWaste,
  KIND,
  layerTotals,
  pathOf,
  presentEntry,
  type Step,
  type TreeNode,
} from "./merged-tree.js";
import type { Subject } from "./subject.js";

/** What of it is wanted. */
export interface TerminalOptions {
  /** How deep the tree is shown. */
  readonly depth: number;
  /** Only what this layer (from 1) did; undefined: what is there in the end. */
  readonly layer: number | undefined;
  /** For the eyes of a person: of text that comes from the image. */
  readonly printable: (text: string) => string;
  readonly humanSize: (bytes: number) => string;
}

const MAX_WASTE = 10;
const MAX_COMMAND = 60;
const LETTERS = ["A", "C", "D"] as const;

/** Lines of text. A line of the tree begins with the letter of its change, for those who colour it. */
export function describeSubject(subject: Subject, options: TerminalOptions): string[] {
  const wasted = wasteLines(subject, options);
  return [
    ...layerLines(subject, options),
    "",
    ...treeLines(subject, options),
    ...(wasted.length === 0 ? [] : ["", ...wasted]),
  ];
}

function layerLines({ layers, tree }: Subject, o: TerminalOptions): string[] {
  const totals = layerTotals(tree, layers.length);
  return layers.map(({ command }, number) => {
    const { bytes, added, changed, removed } = totals[number]!;
    const counts = `+${added} ~${changed} -${removed}`;
    const text = o.printable(command);
    const cut = text.length > MAX_COMMAND ? `${text.slice(0, MAX_COMMAND - 1)}…` : text;
    return `layer ${String(number + 1).padStart(3)} ${o.humanSize(bytes).padStart(8)}  ${counts.padEnd(20)} ${cut}`.trimEnd();
  });
}

function treeLines(subject: Subject, o: TerminalOptions): string[] {
  const sizes = sumUp(subject, o);
  const lines: string[] = [];
  visit(subject.tree.root, 0);
  return lines;

  function visit(node: TreeNode, depth: number): void {
    const sum = sizes.get(node.id);
    if (sum === undefined) return;
    const step = shownStep(node, o);
    const letter = o.layer === undefined || step === undefined ? " " : LETTERS[step.change];
    const isDirectory = node.children.size > 0 || presentEntry(node)?.kind === KIND.directory;
    const target = step?.entry?.target;
    const name = `${o.printable(display(node.name))}${isDirectory ? "/" : ""}`;
    const arrow = target === undefined ? "" : ` -> ${o.printable(display(target))}`;
    const size = o.humanSize(sum).padStart(8);
    lines.push(`${letter} ${size}  ${"  ".repeat(depth)}${name}${arrow}`);
    if (depth >= o.depth) return;
    for (const child of [...node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      visit(child, depth + 1);
    }
  }
}

/** What is shown of a node: its last step, or that of the wanted layer. */
function shownStep({ steps }: TreeNode, { layer }: TerminalOptions): Step | undefined {
  if (layer !== undefined) return steps.find((step) => step.layer === layer - 1);
  const last = steps.at(-1);
  return last?.change === CHANGE.removed ? undefined : last;
}

/** Bytes of each node that is to be shown, those of all below included. */
function sumUp({ tree }: Subject, o: TerminalOptions): Map<number, number> {
  const sizes = new Map<number, number>();
  for (const node of tree.nodes.toReversed()) {
    const step = shownStep(node, o);
    const below = sizes.get(node.id);
    if (step === undefined && below === undefined) continue;
    const sum = (below ?? 0) + (step?.entry?.size ?? 0);
    sizes.set(node.id, sum);
    if (node.parent !== undefined) {
      sizes.set(node.parent.id, (sizes.get(node.parent.id) ?? 0) + sum);
    }
  }
  return sizes;
}

function wasteLines(subject: Subject, o: TerminalOptions): string[] {
  const wastes = findWaste(subject.tree);
  if (wastes.length === 0) return [];
  const total = wastes.reduce((sum, { bytes }) => sum + bytes, 0);
  const lines = wastes.slice(0, MAX_WASTE).map(({ node, bytes, versions }) => {
    const path = o.printable(`/${display(pathOf(node))}`);
    return `  ${o.humanSize(bytes).padStart(8)}  ${path}${versions > 1 ? ` (${versions} versions)` : ""}`;
  });
  const more = wastes.length - lines.length;
  return [
    `wasted: ${o.humanSize(total)} in ${wastes.length} ${wastes.length === 1 ? "file" : "files"} that later layers overwrite or remove`,
    ...lines,
    ...(more > 0 ? [`            … and ${more} more`] : []),
  ];
}
