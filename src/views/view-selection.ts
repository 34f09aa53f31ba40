/** How people name a view. */

import path from "node:path";
import type { ViewRow, ViewTable } from "../metadata/view-table.js";
import { InvalidArgumentError, NotFoundError } from "../system/errors.js";

/**
 * The view that `selector` means: a name, an ID, the path of a mounted view, or the beginning of
 * exactly one ID. In this order, so that a name that looks like an ID prefix wins.
 *
 * @throws NotFoundError
 * @throws InvalidArgumentError several IDs begin so
 */
export function selectView(
  table: Pick<ViewTable, "get" | "getByName" | "list">,
  selector: string,
): ViewRow {
  const exact = table.getByName(selector) ?? table.get(selector);
  if (exact !== undefined) return exact;
  const views = table.list();
  if (path.isAbsolute(selector)) return viewAt(views, path.resolve(selector));
  const matches = /^[0-9a-f]+$/.test(selector)
    ? views.filter((view) => view.id.startsWith(selector))
    : [];
  if (matches.length > 1) {
    throw new InvalidArgumentError(
      `view ${selector}: the beginning of ${matches.length} IDs; give more digits`,
    );
  }
  if (matches[0] !== undefined) return matches[0];
  const remedy = /[/:]/.test(selector) ? `; "varve mount ${selector}" makes one of an image` : "";
  throw new NotFoundError(
    `view ${JSON.stringify(selector)}: not found; "varve views" lists them${remedy}`,
  );
}

function viewAt(views: readonly ViewRow[], target: string): ViewRow {
  // Several views may have been on one target, one after the other; the mounted one is meant.
  const there = views.filter((view) => view.target === target);
  const view = there.find((candidate) => candidate.mounted) ?? there.at(-1);
  if (view !== undefined) return view;
  throw new NotFoundError(`view on ${target}: no view is mounted there`);
}
