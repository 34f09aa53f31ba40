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

it("a daemon gives memory back after work, collects garbage at rest, then leaves the machine alone", async () => {
  let cpuMs = 500;
  const memory = new FreedMemory(() => cpuMs);
  const done: string[] = [];
  for (const workMs of [0, 100, 10, 10, 10, 10, 0, 100, 0, 100]) {
    cpuMs += workMs;
    done.push(await memory.look());
  }
  const rest = ["collected", "collected", "nothing", "nothing", "nothing"];
  expect(done).toEqual(["trimmed", "trimmed", ...rest, "trimmed", "collected", "trimmed"]);
});

it("what nobody refers to is gone after a rest", async () => {
  const memory = new FreedMemory(() => cpuMs);
  let cpuMs = 500;
  await memory.look();
  const garbage = Array.from({ length: 100 }, () => new WeakRef({}));
  // A turn of its own: what a reference was made for or has given stays until its turn ends.
  await new Promise((resolve) => setImmediate(resolve));
  cpuMs += 1;
  expect(await memory.look()).toBe("collected");
  expect(garbage.filter((one) => one.deref() !== undefined)).toEqual([]);
});
