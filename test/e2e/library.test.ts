/** The examples of docs/library.md, each run as a program of its own against a real daemon. */

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RegistryProcess } from "../integration/registry/registry-process.js";
import { makeImage, mountsBelow, PROJECT, run, Sandbox } from "./sandbox.js";

interface Example {
  readonly title: string;
  readonly code: string;
  /** "…" stands for anything; undefined where the document shows no output. */
  readonly output: string | undefined;
}

/** Code blocks of JavaScript, with the text block that follows where there is one. */
function examples(): Example[] {
  const text = readFileSync(join(PROJECT, "docs/library.md"), "utf8");
  const pattern = /^## (.+)$|^```js\n([\s\S]*?)^```\n(?:\n```text\n([\s\S]*?)^```)?/gm;
  let title = "";
  const found: Example[] = [];
  for (const [, heading, code, output] of text.matchAll(pattern)) {
    if (heading !== undefined) title = heading;
    if (code !== undefined) found.push({ title, code, output });
  }
  return found;
}

let sandbox: Sandbox;
let registry: RegistryProcess;

beforeAll(async () => {
  sandbox = new Sandbox("library");
  registry = await RegistryProcess.start();
  sandbox.varve("load", "-q", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
  const name = `${registry.domain}/team/box:1`;
  sandbox.varve("tag", "busybox", name);
  sandbox.varve("push", "-q", name);
  sandbox.varve("rmi", name);
  // Its layer must come from the registry.
  const view = sandbox.mount("busybox", "another");
  writeFileSync(join(view, "more"), "more\n");
  sandbox.varve("commit", "-q", "another", name);
  sandbox.varve("push", "-q", name);
  sandbox.varve("rm", "-f", "another");
  sandbox.varve("rmi", name);
  sandbox.varve("prune", "--all", "--force");
  sandbox.varve("load", "-q", "-i", sandbox.path("busybox.tar"));
  mkdirSync(sandbox.path("program/node_modules"), { recursive: true });
  symlinkSync(PROJECT, sandbox.path("program/node_modules/varve"));
});

afterAll(async () => {
  sandbox?.dispose();
  await registry?.dispose();
});

describe("the examples of docs/library.md", () => {
  it.each(examples())("$title", ({ code, output }) => {
    const file = sandbox.path("program/example.mjs");
    writeFileSync(file, code.replaceAll("registry.example", registry.domain));
    const shown = run(process.execPath, [file], { env: sandbox.env, cwd: sandbox.path("program") });
    if (output === undefined) expect(shown).not.toBe("");
    else {
      const wanted = output.replaceAll("registry.example", registry.domain);
      const parts = wanted.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      expect(shown).toMatch(new RegExp(`^${parts.join("[^\\n]+")}$`));
    }
  });

  it("are five, and the first one's view outlives it", () => {
    expect(examples()).toHaveLength(5);
    expect(mountsBelow(sandbox.directory)).toHaveLength(1);
  });
});
