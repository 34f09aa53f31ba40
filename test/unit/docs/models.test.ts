/** The table of the models names tests; they must be there. */

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const text = readFileSync(path.join(ROOT, "docs/models.md"), "utf8");

interface Named {
  readonly row: string;
  readonly file: string;
  /** Words of a test's or a group's title. */
  readonly titles: readonly string[];
}

/** `unit/images/load: "one", "two …"`, several of them, or only the file. */
const NAMED =
  /((?:unit|integration|e2e|property|conformance)\/[\w/-]+)((?:[:,]? ?"[^"]+"(?: \([^)]*\))?)*)/g;

function rows(): { row: string; shownBy: string }[] {
  return text.split("\n").flatMap((line) => {
    const cells = line.split("|").slice(1, -1);
    const isRow =
      cells.length >= 2 && !/^[\s-]*$/.test(cells[0]!) && !/^ behaviour /.test(cells[0]!);
    return isRow ? [{ row: cells[0]!.trim(), shownBy: cells.at(-1)!.trim() }] : [];
  });
}

function namedTests(): Named[] {
  return rows().flatMap(({ row, shownBy }) =>
    [...shownBy.matchAll(NAMED)].map(([, file = "", titles = ""]) => ({
      row,
      file,
      titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title.replace(/ …$/, "")),
    })),
  );
}

describe("docs/models.md", () => {
  it("shows every behaviour by a test", () => {
    expect(rows().length).toBeGreaterThan(50);
    const bare = rows().filter(
      ({ shownBy }) => [...shownBy.matchAll(NAMED)].length === 0 && shownBy !== "test/architecture",
    );
    expect(bare).toEqual([]);
  });

  it.each(namedTests().map((one) => [one.row, one] as const))("%s", (_row, { file, titles }) => {
    const source = path.join(ROOT, "test", `${file}.test.ts`);
    expect(existsSync(source), source).toBe(true);
    const code = readFileSync(source, "utf8");
    for (const title of titles) expect(code).toContain(title);
  });
});
