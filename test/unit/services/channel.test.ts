import { expect, it } from "vitest";
import { Channel } from "../../../src/services/channel.js";

it("hands items out in their order, then ends", async () => {
  const channel = new Channel<number>();
  for (let n = 0; n < 10; n++) void channel.push(n);
  channel.end();
  const seen: number[] = [];
  for await (const item of channel) seen.push(item);
  expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

it("fails after the items that came before", async () => {
  const channel = new Channel<string>();
  void channel.push("first");
  channel.end({ error: new Error("then this") });
  const seen: string[] = [];
  const read = async () => {
    for await (const item of channel) seen.push(item);
  };
  await expect(read()).rejects.toThrow("then this");
  expect(seen).toEqual(["first"]);
});

it("lets writers wait for the reader, however fast they are", async () => {
  const channel = new Channel<number>();
  let written = 0;
  const writing = (async () => {
    for (; written < 1000; written++) await channel.push(written);
    channel.end();
  })();
  let furthest = 0;
  let read = 0;
  for await (const _ of channel) {
    read++;
    furthest = Math.max(furthest, written - read);
  }
  await writing;
  expect(read).toBe(1000);
  expect(furthest).toBeLessThan(100);
});

it("lets writers go on when the reader has left", async () => {
  const channel = new Channel<number>();
  const writing = (async () => {
    for (let n = 0; n < 1000; n++) await channel.push(n);
  })();
  for await (const _ of channel) break;
  await writing;
});
