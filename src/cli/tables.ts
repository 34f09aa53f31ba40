/** Aligned columns. */

import { displayWidth } from "./terminal-text.js";

const GAP = 3;

/**
 * Lines of left-aligned columns, three blanks apart, without trailing blanks.
 *
 * @param rows cells without control characters; rows may have different lengths
 */
export function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, displayWidth(cell));
    });
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - displayWidth(cell) + GAP))
      .join("")
      .trimEnd(),
  );
}
