/** How a view is named on the command line. */

import path from "node:path";

/** A view's name or ID as given, or the absolute path of its mount. */
export function viewOperand(given: string): string {
  // Names have no slash; "." is where one stands after "cd $(varve mount …)".
  return given.includes("/") || /^\.\.?$/.test(given) ? path.resolve(given) : given;
}
