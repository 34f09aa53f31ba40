/** What a daemon tells of itself: metrics, top, its log by request, a bundle for a report. */

import { spawnSync } from "node:child_process";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type MetricSample, parseMetrics } from "../../../src/client/metric-samples.js";
import { freePort } from "../registry/registry-process.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const CLI = path.resolve(import.meta.dirname, "../../../bin/varve");
const sandbox = new DaemonSandbox();
let port: number;

beforeAll(async () => {
  port = await freePort();
  await sandbox.start("--io=cached", `--metrics-address=127.0.0.1:${port}`, "--log-level=debug");
  await sandbox.load(makeLayout(sandbox.path("layout")));
});

afterAll(() => sandbox.dispose());

const metrics = async () => parseMetrics((await sandbox.client.metrics()).text);
const find = (samples: MetricSample[], name: string, labels: Record<string, string> = {}) =>
  samples.find(
    (sample) =>
      sample.name === name &&
      Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  )?.value;

function varve(...args: string[]) {
  const env = { ...process.env, VARVE_SOCKET: sandbox.socket, NO_COLOR: "1" };
  return spawnSync(CLI, ["--no-autostart", ...args], { encoding: "utf8", env });
}

describe("metrics", () => {
  it("count what happens in a view while it is mounted: requests, copy-ups, bytes", async () => {
    const { target } = await sandbox.mount({ image: "small", name: "busy" });
    appendFileSync(path.join(target, "data/file"), "more");
    writeFileSync(path.join(target, "data/new"), Buffer.alloc(10_000));
    const samples = await metrics();
    const view = { view: "busy" };
    // The directory, and the file that is linked twice.
    expect(find(samples, "varve_view_copy_ups_total", view)).toBe(2);
    expect(find(samples, "varve_view_written_bytes_total", view)).toBe(10_004);
    expect(find(samples, "varve_view_requests_total", { ...view, operation: "WRITE" })).toBe(2);
    expect(find(samples, "varve_view_request_seconds_count", view)).toBeGreaterThan(0);
    expect(find(samples, "varve_views", { state: "mounted" })).toBe(1);
    expect(find(samples, "varve_events_total", { type: "view", action: "mount" })).toBe(1);
    await sandbox.client.removeView({ name: "busy", force: true });
    expect((await metrics()).filter(({ labels }) => labels.view === "busy")).toEqual([]);
  });

  it("count calls by method and outcome, and starts of daemons", async () => {
    await expect(sandbox.client.inspectView({ name: "nobody" })).rejects.toThrow();
    const samples = await metrics();
    const call = { method: "InspectView", code: "NOT_FOUND" };
    expect(find(samples, "varve_call_seconds_count", call)).toBe(1);
    expect(find(samples, "varve_calls_running", { method: "Metrics" })).toBe(1);
    expect(find(samples, "varve_daemon_starts_total")).toBe(1);
  });

  it("are for Prometheus on a port that is configured, and nothing else is there", async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
    expect(answer.headers.get("content-type")).toContain("version=0.0.4");
    expect(parseMetrics(await answer.text()).length).toBeGreaterThan(20);
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(404);
    const post = await fetch(`http://127.0.0.1:${port}/metrics`, { method: "POST" });
    expect(post.status).toBe(404);
  });
});

describe("the commands", () => {
  it("print metrics, and what views do", async () => {
    await sandbox.mount({ image: "small", name: "shown" });
    expect(varve("metrics").stdout).toContain('varve_views{state="mounted"} 1');
    const top = varve("top", "--once", "-i", "0.1");
    expect(top.stdout).toMatch(/^VIEW .*\nshown +small:latest +cached +\d+/);
    expect(varve("top", "-i", "0").status).toBe(2);
    await sandbox.client.removeView({ name: "shown", force: true });
  });

  it("gather a bundle that says everything but secrets, and never over another file", async () => {
    writeFileSync(
      sandbox.path("state/daemon.log"),
      '{"msg":"GET https://me:hunter2@registry/v2/"}\nauthorization: Bearer hunter2hunter2\n',
    );
    const file = sandbox.path("bundle.gz");
    expect(varve("debug", "bundle", "-o", file)).toMatchObject({ status: 0, stdout: `${file}\n` });
    const text = gunzipSync(readFileSync(file)).toString();
    for (const part of [
      "==== machine",
      "==== check",
      "varve_info{",
      "registry/v2",
      '"snapshots"',
    ]) {
      expect(text).toContain(part);
    }
    expect(text).not.toContain("hunter2");
    expect(varve("debug", "bundle", "-o", file).status).toBe(1);
  });
});

describe("the log", () => {
  it("names the request that a line belongs to: all calls of one command have the same", async () => {
    const { view } = await sandbox
      .mount({ image: "small", name: "logged" })
      .then((mounted) => ({ view: mounted }));
    await sandbox.client.removeView({ name: "logged", force: true });
    const lines = sandbox.log
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Record<string, string>);
    const mounted = lines.find(({ msg }) => msg?.includes(`(${view.id}) mounted`));
    expect(mounted).toMatchObject({
      method: "MountView",
      request: expect.stringMatching(/^\w+-\w+$/),
    });
    const removed = lines.find(({ msg }) => msg?.startsWith("RemoveView: OK"));
    expect(removed?.request).toBe(mounted?.request);
    // What a thread reports later belongs to no request.
    expect(lines.find(({ msg }) => msg?.includes("listens on"))).not.toHaveProperty("request");
  });
});
