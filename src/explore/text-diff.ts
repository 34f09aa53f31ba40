/**
 * The difference of two texts by lines: a shortest edit script.
 *
 * @see E. Myers, An O(ND) Difference Algorithm and Its Variations, 1986
 */

/** A line that both have (" "), only the old one ("-"), or only the new one ("+"). */
export interface DiffLine {
  readonly sign: " " | "-" | "+";
  readonly text: string;
}

/** Beyond so many edits the texts have little in common: all old lines go, all new ones come. */
const MAX_EDITS = 1500;

/** The lines of both texts, merged. */
export function diffLines(oldText: string, newText: string): DiffLine[] {
  const before = linesOf(oldText);
  const after = linesOf(newText);
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let end = 0;
  while (
    end < before.length - start &&
    end < after.length - start &&
    before.at(-1 - end) === after.at(-1 - end)
  ) {
    end++;
  }
  const same = (lines: readonly string[]): DiffLine[] => lines.map((text) => ({ sign: " ", text }));
  return [
    ...same(before.slice(0, start)),
    ...middle(before.slice(start, before.length - end), after.slice(start, after.length - end)),
    ...same(before.slice(before.length - end)),
  ];
}

function linesOf(text: string): string[] {
  if (text === "") return [];
  return text.replace(/\n$/, "").split("\n");
}

function middle(before: readonly string[], after: readonly string[]): DiffLine[] {
  const trace = findPath(before, after);
  if (trace === undefined) return [...marked("-", before), ...marked("+", after)];
  return backtrack(trace, before, after);
}

function marked(sign: "-" | "+", lines: readonly string[]): DiffLine[] {
  return lines.map((text) => ({ sign, text }));
}

/** For each number of edits, how far every diagonal gets; undefined after MAX_EDITS. */
function findPath(
  before: readonly string[],
  after: readonly string[],
): Map<number, number>[] | undefined {
  const trace: Map<number, number>[] = [];
  let reach = new Map([[1, 0]]);
  for (let edits = 0; edits <= MAX_EDITS; edits++) {
    const next = new Map<number, number>();
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      let x = startOf(reach, diagonal, edits);
      while (
        x < before.length &&
        x - diagonal < after.length &&
        before[x] === after[x - diagonal]
      ) {
        x++;
      }
      next.set(diagonal, x);
      if (x >= before.length && x - diagonal >= after.length) return [...trace, next];
    }
    trace.push(next);
    reach = next;
  }
  return undefined;
}

/** Where a diagonal starts: from the one above (an insertion) or below (a deletion), whichever got further. */
function startOf(reach: ReadonlyMap<number, number>, diagonal: number, edits: number): number {
  return comesFromAbove(reach, diagonal, edits)
    ? (reach.get(diagonal + 1) ?? 0)
    : (reach.get(diagonal - 1) ?? 0) + 1;
}

function comesFromAbove(
  reach: ReadonlyMap<number, number>,
  diagonal: number,
  edits: number,
): boolean {
  if (diagonal === -edits) return true;
  return diagonal !== edits && (reach.get(diagonal - 1) ?? 0) < (reach.get(diagonal + 1) ?? 0);
}

function backtrack(
  trace: readonly Map<number, number>[],
  before: readonly string[],
  after: readonly string[],
): DiffLine[] {
  const lines: DiffLine[] = [];
  let x = before.length;
  let y = after.length;
  for (let edits = trace.length - 1; edits >= 0; edits--) {
    const reach = edits === 0 ? new Map([[1, 0]]) : trace[edits - 1]!;
    const diagonal = x - y;
    const isInsertion = comesFromAbove(reach, diagonal, edits);
    const start = startOf(reach, diagonal, edits);
    while (x > start) {
      x--;
      y--;
      lines.push({ sign: " ", text: before[x]! });
    }
    if (edits === 0) break;
    if (isInsertion) lines.push({ sign: "+", text: after[--y]! });
    else lines.push({ sign: "-", text: before[--x]! });
  }
  return lines.reverse();
}
