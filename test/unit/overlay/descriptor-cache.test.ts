import { existsSync, readlinkSync } from "node:fs";
import { expect, it } from "vitest";
import { DescriptorCache } from "../../../src/overlay/descriptor-cache.js";
import { sys } from "../../../src/system/addon.js";
import { toBytes } from "../../../src/system/bytes.js";

const open = () => sys.open(toBytes("/dev/null"), 0, 0);
const isOpen = (fd: number) =>
  existsSync(`/proc/self/fd/${fd}`) && readlinkSync(`/proc/self/fd/${fd}`) === "/dev/null";

it("closes the least recently used descriptor when it is full", () => {
  const cache = new DescriptorCache(3);
  const fds = [1, 2, 3].map((key) => cache.put(key, open()));
  expect(cache.get(1)).toBe(fds[0]);
  cache.put(4, open());
  expect(cache.get(2)).toBe(-1);
  expect([1, 3, 4].map((key) => cache.get(key) >= 0)).toEqual([true, true, true]);
  cache.dispose();
  expect(cache.size).toBe(0);
  expect(isOpen(fds[0]!)).toBe(false);
});

it("closes what it replaces and drops", () => {
  const cache = new DescriptorCache(8);
  const first = cache.put(1, open());
  const second = cache.put(1, open());
  expect([isOpen(first), isOpen(second)]).toEqual([false, true]);
  cache.drop(1);
  expect(isOpen(second)).toBe(false);
  cache.drop(1);
  cache.dispose();
});

it("keeps to the thread's share with the caches of all other views, however many there are", () => {
  const caches = Array.from({ length: 40 }, () => new DescriptorCache(128));
  try {
    for (const cache of caches) for (let key = 0; key < 100; key++) cache.put(key, open());
    const total = caches.reduce((sum, cache) => sum + cache.size, 0);
    expect(total).toBeLessThanOrEqual(1024);
    // What a view has just opened is there, and none has lost everything.
    for (const cache of caches) expect(cache.get(99)).toBeGreaterThanOrEqual(0);
  } finally {
    for (const cache of caches) cache.dispose();
  }
  const alone = new DescriptorCache(128);
  for (let key = 0; key < 200; key++) alone.put(key, open());
  expect(alone.size).toBe(128);
  alone.dispose();
});
