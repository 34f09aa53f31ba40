import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { WorkerPool } from "../../../src/snapshots/worker-pool.js";

const file = fileURLToPath(new URL("./worker-fixture.mjs", import.meta.url));
const pools: WorkerPool[] = [];

function makePool(size: number): WorkerPool {
  const pool = new WorkerPool({ file, name: "test", size });
  pools.push(pool);
  return pool;
}

afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
});

describe("WorkerPool", () => {
  it("answers with a clone of the result", async () => {
    const value = { text: "ä", bytes: new Uint8Array([1, 2]), absent: undefined };
    expect(await makePool(1).run("echo", value)).toEqual(value);
  });

  it("runs as many calls side by side as it has threads, and reuses them", async () => {
    const pool = makePool(2);
    const threads = await Promise.all([1, 2, 3, 4].map(() => pool.run<number>("thread", 20)));
    expect(new Set(threads).size).toBe(2);
  });

  it("lets urgent calls go before those that wait", async () => {
    const pool = makePool(1);
    const done: string[] = [];
    const call = (name: string, isUrgent = false) =>
      pool.run("thread", 20, { isUrgent }).then(() => done.push(name));
    await Promise.all([call("running"), call("waiting"), call("urgent", true)]);
    expect(done).toEqual(["running", "urgent", "waiting"]);
  });

  it("delivers events in order before the result", async () => {
    const events: unknown[] = [];
    const result = await makePool(1).run("events", 3, { onEvent: (event) => events.push(event) });
    expect(result).toBe("done");
    expect(events).toEqual([0, 1, 2]);
  });

  it("keeps class, code, details and stack of our errors", async () => {
    const error = await makePool(1)
      .run("notFound", "x")
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      name: "NotFoundError",
      code: "NOT_FOUND",
      message: "thing x: not found",
      details: { name: "x" },
      stack: expect.stringContaining("worker-fixture.mjs"),
    });
  });

  it("keeps the errno of a failed system call", async () => {
    await expect(makePool(1).run("syscall", 0)).rejects.toMatchObject({
      code: "SYSCALL",
      details: { errno: 28, errnoName: "ENOSPC", syscall: "write" },
    });
  });

  it("passes a bug on as a plain error", async () => {
    await expect(makePool(1).run("bug", 0)).rejects.toThrow("x is not a function");
  });

  it("asks the thread to stop when the caller aborts", async () => {
    const controller = new AbortController();
    const call = makePool(1).run("untilCancelled", 0, { signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await expect(call).rejects.toThrow("stopped");
  });

  it("drops a call that is aborted while it waits for a thread", async () => {
    const pool = makePool(1);
    const controller = new AbortController();
    const first = pool.run("thread", 50);
    const second = pool.run("echo", 2, { signal: controller.signal });
    const third = pool.run("echo", 3);
    controller.abort();
    await expect(second).rejects.toMatchObject({ code: "CANCELLED" });
    await first;
    expect(await third).toBe(3);
  });

  it.each(["crash", "exit"])("survives a thread that ends by %s", async (method) => {
    const pool = makePool(1);
    const waiting = pool.run(method, 0);
    const next = pool.run("echo", "alive");
    await expect(waiting).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await next).toBe("alive");
  });

  it("fails what is under way and what waits when it is closed", async () => {
    const pool = makePool(1);
    const calls = [pool.run("untilCancelled", 0), pool.run("echo", 1)];
    const failures = calls.map((call) =>
      expect(call).rejects.toMatchObject({ code: "UNAVAILABLE" }),
    );
    await pool.close();
    await Promise.all(failures);
    await expect(pool.run("echo", 1)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});
