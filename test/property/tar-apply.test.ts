/** Entries of few names in every order: the writer must keep its picture of the tree right. */

import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { LayerTreeWriter } from "../../src/layers/layer-tree-writer.js";
import type { TarEntryType } from "../../src/layers/tar-entry.js";
import type { ByteString } from "../../src/system/bytes.js";
import { entryOf } from "../unit/layers/tar-fixture.js";

const names = ["a", "b", "c"];
const path = fc
  .array(fc.constantFrom(...names), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.join("/"));
const target = fc.oneof(
  path,
  path.map((text) => `/${text}`),
  path.map((text) => `../${text}`),
  fc.constantFrom(".", "..", "/", "../../../outside", "a/..", "../outside/file"),
);

const objects = fc.record({
  kind: fc.constantFrom<TarEntryType[]>("directory", "directory", "file", "symlink", "fifo"),
  path,
  target,
});
const marks = fc.record({
  kind: fc.constantFrom("whiteout" as const, "opaque" as const),
  path,
  target,
});
const links = fc.record({ kind: fc.constant("hardlink" as const), path, target });

// Links mostly lead nowhere, and entries lie below files: both end a round. Few of the former.
const step = fc.oneof(
  { weight: 12, arbitrary: objects },
  { weight: 4, arbitrary: marks },
  { weight: 1, arbitrary: links },
);

/** Every name below a directory with its type; the tree must be whole and readable. */
function list(directory: string): string[] {
  return readdirSync(directory).flatMap((name) => {
    const full = join(directory, name);
    const stat = lstatSync(full);
    return stat.isDirectory() ? [full, ...list(full)] : [full];
  });
}

it("nothing outside the tree changes, and what fails fails for a reason of the archive", () => {
  const scratch = mkdtempSync(join(tmpdir(), "varve-apply-property-"));
  const outside = join(scratch, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "file"), "safe");
  let round = 0;
  let finished = 0;
  try {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const directory = join(scratch, `tree${round++}`);
        mkdirSync(directory);
        const uid = process.geteuid?.() ?? 0;
        const gid = process.getegid?.() ?? 0;
        const writer = new LayerTreeWriter({ directory, privileged: false });
        try {
          for (const { kind, path: name, target: to } of steps) {
            if (kind === "whiteout") writer.whiteout(name as ByteString);
            else if (kind === "opaque") writer.opaque(name as ByteString);
            else {
              const linkTarget = to as ByteString;
              writer.add(entryOf({ path: name, type: kind, uid, gid, linkTarget, mode: 0o755 }));
            }
          }
          const { impliedDirectories } = writer.finish();
          finished++;
          const found = new Set(list(directory));
          for (const implied of impliedDirectories) {
            if (implied !== "") expect(found.has(join(directory, implied))).toBe(true);
          }
        } catch (error) {
          expect((error as { code?: string }).code).toBe("CORRUPT_DATA");
        } finally {
          writer.abort();
          rmSync(directory, { recursive: true, force: true });
        }
        expect(list(outside)).toEqual([join(outside, "file")]);
        expect(readFileSync(join(outside, "file"), "utf8")).toBe("safe");
      }),
      { numRuns: 400 },
    );

    expect(finished).toBeGreaterThan(50);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
});
