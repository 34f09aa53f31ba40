/** What somebody may have meant by a misspelt word. */

/**
 * The candidate that is nearest to `word`, when it is near enough to be what was meant.
 *
 * @returns undefined when none is, or there are none
 */
export function nearestWord(word: string, candidates: readonly string[]): string | undefined {
  const distances = new Map(candidates.map((name) => [name, editDistance(word, name)]));
  const [nearest] = candidates.toSorted((a, b) => distances.get(a)! - distances.get(b)!);
  if (nearest === undefined) return undefined;
  return distances.get(nearest)! <= Math.max(2, word.length / 2) ? nearest : undefined;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
