import { describe, expect, it } from "vitest";
import { parseMetrics } from "../../../src/client/metric-samples.js";
import { EventLog } from "../../../src/metadata/event-log.js";
import { Activity } from "../../../src/services/metrics/activity.js";
import { Exposition } from "../../../src/services/metrics/exposition.js";
import { DURATION_BOUNDS, SAMPLE, TALLIED, Tally } from "../../../src/system/tally.js";

describe("the text format", () => {
  it("escapes labels, and the command reads what the daemon writes", () => {
    const page = new Exposition();
    page.family("a_total", "counter", "A.").sample(3, { view: 'x"\\\n}y', empty: "" });
    page.family("b", "gauge", "B.").sample(0.5);
    expect(page.text).toContain('a_total{view="x\\"\\\\\\n}y",empty=""} 3\n');
    expect(parseMetrics(page.text)).toEqual([
      { name: "a_total", labels: { view: 'x"\\\n}y', empty: "" }, value: 3 },
      { name: "b", labels: {}, value: 0.5 },
    ]);
  });

  it("has histograms whose classes add up", () => {
    const page = new Exposition();
    const figures = { bounds: [1, 2], classes: [5, 0, 2], sum: 9.5 };
    page.family("h", "histogram", "H.").histogram(figures, { m: "x" });
    expect(page.text.split("\n").slice(2, -1)).toEqual([
      'h_bucket{m="x",le="1"} 5',
      'h_bucket{m="x",le="2"} 5',
      'h_bucket{m="x",le="+Inf"} 7',
      'h_sum{m="x"} 9.5',
      'h_count{m="x"} 7',
    ]);
  });
});

describe("a tally", () => {
  it("is read by another thread from the same memory, and times one request of many", () => {
    const writer = new Tally();
    const timed = Array.from({ length: 2 * SAMPLE }, () => writer.begin(15)).filter(Boolean);
    expect(timed).toHaveLength(2);
    writer.timed(15, DURATION_BOUNDS[0]);
    writer.timed(15, 100);
    writer.add(TALLIED.copyUps, 2);
    const { counts, requests } = new Tally(writer.memory).read();
    expect(counts).toMatchObject({ copyUps: 2, readBytes: 0 });
    expect(requests).toHaveLength(1);
    expect(requests[0]).toMatchObject({ opcode: 15, count: 2 * SAMPLE, timed: 2 });
    expect(requests[0]!.classes).toEqual([1, 0, 0, 0, 0, 0, 1]);
  });

  it("counts nothing for opcodes that no kernel has", () => {
    const tally = new Tally();
    expect(tally.begin(4096)).toBe(false);
    expect(tally.read().requests).toEqual([]);
  });
});

describe("the daemon's activity", () => {
  it("counts calls by outcome, those that run, and events", () => {
    const events = new EventLog();
    const activity = new Activity(events);
    const first = activity.begin("MountView");
    activity.begin("MountView")("NOT_FOUND");
    expect(activity.underWay().get("MountView")).toBe(1);
    first("OK");
    events.publish("view", "mount", "id");
    events.publish("view", "mount", "other");
    const calls = [...activity.calls()].map(({ method, code }) => `${method} ${code}`);
    expect(calls).toEqual(["MountView NOT_FOUND", "MountView OK"]);
    expect(activity.underWay().get("MountView")).toBe(0);
    expect(activity.events().get("view mount")).toBe(2);
  });
});
