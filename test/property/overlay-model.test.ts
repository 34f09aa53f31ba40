/**
 * Random operations on a view against the same operations on a plain copy of the tree: every result
 * and the whole tree must agree, also after forgetting everything and after a remount, and inode
 * numbers must not change.
 */

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sys } from "../../src/system/addon.js";
import { fromBuffer } from "../../src/system/bytes.js";
import { S_IFREG } from "../../src/system/constants.js";
import { CALLER, newEntry } from "../unit/overlay/view-driver.js";
import { checkTrees, Origin, steps, World } from "./overlay-operations.js";

let origin: Origin;
beforeAll(() => {
  origin = new Origin();
});
afterAll(() => origin.dispose());

describe.each([
  { what: "with an index", isLive: false },
  { what: "of layers that are read as one goes", isLive: true },
])("a view $what", ({ isLive }) => {
  it("does what a plain tree does", () => {
    const property = fc.property(
      fc.array(fc.oneof(...steps), { maxLength: 60, size: "max" }),
      (script) => {
        const world = origin.world(isLive);
        try {
          for (const { run } of script) run(world);
          checkTrees(world);
          for (const { fd } of world.open.splice(0)) sys.close(fd);
          world.view.forgetAll();
          const numbers = world.view.tree(true);
          world.view.remount();
          expect(Object.fromEntries(world.view.tree(true))).toEqual(Object.fromEntries(numbers));
          checkTrees(world);
          world.view.forgetAll();
        } finally {
          world.dispose();
        }
      },
    );
    fc.assert(property, { numRuns: Number(process.env.VARVE_PROPERTY_RUNS ?? 60) });
  });
});

it("takes names as bytes", () => {
  const world = new World([]);
  try {
    const name = fromBuffer(Buffer.from([0xff, 0x80, 0x41]));
    const { fs } = world.view;
    expect(fs.mknod(CALLER, 1, name, S_IFREG | 0o644, 0, 0, newEntry())).toBe(0);
    expect(world.view.list(1).map((entry) => entry.name)).toContain(name);
  } finally {
    world.dispose();
  }
});
