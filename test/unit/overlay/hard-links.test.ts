import { linkSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { overlayAttributes } from "../../../src/overlay/format.js";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";
import { isRoot, ViewDriver } from "./view-driver.js";

const NAMES = ["a/one", "a/two", "b/three"];

let view: ViewDriver;
beforeEach(() => {
  view = new ViewDriver()
    .addLayer((directory) => {
      mkdirSync(join(directory, "a"));
      mkdirSync(join(directory, "b"));
      writeFileSync(join(directory, NAMES[0]!), "shared");
      for (const name of NAMES.slice(1))
        linkSync(join(directory, NAMES[0]!), join(directory, name));
    })
    .open();
});
afterEach(() => view.dispose());

const links = (path: string) => view.attributes(view.walk(path)).nlink;

it("stay one file when any name is written", () => {
  const node = view.walk("b/three");
  expect(view.write("b/three", "S")).toBe(1);
  for (const name of NAMES) {
    expect(view.walk(name)).toBe(node);
    expect(view.read(name)).toBe("Shared");
  }
  expect(links("a/one")).toBe(3);
  view.remount();
  expect(NAMES.map((name) => view.walk(name))).toEqual([node, node, node]);
  expect(links("a/two")).toBe(3);
});

it("lose names one by one, and the file with the last", () => {
  for (const [at, name] of NAMES.entries()) {
    expect(links(name)).toBe(3 - at);
    expect(view.unlink(name)).toBe(0);
    view.remount();
  }
  expect(readdirSync(join(view.workDir, "index"))).toEqual([]);
});

it("count right when the process died between copy-up and linking", () => {
  const node = view.walk("a/one");
  view.write("a/one", "S");
  view.fs.destroy();
  // As a kill right after the copy-up leaves it: the index has the file, the upper no name of it.
  for (const name of NAMES) sys.unlinkat(-100, toBytes(join(view.upperDir, name)), 0);
  const indexed = toBytes(join(view.workDir, "index", String(node)));
  const { nlink } = overlayAttributes(isRoot);
  expect(sys.setxattrat(-100, indexed, nlink, Buffer.from("L+0"), 0)).toBe(0);
  view.open();
  expect(NAMES.map((name) => view.walk(name))).toEqual([node, node, node]);
  expect(links("a/one")).toBe(3);
  expect(view.read("a/two")).toBe("Shared");
  expect(view.unlink("a/two")).toBe(0);
  expect(links("a/one")).toBe(2);
  expect(view.link("a/one", "c")).toBe(node);
  expect(links("b/three")).toBe(3);
  view.remount();
  expect(links("c")).toBe(3);
});

it("are found in a directory that was moved in an earlier session", () => {
  const node = view.walk("a/one");
  expect(view.rename("b", "moved")).toBe(0);
  view.remount();
  expect(view.write("a/one", "S")).toBe(1);
  expect(readdirSync(join(view.upperDir, "moved"))).toEqual(["three"]);
  expect(view.walk("moved/three")).toBe(node);
  expect(view.read("moved/three")).toBe("Shared");
});

it("survive renames over each other's neighbours", () => {
  view.create("x");
  expect(view.rename("x", "a/one")).toBe(0);
  expect(links("a/two")).toBe(2);
  expect(view.rename("a/two", "b/x")).toBe(0);
  view.remount();
  expect(view.walk("b/x")).toBe(view.walk("b/three"));
  expect(links("b/x")).toBe(2);
});
