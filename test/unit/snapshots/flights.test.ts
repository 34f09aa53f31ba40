import { describe, expect, it } from "vitest";
import { type FlightCrew, Flights } from "../../../src/snapshots/flights.js";

/** Work that ends when told to, or with the abort. */
function controlled() {
  const state = { started: 0, aborted: 0 };
  let resolve: (value: string) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  let crew: FlightCrew<number> | undefined;
  const work = (given: FlightCrew<number>): Promise<string> => {
    state.started++;
    crew = given;
    return new Promise((ok, fail) => {
      resolve = ok;
      reject = fail;
      given.signal.addEventListener("abort", () => {
        state.aborted++;
        fail(new Error("aborted"));
      });
    });
  };
  return {
    work,
    state,
    finish: (value: string) => resolve(value),
    fail: (error: Error) => reject(error),
    report: (event: number) => crew?.report(event),
  };
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

describe("Flights", () => {
  it("runs the work once for many passengers, who share the result", async () => {
    const flights = new Flights<string, number>();
    const job = controlled();
    const passages = [1, 2, 3].map(() => flights.board("k", job.work));
    await tick();
    job.finish("done");
    expect(await Promise.all(passages.map((passage) => passage.result))).toEqual(
      Array(3).fill("done"),
    );
    expect(job.state.started).toBe(1);
  });

  it("shares an error", async () => {
    const flights = new Flights<string, number>();
    const job = controlled();
    const passages = [1, 2].map(() => flights.board("k", job.work));
    await tick();
    job.fail(new Error("broken"));
    for (const passage of passages) await expect(passage.result).rejects.toThrow("broken");
  });

  it("starts anew after the flight has landed", async () => {
    const flights = new Flights<string, number>();
    await flights.board("k", async () => "first").result;
    await tick();
    expect(await flights.board("k", async () => "second").result).toBe("second");
  });

  it("tells all passengers the progress, a late one where it is", async () => {
    const flights = new Flights<string, number>();
    const job = controlled();
    const early: number[] = [];
    const late: number[] = [];
    flights.board("k", job.work, (event) => early.push(event));
    await tick();
    job.report(1);
    job.report(2);
    flights.board("k", job.work, (event) => late.push(event));
    job.report(3);
    expect(early).toEqual([1, 2, 3]);
    expect(late).toEqual([2, 3]);
    job.finish("");
  });

  it("goes on while one passenger is left, and is cancelled with the last", async () => {
    const flights = new Flights<string, number>();
    const job = controlled();
    const a = flights.board("k", job.work);
    const b = flights.board("k", job.work);
    await tick();
    await a.leave();
    await expect(a.result).rejects.toMatchObject({ code: "CANCELLED" });
    expect(job.state.aborted).toBe(0);
    await b.leave();
    expect(job.state.aborted).toBe(1);
  });

  it("keeps a new flight on the ground until the cancelled one has ended", async () => {
    const flights = new Flights<string, number>();
    const order: string[] = [];
    let land: () => void = () => undefined;
    const first = flights.board("k", async (crew) => {
      await new Promise<void>((resolve) => {
        land = resolve;
      });
      order.push(`first ended, aborted ${crew.signal.aborted}`);
      return "first";
    });
    await tick();
    void first.leave();
    const second = flights.board("k", async () => {
      order.push("second started");
      return "second";
    });
    await tick();
    expect(order).toEqual([]);
    land();
    expect(await second.result).toBe("second");
    expect(order).toEqual(["first ended, aborted true", "second started"]);
  });

  it("counts a passenger that leaves twice once", async () => {
    const flights = new Flights<string, number>();
    const job = controlled();
    const a = flights.board("k", job.work);
    const b = flights.board("k", job.work);
    await tick();
    await a.leave();
    await a.leave();
    expect(job.state.aborted).toBe(0);
    job.finish("done");
    expect(await b.result).toBe("done");
  });
});
