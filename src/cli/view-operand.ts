/** How a view is named on the command line. */

import { existsSync } from "node:fs";
import path from "node:path";

/** A view's name or ID as given, or the absolute path of its mount. */
export function viewOperand(given: string): string {
  // Names have no slash, but names of images do, and are answered as such; "." is where one stands after
  // "cd $(varve mount …)".
  const isPath = /^(\/|\.\.?(\/|$))/.test(given) || (given.includes("/") && existsSync(given));
  return isPath ? path.resolve(given) : given;
}
