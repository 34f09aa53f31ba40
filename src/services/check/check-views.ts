/** Views and containerd's snapshots: every row has its directories, and every directory a row. */

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import type { Core } from "../core.js";
import { type CheckOptions, STRAY_AGE_MS } from "./faults.js";

/** Checks what programs write to. What is lost there is lost: there is no other copy. */
export async function checkViews(core: Core, o: CheckOptions): Promise<void> {
  for (const view of core.database.views.list()) {
    const upper = core.views.upperDir(view);
    const isWhole = upper === undefined || (existsSync(upper) && existsSync(workOf(upper)));
    if (isWhole || core.database.views.get(view.id) === undefined) continue;
    o.onFault({
      kind: "view-missing",
      object: view.name,
      problem: `its directory ${path.dirname(upper)} is missing, and with it what was written`,
      isRepaired: false,
      remedy: `"varve rm --force ${view.name}" forgets it`,
    });
  }
  await checkStrays(core, o);
  for (const { id, key } of core.database.containerd.list()) {
    if (existsSync(path.join(core.paths.root, "containerd", String(id), "fs"))) continue;
    if (core.database.containerd.get(key) === undefined) continue;
    o.onFault({
      kind: "containerd-missing",
      object: key,
      problem: `its directory containerd/${id} is missing`,
      isRepaired: false,
      remedy: "remove its container or image in containerd, which then removes it here",
    });
  }
}

function workOf(upper: string): string {
  return path.join(path.dirname(upper), "work");
}

async function checkStrays(core: Core, o: CheckOptions): Promise<void> {
  const directory = path.join(core.paths.root, "views");
  for (const name of await readdir(directory)) {
    const found = await stat(path.join(directory, name)).catch(() => undefined);
    if (found === undefined || Date.now() - found.ctimeMs < STRAY_AGE_MS) continue;
    if (core.database.views.get(name) !== undefined) continue;
    if (o.repair) await core.tasks.removeTree(path.join(directory, name));
    o.onFault({
      kind: "view-stray",
      object: path.join("views", name),
      problem: "no row of the database knows this directory",
      isRepaired: o.repair,
      remedy: o.repair ? "removed" : '"varve check --repair" removes it',
    });
  }
}
