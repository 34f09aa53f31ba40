/** Documents that list things have them all. */

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { COMMANDS } from "../../../src/cli/command-table.js";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const read = (file: string) => readFileSync(path.join(ROOT, file), "utf8");

describe("docs/commands.md", () => {
  it.each(COMMANDS.map(({ name }) => name))("has %s", (name) => {
    expect(read("docs/commands.md")).toContain(`\n## varve ${name}\n`);
  });
});

describe("docs/configuration.md", () => {
  const settings = read("deploy/debian/config.toml").matchAll(/^#([a-z_]+) = /gm);

  it.each([...settings].map(([, name]) => name!))("has %s", (name) => {
    expect(read("docs/configuration.md")).toMatch(new RegExp(`^\\| \`(gc\\.)?${name}\` \\|`, "m"));
  });
});

describe("links between documents", () => {
  it.each(["README.md", "CONTRIBUTING.md", "docs/architecture.md"])(
    "of %s lead somewhere",
    (file) => {
      for (const [, target = ""] of read(file).matchAll(/\]\(([^)#]+)\)/g)) {
        if (target.startsWith("https://")) continue;
        expect(existsSync(path.join(ROOT, path.dirname(file), target)), target).toBe(true);
      }
    },
  );
});
