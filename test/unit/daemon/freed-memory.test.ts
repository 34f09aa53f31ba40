import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { FreedMemory } from "../../../src/daemon/freed-memory.js";
import { addonPath } from "../../../src/system/addon.js";

/** Prints by how many MiB the process shrinks: 1,000 buffers are free then, a few between them are in use. */
const FRAGMENTED = `
  const { syscalls } = require(process.argv[1]);
  const residentMiB = () => process.memoryUsage.rss() / 2 ** 20;
  function fragment() {
    const buffers = Array.from({ length: 1000 }, () => Buffer.allocUnsafeSlow(100_000).fill(1));
    return buffers.filter((_, at) => at % 100 === 99);
  }
  const used = fragment();
  setTimeout(async () => {
    gc();
    const before = residentMiB();
    let shrunk = 0;
    // The buffers are freed on another thread.
    for (let look = 0; look < 100 && shrunk < 60; look++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (process.argv[2] === "trim") await syscalls.trimHeapAsync();
      shrunk = before - residentMiB();
    }
    console.log(shrunk, used.length);
  });
`;

it("what is free between buffers that are in use goes back to the system", () => {
  const flags = ["--expose-gc", "-e", FRAGMENTED, addonPath, "trim"];
  const [shrunkMiB, used] = execFileSync(process.execPath, flags, { encoding: "utf8" }).split(" ");
  expect(Number(used)).toBe(10);
  // Of 95.
  expect(Number(shrunkMiB)).toBeGreaterThan(60);
});

it("a daemon gives memory back after work, and leaves the machine alone while it is idle", async () => {
  let cpuMs = 500;
  const memory = new FreedMemory(() => cpuMs);
  expect(await memory.look()).toBe(true);
  cpuMs += 10;
  expect(await memory.look()).toBe(false);
  cpuMs += 100;
  expect(await memory.look()).toBe(true);
  expect(await memory.look()).toBe(false);
});

it("a daemon that does little gives memory back in the end", async () => {
  let cpuMs = 500;
  const memory = new FreedMemory(() => cpuMs);
  await memory.look();
  const looks: boolean[] = [];
  for (let look = 0; look < 6; look++) {
    cpuMs += 10;
    looks.push(await memory.look());
  }
  expect(looks.filter((gave) => gave)).toHaveLength(1);
});
