import { describe, expect, it } from "vitest";
import {
  type ProgressEvent,
  type StreamItem,
  withProgress as withProgressFor,
} from "../../../src/services/progress-stream.js";

const withProgress = <R>(work: (report: (event: ProgressEvent) => void) => Promise<R>) =>
  withProgressFor(work, { header: () => undefined });

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function event(id: string, action: string, current: number): ProgressEvent {
  return { id, action, current, total: 100 };
}

async function collect<R>(stream: AsyncIterable<StreamItem<R>>): Promise<StreamItem<R>[]> {
  const items: StreamItem<R>[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describe("withProgress", () => {
  it("ends with the result", async () => {
    const items = await collect(withProgress(async () => 42));
    expect(items).toEqual([{ result: 42 }]);
  });

  it("gives a quiet call the result alone", async () => {
    const header = (name: string) => (name === "varve-quiet" ? "1" : undefined);
    const work = async (report: (event: ProgressEvent) => void) => {
      report(event("a", "unpacking", 1));
      return 42;
    };
    expect(await collect(withProgressFor(work, { header }))).toEqual([{ result: 42 }]);
  });

  it("rejects as the work does, after its progress", async () => {
    const seen: unknown[] = [];
    const read = async () => {
      const work = async (report: (event: ProgressEvent) => void) => {
        report(event("a", "unpacking", 1));
        throw new Error("broken");
      };
      for await (const item of withProgress(work)) seen.push(item);
    };
    await expect(read()).rejects.toThrow("broken");
    expect(seen).toEqual([{ progress: event("a", "unpacking", 1) }]);
  });

  it("drops all but the latest of a flood, but keeps its end", async () => {
    const items = await collect(
      withProgress(async (report) => {
        for (let current = 0; current <= 1000; current++) {
          report(event("a", "unpacking", current));
          if (current % 100 === 0) await sleep(1);
        }
        return "done";
      }),
    );
    expect(items.length).toBeLessThan(100);
    expect(items.at(-2)).toEqual({ progress: event("a", "unpacking", 1000) });
  });

  it("leaves no action out, and never goes back to an earlier one", async () => {
    const items = await collect(
      withProgress(async (report) => {
        for (const action of ["waiting", "unpacking", "indexing", "done"]) {
          report(event("a", action, 1));
          report(event("a", action, 2));
          await sleep(5);
        }
      }),
    );
    const actions = items.flatMap((item) => ("progress" in item ? [item.progress.action] : []));
    const order = ["waiting", "unpacking", "indexing", "done"];
    const positions = actions.map((action) => order.indexOf(action));
    expect(positions).toEqual(positions.toSorted((a, b) => a - b));
    expect([...new Set(actions)]).toEqual(order);
  });

  it("holds only one waiting event of each action of an object for a reader that does not read", async () => {
    const stream = withProgress(async (report) => {
      for (let current = 0; current < 100_000; current++)
        report(event(`${current % 3}`, "x", current));
      return "done";
    });
    const items = await collect(stream);
    expect(items.length).toBeLessThanOrEqual(3 * 2 + 1);
  });
});
