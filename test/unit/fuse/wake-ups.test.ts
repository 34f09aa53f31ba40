import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WakeUps } from "../../../src/fuse/wake-ups.js";

let directory: string;
let device: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-wake-ups-"));
  device = join(directory, "device");
  writeFileSync(device, Buffer.alloc(0));
});

afterEach(() => rmSync(directory, { recursive: true }));

const wish = () => readFileSync(device);

test("single requests ask for nothing", () => {
  const wakeUps = new WakeUps(device);
  for (let second = 1; second < 100; second++) wakeUps.note(1, second * 1000);
  expect(wakeUps.isHolding).toBe(false);
  expect(wish()).toHaveLength(0);
});

test("a burst asks for quick wake-ups, and its end takes the wish back", async () => {
  const wakeUps = new WakeUps(device);
  for (let request = 0; request < 20; request++) wakeUps.note(1, 1000 + request * 0.1);
  expect(wakeUps.isHolding).toBe(true);
  expect(wish().readInt32LE()).toBeLessThanOrEqual(2);
  while (wakeUps.isHolding) await delay(1);
  expect(wish().readInt32LE()).toBe(2_000_000_000);
});

test("a trickle does not keep it up", async () => {
  const wakeUps = new WakeUps(device);
  wakeUps.note(100, 1000);
  expect(wakeUps.isHolding).toBe(true);
  const trickle = setInterval(() => wakeUps.note(1, 1000), 5);
  while (wakeUps.isHolding) await delay(1);
  clearInterval(trickle);
  expect(wish().readInt32LE()).toBe(2_000_000_000);
});

test("without the right to ask it does nothing", () => {
  const wakeUps = new WakeUps(join(directory, "missing"));
  wakeUps.note(100, 1000);
  wakeUps.note(100, 1001);
  expect(wakeUps.isHolding).toBe(false);
});

test("it is patient in bursts only, and while that is rewarded", () => {
  const wakeUps = new WakeUps(device);
  expect(wakeUps.patienceUs()).toBe(0);
  wakeUps.note(100, 1000);
  const hasOtherCpu = availableParallelism() > 1;
  for (let request = 0; request < 100; request++) {
    expect(wakeUps.patienceUs() > 0).toBe(hasOtherCpu);
    wakeUps.learn(true);
  }
  for (let request = 0; request < 3; request++) wakeUps.learn(false);
  expect(wakeUps.patienceUs()).toBe(0);
  const turns = Array.from({ length: 100 }, () => wakeUps.patienceUs());
  expect(turns.some((patience) => patience > 0)).toBe(hasOtherCpu);
});
