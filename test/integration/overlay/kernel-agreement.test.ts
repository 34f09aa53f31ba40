/** Whatever a view did to its upper directory, kernel overlayfs must read the same tree out of it. */

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import { Origin, steps, type World } from "../../property/overlay-operations.js";
import { compareTrees, readTree } from "../../tools/tree.js";

let origin: Origin;
beforeAll(() => {
  origin = new Origin();
});
afterAll(() => origin.dispose());

function kernelTree({ view }: World) {
  const target = join(view.path, "kernel");
  mkdirSync(target, { recursive: true });
  const lower = [view.upperDir, ...[...view.layerDirs].reverse()].join(":");
  const options = `lowerdir=${lower},redirect_dir=follow,metacopy=on`;
  execFileSync("mount", ["-t", "overlay", "overlay", "-o", options, target]);
  try {
    return readTree(target, { mtime: "none" });
  } finally {
    execFileSync("umount", [target]);
  }
}

it("shows the same tree as kernel overlayfs on the same directories", () => {
  const property = fc.property(
    fc.array(fc.oneof(...steps), { maxLength: 40, size: "max" }),
    (script) => {
      const world = origin.world(false);
      try {
        for (const { run } of script) run(world);
        for (const { fd } of world.open.splice(0)) sys.close(fd);
        const expected = readTree(world.model.path, { mtime: "none" });
        expect(compareTrees(kernelTree(world), expected)).toEqual([]);
      } finally {
        world.dispose();
      }
    },
  );
  fc.assert(property, { numRuns: Number(process.env.VARVE_PROPERTY_RUNS ?? 25) });
});
