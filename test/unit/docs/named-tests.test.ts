/** Tables of what varve does name the tests that show it; they must be there. */

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "../../..");
/** With the least number of rows that each is known to have. */
const TABLES = [
  ["docs/models.md", 50],
  ["docs/file-system.md", 30],
] as const;

interface Named {
  readonly row: string;
  readonly file: string;
  /** Words of a test's or a group's title. */
  readonly titles: readonly string[];
}

/** `unit/images/load: "one", "two …"`, several of them, or only the file. */
const NAMED =
  /((?:unit|integration|e2e|property|conformance)\/[\w/-]+)((?:[:,]? ?"[^"]+"(?: \([^)]*\))?)*)/g;

function rows(document: string): { row: string; shownBy: string }[] {
  const text = readFileSync(path.join(ROOT, document), "utf8");
  return text.split("\n").flatMap((line) => {
    const cells = line.split("|").slice(1, -1);
    const isRow =
      cells.length >= 2 && !/^[\s-]*$/.test(cells[0]!) && !/^ (behaviour|promise) /.test(cells[0]!);
    return isRow ? [{ row: cells[0]!.trim(), shownBy: cells.at(-1)!.trim() }] : [];
  });
}

function namedTests(document: string): Named[] {
  return rows(document).flatMap(({ row, shownBy }) =>
    [...shownBy.matchAll(NAMED)].map(([, file = "", titles = ""]) => ({
      row,
      file,
      titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title.replace(/ …$/, "")),
    })),
  );
}

describe.each(TABLES)("%s", (document, least) => {
  it("shows every behaviour by a test", () => {
    const all = rows(document);
    expect(all.length).toBeGreaterThan(least);
    const bare = all.filter(
      ({ shownBy }) => [...shownBy.matchAll(NAMED)].length === 0 && shownBy !== "test/architecture",
    );
    expect(bare).toEqual([]);
  });

  const named = namedTests(document).map((one) => [one.row, one] as const);
  it.each(named)("%s", (_row, { file, titles }) => {
    const source = path.join(ROOT, "test", `${file}.test.ts`);
    expect(existsSync(source), source).toBe(true);
    const code = readFileSync(source, "utf8");
    for (const title of titles) expect(code).toContain(title);
  });
});
