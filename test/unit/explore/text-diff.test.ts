/** Text differences, against diff(1) and against what they must give back. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { diffLines } from "../../../src/explore/text-diff.js";

const old = (a: string, b: string) =>
  diffLines(a, b)
    .filter(({ sign }) => sign !== "+")
    .map(({ text }) => text);
const recent = (a: string, b: string) =>
  diffLines(a, b)
    .filter(({ sign }) => sign !== "-")
    .map(({ text }) => text);

const text = fc.array(fc.constantFrom("a", "b", "c", "d"), { maxLength: 30 });

it("gives both texts back, whatever they are", () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(old(a.join("\n"), b.join("\n"))).toEqual(a);
      expect(recent(a.join("\n"), b.join("\n"))).toEqual(b);
    }),
  );
});

it("has as few edits as diff(1) --minimal", () => {
  const directory = mkdtempSync(join(tmpdir(), "varve-diff-"));
  try {
    fc.assert(
      fc.property(text, text, (a, b) => {
        writeFileSync(join(directory, "a"), a.map((line) => `${line}\n`).join(""));
        writeFileSync(join(directory, "b"), b.map((line) => `${line}\n`).join(""));
        const { stdout } = spawnSync("diff", ["--minimal", "a", "b"], {
          cwd: directory,
          encoding: "utf8",
        });
        const edits = diffLines(a.join("\n"), b.join("\n")).filter(({ sign }) => sign !== " ");
        expect(edits).toHaveLength(stdout.split("\n").filter((line) => /^[<>]/.test(line)).length);
      }),
      { numRuns: 60 },
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
});

it("of texts without a common line is all of the old and all of the new", () => {
  const many = (word: string) => Array.from({ length: 2000 }, (_, n) => `${word} ${n}`).join("\n");
  const lines = diffLines(many("old"), many("new"));
  expect(lines.map(({ sign }) => sign).join("")).toBe("-".repeat(2000) + "+".repeat(2000));
});
