/**
 * Lists of rows in the formats that docker's `--format` knows: `table` (the default), `json` (one
 * object per line), `table TEMPLATE` and `TEMPLATE`.
 */

import { toJsonLine } from "./json.js";
import { alignColumns } from "./tables.js";

/** How a kind of row is listed. */
export interface ListLayout<Row extends object> {
  /** The header of each field; its keys are the fields that a template may name. */
  readonly headers: Readonly<Record<keyof Row & string, string>>;
  /** The columns of the default table. */
  readonly columns: readonly (keyof Row & string)[];
}

/**
 * The lines of a list.
 *
 * @param format undefined for the default table
 * @throws UsageError a malformed template, or a field that the rows do not have
 */
export async function formatList<Row extends object>(
  rows: readonly Row[],
  layout: ListLayout<Row>,
  format: string | undefined,
): Promise<string[]> {
  if (format === undefined || format === "" || format === "table") {
    const header = layout.columns.map((column) => layout.headers[column]);
    const cells = rows.map((row) => layout.columns.map((column) => String(row[column])));
    return alignColumns([header, ...cells]);
  }
  if (format === "json") return rows.map(toJsonLine);
  // Templates are rare: their code is loaded only when one is given.
  const { compileTemplate } = await import("./template.js");
  const table = /^table(?:\s+|(?=\{\{))/.exec(format);
  if (table === null) {
    const render = compileTemplate(format);
    // An empty list must not hide a misspelt field.
    render(layout.headers);
    return rows.map(render);
  }
  const render = compileTemplate(format.slice(table[0].length));
  return alignColumns([layout.headers, ...rows].map((row) => render(row).split("\t")));
}

/**
 * One object in the formats of `inspect`, `info` and `version`.
 *
 * @param format `json` or a template
 * @throws UsageError as formatList
 */
export async function formatObject(data: object, format: string): Promise<string> {
  if (format === "json") return toJsonLine(data);
  const { compileTemplate } = await import("./template.js");
  return compileTemplate(format)(data);
}
